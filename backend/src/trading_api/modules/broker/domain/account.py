"""Trading accounts: what they are worth, what their orders reserve, what they may still do."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum

from trading_api.kernel.values import Currency
from trading_api.modules.broker.domain.instrument import Quote
from trading_api.modules.broker.domain.position import Position


class PositionMode(StrEnum):
    """How fills of one instrument come together."""

    NETTING = "NETTING"
    """One position per instrument."""
    HEDGING = "HEDGING"
    """One position per entry; both sides may be held at once."""


class TradingState(StrEnum):
    """What a kill switch lets through."""

    ACTIVE = "ACTIVE"
    REDUCE_ONLY = "REDUCE_ONLY"
    """Orders that only close, and cancels."""
    HALTED = "HALTED"
    """Cancels alone; resting orders don't fill."""


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
        starting_cash_minor: what it was opened with, and goes back to when it is reset.
        position_mode: how its fills come together; never changes.
        trading_state: its own kill switch.
        platform_state: the platform's kill switch, as it was when the account was read.
        leverages: what the user chose instead of the house's, by symbol.
        pace_us: when its orders so far are worked off, microseconds since 1970 UTC; see the order
            rate in ``domain.risk``.
        margin_called_at: when its margin call began, UTC; None while there is none.
        financed_on: the last UTC day whose beginning was charged.
        begun_at: when it was opened, or reset for the last time, UTC.
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
    starting_cash_minor: int = 0
    position_mode: PositionMode = PositionMode.NETTING
    trading_state: TradingState = TradingState.ACTIVE
    platform_state: TradingState = TradingState.ACTIVE
    leverages: Mapping[str, int] = field(default_factory=dict)
    pace_us: int = 0
    margin_called_at: datetime | None = None
    financed_on: date = date(1970, 1, 1)
    begun_at: datetime = datetime(1970, 1, 1, tzinfo=UTC)

    @property
    def effective_state(self) -> TradingState:
        """Return the stricter of its own and the platform's kill switch."""
        states = (self.trading_state, self.platform_state)
        for state in (TradingState.HALTED, TradingState.REDUCE_ONLY):
            if state in states:
                return state
        return TradingState.ACTIVE

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
        financing_minor: what holding overnight has cost.
        held_minor: what transfers out hold back until they are through.
    """

    cash_minor: int
    unrealized_minor: int
    margin_minor: int
    reserved_minor: int
    realized_minor: int
    commission_minor: int
    financing_minor: int = 0
    held_minor: int = 0

    @property
    def equity_minor(self) -> int:
        """Return cash and open results."""
        return self.cash_minor + self.unrealized_minor

    @property
    def available_minor(self) -> int:
        """Return what new orders may use: equity less all that is bound; may be negative."""
        return self.equity_minor - self.margin_minor - self.reserved_minor - self.held_minor

    @property
    def withdrawable_minor(self) -> int:
        """Return what may leave: open profits can't, open losses hold back."""
        usable = min(self.cash_minor, self.equity_minor)
        return max(0, usable - self.margin_minor - self.reserved_minor - self.held_minor)


def compute_valuation(
    *,
    cash_minor: int,
    positions: Iterable[Position],
    quotes: Mapping[str, Quote],
    held_minor: int = 0,
) -> Valuation:
    """Return what an account is worth; a position without a quote stands at its last fill."""
    unrealized = margin = reserved = realized = commission = financing = 0
    for position in positions:
        mark = position.mark(quotes.get(position.symbol))
        position = position.at(quotes)
        unrealized += position.compute_unrealized(mark)
        margin += position.compute_margin(mark)
        reserved += position.reserved_minor
        if position.own_id is None:
            # The results of one entry's position are on the instrument's own too.
            realized += position.realized_minor
            commission += position.commission_minor
            financing += position.financing_minor
    return Valuation(
        cash_minor=cash_minor,
        unrealized_minor=unrealized,
        margin_minor=margin,
        reserved_minor=reserved,
        realized_minor=realized,
        commission_minor=commission,
        financing_minor=financing,
        held_minor=held_minor,
    )
