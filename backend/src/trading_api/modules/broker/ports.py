"""What the broker needs from outside: quotes and instruments."""

from collections.abc import Callable, Collection
from typing import Protocol

from trading_api.modules.broker.domain.instrument import Instrument, Quote


class QuoteSource(Protocol):
    """The newest quotes; reading never waits, refreshing may ask the market."""

    def find(self, symbol: str) -> Quote | None:
        """Return the newest quote known, however old; None where none ever came."""

    async def refresh(self, symbols: Collection[str]) -> None:
        """Ask the market for those whose newest quote is not from the last second.

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
