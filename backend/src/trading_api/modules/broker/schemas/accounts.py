"""Accounts, their worth and their events on the wire."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    StringConstraints,
)

from trading_api.kernel.values import decimal_of
from trading_api.modules.broker.domain.account import Account
from trading_api.modules.broker.domain.event import AccountEvent, CashChange
from trading_api.modules.broker.domain.execution import Execution
from trading_api.modules.broker.domain.order import (
    Order,
)
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.schemas.orders import OrderView
from trading_api.modules.broker.schemas.positions import ExecutionView, PositionView
from trading_api.modules.broker.schemas.wire import (
    EventKind,
    Milliseconds,
    Number,
    Request,
    View,
    money_of,
    ms_of,
)
from trading_api.modules.broker.service.reports import AccountReport


class AccountRequest(Request):
    """A further paper account."""

    name: (
        Annotated[str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True)] | None
    ) = None


class CashView(View):
    """A movement of the account's cash."""

    entry_id: str
    type: str
    change: Number
    balance: Number
    currency: str
    reference: str | None

    @classmethod
    def of(cls, change: CashChange) -> "CashView":
        """Translate a cash change."""
        return cls.model_construct(
            entry_id=change.entry_id,
            type=change.type,
            change=decimal_of(change.change_minor, change.currency_scale),
            balance=decimal_of(change.cash_minor, change.currency_scale),
            currency=change.currency,
            reference=change.reference,
        )


class EventView(View):
    """One event of the account's gapless sequence; it shows what its ``type`` names."""

    sequence: int
    type: Literal["order", "execution", "position", "cash"]
    time: Milliseconds
    order: OrderView | None = None
    execution: ExecutionView | None = None
    position: PositionView | None = None
    cash: CashView | None = None

    @classmethod
    def of(cls, event: AccountEvent) -> "EventView":
        """Translate an event."""
        kind, subject = show(event)
        shown: dict[str, Any] = dict.fromkeys(("order", "execution", "position", "cash"))
        return cls.model_construct(
            sequence=event.sequence,
            type=kind,
            time=ms_of(event.occurred_at),
            **{**shown, kind: subject},
        )


class AccountView(View):
    """A trading account."""

    id: str
    name: str
    type: Literal["demo", "live"]
    currency: str
    currency_sign: str
    epoch: str = Field(description="changes when the event sequence starts anew")
    offset: int = Field(description="number of its newest event")
    open_time: Milliseconds

    @classmethod
    def of(cls, account: Account) -> "AccountView":
        """Translate an account."""
        code = account.currency.code
        return cls.model_construct(
            id=account.account_id,
            name=account.name,
            type="demo" if account.book == "demo" else "live",
            currency=code,
            currency_sign="$" if code == "USD" else code,
            epoch=account.epoch,
            offset=account.event_sequence,
            open_time=ms_of(account.opened_at),
        )


class StateView(View):
    """What an account is worth, marked to the newest quotes."""

    account_id: str
    currency: str
    balance: Number = Field(description="cash: deposits, results and commissions so far")
    equity: Number = Field(description="balance and unrealized results")
    unrealized_pl: Number
    realized_pl: Number = Field(description="before commission")
    commission: Number
    margin_used: Number
    margin_reserved: Number = Field(description="for open orders")
    margin_available: Number = Field(description="for new orders; may be negative")
    withdrawable: Number
    positions: list[PositionView]
    epoch: str
    offset: int = Field(description="number of the newest event that this contains")

    @classmethod
    def of(cls, report: AccountReport) -> "StateView":
        """Translate a report."""
        account, worth = report.account, report.valuation

        def money(minor: int) -> Decimal:
            return money_of(minor, account.currency)

        return cls.model_construct(
            account_id=account.account_id,
            currency=account.currency.code,
            balance=money(worth.cash_minor),
            equity=money(worth.equity_minor),
            unrealized_pl=money(worth.unrealized_minor),
            realized_pl=money(worth.realized_minor),
            commission=money(worth.commission_minor),
            margin_used=money(worth.margin_minor),
            margin_reserved=money(worth.reserved_minor),
            margin_available=money(worth.available_minor),
            withdrawable=money(worth.withdrawable_minor),
            positions=[PositionView.of(each, report.quotes) for each in report.positions],
            epoch=account.epoch,
            offset=account.event_sequence,
        )


def show(event: AccountEvent) -> tuple[EventKind, View]:
    """Return what an event shows, and the word for its kind."""
    subject = event.subject
    match subject:
        case Order():
            return "order", OrderView.of(subject)
        case Execution():
            return "execution", ExecutionView.of(subject)
        case Position():
            return "position", PositionView.of(subject)
        case CashChange():
            return "cash", CashView.of(subject)
