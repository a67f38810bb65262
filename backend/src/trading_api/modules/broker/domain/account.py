"""Trading accounts: what they are worth, what their orders reserve, what they may still do."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from trading_api.kernel.values import Currency
from trading_api.modules.broker.domain.instrument import Quote
from trading_api.modules.broker.domain.position import Position


@dataclass(frozen=True, slots=True)
class Account:
    """A trading account.

    Attributes:
        account_id: ours.
        user_id: whose.
        ordinal: 1 for the user's first account, and so on.
        name: for people.
        book: ``demo`` or ``funded``.
        currency: of its cash and of everything it can trade.
        epoch: changes when the event sequence starts anew (restore, reset).
        event_sequence: number of its newest event; 0 before the first.
        fact_sequence: number of its newest published fact; 0 before the first.
        opened_at: UTC.
    """

    account_id: str
    user_id: str
    ordinal: int
    name: str
    book: str
    currency: Currency
    epoch: str
    event_sequence: int
    fact_sequence: int
    opened_at: datetime

    @property
    def cash_account_id(self) -> str:
        """Return the id of its cash in the ledger."""
        return f"{self.account_id}:{self.currency.code}"


@dataclass(frozen=True, slots=True)
class Valuation:
    """What an account is worth at a set of marks, in minor units of its currency.

    Attributes:
        cash_minor: what its ledger says; realized results and commissions are in it.
        unrealized_minor: what closing everything at the marks would earn.
        margin_minor: what the open positions need.
        reserved_minor: what the open orders may come to need.
        realized_minor: what closing has earned over all time, before commission.
        commission_minor: what all fills have cost.
    """

    cash_minor: int
    unrealized_minor: int
    margin_minor: int
    reserved_minor: int
    realized_minor: int
    commission_minor: int

    @property
    def equity_minor(self) -> int:
        """Return cash and open results."""
        return self.cash_minor + self.unrealized_minor

    @property
    def available_minor(self) -> int:
        """Return what new orders may use: equity less margin and reservations; may be negative."""
        return self.equity_minor - self.margin_minor - self.reserved_minor

    @property
    def withdrawable_minor(self) -> int:
        """Return what may leave: open profits can't, open losses hold back."""
        usable = min(self.cash_minor, self.equity_minor)
        return max(0, usable - self.margin_minor - self.reserved_minor)


def compute_valuation(
    *, cash_minor: int, positions: Iterable[Position], quotes: Mapping[str, Quote]
) -> Valuation:
    """Return what an account is worth; a position without a quote stands at its last fill."""
    unrealized = margin = reserved = realized = commission = 0
    for position in positions:
        mark = position.mark(quotes.get(position.symbol))
        unrealized += position.compute_unrealized(mark)
        margin += position.compute_margin(mark)
        reserved += position.reserved_minor
        realized += position.realized_minor
        commission += position.commission_minor
    return Valuation(cash_minor, unrealized, margin, reserved, realized, commission)
