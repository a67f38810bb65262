"""What the broker needs from outside: quotes, instruments and a venue to trade on."""

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any, Protocol

from trading_api.modules.broker.domain.instrument import Instrument, Quote
from trading_api.modules.broker.domain.matching import Match
from trading_api.modules.broker.domain.order import Order

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

    async def list_tradable(self) -> list[Instrument]:
        """Return what the venue takes orders on, by symbol.

        Raises:
            MarketUnavailableError: the market can't be asked and the answer isn't known.
        """


class Venue(Protocol):
    """Where orders trade; pure, so that the same seed, orders and quotes give the same fills."""

    def is_open(self, instrument: Instrument, at: datetime) -> bool:
        """Tell whether an instrument trades at an instant."""

    def compute_delay(self, order: Order) -> timedelta:
        """Return how long after its acceptance the venue works an order."""

    def meet(
        self, order: Order, quote: Quote, instrument: Instrument, *, is_new: bool = False
    ) -> Match:
        """Decide what a fresh quote does to an open order; ``is_new``: just accepted."""


class SignIn(Protocol):
    """Where users sign in."""

    async def sign_in(self, *, login: str, password: str) -> tuple[str, int]:
        """Return a new access token and for how many seconds it is good.

        Raises:
            UnauthenticatedError: login and password don't belong together.
            UnavailableError: nobody can be asked.
        """

    async def sign_out(self, *, credential: str) -> None:
        """End the sign-in behind an ``Authorization`` header."""


class MarketHistory(Protocol):
    """Bars of the market."""

    async def read(
        self, *, symbol: str, resolution: str, from_: int, to: int, credential: str | None
    ) -> dict[str, list[Any]]:
        """Return the columns ``t o h l c v`` of the bars in [from, to], seconds since 1970 UTC.

        Raises:
            InvalidInputError: an unknown symbol or resolution.
            UnavailableError: nobody can be asked.
        """
