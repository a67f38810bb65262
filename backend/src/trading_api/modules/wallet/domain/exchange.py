"""Currency exchange: two legs through the house's fx accounts in one entry, at the market's price.

The customer's money converts once at the mid price, half-even to the minor unit; the way from mid
to the price a customer gets is the spread, posted to the house (rules of accounts, A). A customer
sells at the bid and buys at the ask.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Final

from trading_api.kernel.errors import FieldError
from trading_api.kernel.values import MINOR_MAX, Currency, Money
from trading_api.ledger.domain import (
    AccountType,
    Book,
    Entry,
    EntryType,
    LedgerAccount,
    Posting,
    credit,
    debit,
    house_account,
)
from trading_api.modules.wallet.errors import AmountTooSmallError

PPM: Final = 1_000_000

RATE_AGE_MAX: Final = timedelta(seconds=2)
"""A price older than this is nobody's price any more."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What one unit of `base` is worth in `quote`, raw at `scale` decimals.

    Attributes:
        instrument: Whose quote it is.
        is_demo: Whether the price is the demo market's, which funded money never trades at.
        at: UTC instant of the quote.
    """

    instrument: str
    base: str
    quote: str
    bid: int
    ask: int
    scale: int
    at: datetime
    is_demo: bool

    def is_fresh(self, now: datetime) -> bool:
        """Tell whether it may be traded at."""
        return now - self.at <= RATE_AGE_MAX


@dataclass(frozen=True, slots=True)
class Conversion:
    """An exchange decided.

    Attributes:
        sold: What leaves the wallet.
        gross: The same at the mid price, in the other currency.
        spread: Of it, what the house keeps; gross = net + spread, to the minor unit.
        price: Units of the bought currency per unit sold, as the customer gets it.
    """

    sold: Money
    gross: Money
    spread: Money
    price: Fraction
    rate: Rate

    @property
    def net(self) -> Money:
        """Return what reaches the wallet."""
        return self.gross - self.spread


def convert(sold: Money, bought: Currency, rate: Rate, *, fee_ppm: int) -> Conversion:
    """Convert an amount at a rate of the two currencies, whichever is its base.

    Args:
        sold: Positive.
        bought: The other currency.
        rate: Of the pair.
        fee_ppm: The house's own margin on top of the market's spread, millionths of the price.

    Raises:
        AmountTooSmallError: Nothing would be left to receive.
    """
    unit = 10**rate.scale
    bid, ask = Fraction(rate.bid, unit), Fraction(rate.ask, unit)
    mid = (bid + ask) / 2
    if rate.base == sold.currency.code:
        mid_price, price = mid, bid
    else:
        mid_price, price = 1 / mid, 1 / ask
    price = price * (PPM - fee_ppm) / PPM
    shift = Fraction(10) ** (bought.scale - sold.currency.scale)
    gross_minor = round(sold.minor * mid_price * shift)  # half-even, exact on fractions
    # What the customer gets rounds down: what is owed to the house rounds up.
    net_minor = min(gross_minor, int(sold.minor * price * shift))
    if net_minor <= 0 or gross_minor > MINOR_MAX:
        message = "the amount is too small or too large to exchange"
        raise AmountTooSmallError(
            message, errors=[FieldError("amount", "not_exchangeable", message)]
        )
    return Conversion(
        sold=sold,
        gross=Money(gross_minor, bought),
        spread=Money(gross_minor - net_minor, bought),
        price=price,
        rate=rate,
    )


@dataclass(frozen=True, slots=True)
class ExchangeAccounts:
    """The ledger accounts of an exchange."""

    sold: LedgerAccount
    bought: LedgerAccount
    fx_sold: LedgerAccount
    fx_bought: LedgerAccount
    spread: LedgerAccount

    @classmethod
    def of(cls, sold: LedgerAccount, bought: LedgerAccount, *, book: Book) -> "ExchangeAccounts":
        """Describe them for two accounts of one wallet."""
        return cls(
            sold=sold,
            bought=bought,
            fx_sold=house_account(AccountType.FX, sold.currency, book=book),
            fx_bought=house_account(AccountType.FX, bought.currency, book=book),
            spread=house_account(AccountType.HOUSE, bought.currency, book=book, name="fx_spread"),
        )

    def all(self) -> list[LedgerAccount]:
        """Return every one of them."""
        return [self.sold, self.bought, self.fx_sold, self.fx_bought, self.spread]


def exchange_entry(
    conversion: Conversion,
    accounts: ExchangeAccounts,
    *,
    entry_id: str,
    description: str,
    now: datetime,
) -> Entry:
    """Build the two legs, and the spread out of the second one."""
    postings: list[Posting] = [
        debit(accounts.sold, conversion.sold),
        credit(accounts.fx_sold, conversion.sold),
        debit(accounts.fx_bought, conversion.gross),
        credit(accounts.bought, conversion.gross),
    ]
    if conversion.spread.minor:
        postings += [
            debit(accounts.bought, conversion.spread),
            credit(accounts.spread, conversion.spread),
        ]
    rate = conversion.rate
    return Entry(
        entry_id=entry_id,
        type=EntryType.EXCHANGE,
        postings=tuple(postings),
        occurred_at=now,
        description=description,
        details={
            "instrument": rate.instrument,
            "bid": _text(rate.bid, rate.scale),
            "ask": _text(rate.ask, rate.scale),
            "gross": str(conversion.gross),
            "spread": str(conversion.spread),
            "net": str(conversion.net),
        },
    )


def price_text(price: Fraction, *, decimals: int = 8) -> str:
    """Return a price as decimal text, cut off after its decimals."""
    return _text(int(price * 10**decimals), decimals)


def _text(raw: int, scale: int) -> str:
    whole, rest = divmod(raw, 10**scale)
    return f"{whole}.{rest:0{scale}d}" if scale else str(whole)
