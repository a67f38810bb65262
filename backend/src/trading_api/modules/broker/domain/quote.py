"""The best prices of an instrument at one instant, and the sides that trade on them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

QUOTE_AGE_MAX = timedelta(seconds=2)
"""A quote of that age or older is stale: nothing fills on it."""


class OrderSide(StrEnum):
    """Which way an order trades."""

    BUY = "BUY"
    SELL = "SELL"

    @property
    def sign(self) -> int:
        """Return +1 for BUY and -1 for SELL."""
        return 1 if self is OrderSide.BUY else -1

    @property
    def opposite(self) -> "OrderSide":
        """Return the other side."""
        return OrderSide.SELL if self is OrderSide.BUY else OrderSide.BUY


@dataclass(frozen=True, slots=True)
class Quote:
    """The best prices of an instrument at one instant.

    Attributes:
        symbol: whose.
        bid: what a seller gets, raw at ``price_scale``.
        ask: what a buyer pays, raw; never below the bid.
        price_scale: decimals of both.
        sequence: grows with every quote of the instrument.
        at: the instant it holds from, UTC.
        last: the price that bars are built from, raw; 0 where it isn't known.
    """

    symbol: str
    bid: int
    ask: int
    price_scale: int
    sequence: int
    at: datetime
    last: int = 0

    def touch(self, side: OrderSide) -> int:
        """Return the raw price that side trades at: buys on the ask, sells on the bid."""
        return self.ask if side is OrderSide.BUY else self.bid

    def is_fresh(self, now: datetime) -> bool:
        """Tell whether orders may fill on it: younger than two seconds."""
        return now - self.at < QUOTE_AGE_MAX
