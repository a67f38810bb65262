"""What the broker needs from outside: quotes and instruments."""

from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Protocol

from trading_api.modules.broker.domain.instrument import Instrument, Quote

REFRESH_AGE = timedelta(seconds=1)
"""A quote of the last second is not asked for again: the market's heartbeat is half of that."""


class QuoteSource(Protocol):
    """The newest quotes; reading never waits, refreshing may ask the market."""

    @property
    def is_pushed(self) -> bool:
        """Tell whether quotes come by themselves; else only ``refresh`` brings them."""

    @property
    def is_live(self) -> bool:
        """Tell whether any instrument has a fresh quote."""

    def find(self, symbol: str) -> Quote | None:
        """Return the newest quote known, however old; None where none ever came."""

    async def refresh(
        self, symbols: Collection[str], *, older_than: timedelta = REFRESH_AGE
    ) -> None:
        """Ask the market for those whose newest quote is older than that.

        Never raises: where the market doesn't answer, the quotes stay as old as they are.
        """

    def listen(self, callback: Callable[[Quote], None]) -> None:
        """Call back for each newer quote of any instrument, in order; once per process."""


class InstrumentSource(Protocol):
    """The instruments there are."""

    async def find(self, symbol: str) -> Instrument | None:
        """Return an instrument by its full symbol; None where there is none.

        Raises:
            MarketUnavailableError: the market can't be asked and the answer isn't known.
        """
