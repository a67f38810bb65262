"""Money of one currency in another, at the bid and ask of the pair between them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from trading_api.kernel.values import Currency, currency
from trading_api.modules.broker.domain.arithmetic import divide_half_even, divide_up, rescale
from trading_api.modules.broker.domain.quote import Quote

RATE_SCALE = 8
ONE = 10**RATE_SCALE


@dataclass(frozen=True, slots=True)
class Conversion:
    """How results in the currency of prices become money of the account.

    Attributes:
        quote_currency: of the instrument's prices.
        pair: the instrument whose quote tells the rate.
        is_inverse: whether that pair quotes the account's currency in the other one.
        bid: what one unit of the quote currency brings in the account's, 10^-8: profits.
        ask: what one unit costs, 10^-8: losses.
    """

    quote_currency: Currency
    pair: str
    is_inverse: bool
    bid: int
    ask: int

    @property
    def middle_twice(self) -> int:
        """Return bid plus ask: twice the rate without the spread, exact."""
        return self.bid + self.ask

    def at(self, quote: Quote | None) -> "Conversion":
        """Return the conversion at a newer quote of its pair; without one it stays."""
        if quote is None:
            return self
        bid, ask = _rates(quote, is_inverse=self.is_inverse)
        return replace(self, bid=bid, ask=ask)

    def convert(self, value: int, unit: int) -> int:
        """Return a signed 10^-8 amount in units of ``unit`` · 10^-8 of the account's currency.

        Rounded half-even, once; profits at the bid, losses at the ask.
        """
        return divide_half_even(value * (self.bid if value > 0 else self.ask), ONE * unit)

    def convert_middle(self, value: int, unit: int = 1) -> int:
        """Return the same without the spread."""
        return divide_half_even(value * self.middle_twice, 2 * ONE * unit)


def find_conversion(
    quote_code: str, account_code: str, exchange: str, find: Callable[[str], Quote | None]
) -> Conversion | None:
    """Return how to convert by a pair of that exchange; None where no quote tells."""
    for pair, is_inverse in (
        (f"{exchange}:{quote_code}{account_code}", False),
        (f"{exchange}:{account_code}{quote_code}", True),
    ):
        quote = find(pair)
        if quote is not None:
            bid, ask = _rates(quote, is_inverse=is_inverse)
            return Conversion(currency(quote_code), pair, is_inverse, bid, ask)
    return None


def _rates(quote: Quote, *, is_inverse: bool) -> tuple[int, int]:
    if not is_inverse:
        return (
            rescale(quote.bid, quote.price_scale, RATE_SCALE),
            rescale(quote.ask, quote.price_scale, RATE_SCALE),
        )
    whole = int(10 ** (quote.price_scale + RATE_SCALE))
    return whole // quote.ask, divide_up(whole, quote.bid)
