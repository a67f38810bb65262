"""Accounts, their worth and their events on the wire."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    Field,
    StringConstraints,
)

from trading_api.kernel.values import decimal_of
from trading_api.modules.broker.domain.account import Account, PositionMode, TradingState
from trading_api.modules.broker.domain.event import AccountEvent, CashChange, Notice, NoticeCode
from trading_api.modules.broker.domain.execution import Execution
from trading_api.modules.broker.domain.levels import compute_level
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
    decimal_or_none,
    money_of,
    ms_of,
)
from trading_api.modules.broker.service.controls import PlatformControl
from trading_api.modules.broker.service.reports import AccountReport, Connection


class AccountRequest(Request):
    """A further paper account."""

    name: (
        Annotated[str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True)] | None
    ) = None
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = "USD"
    position_mode: PositionMode = Field(
        PositionMode.NETTING,
        description="`NETTING`: one position per instrument; `HEDGING`: one per entry",
    )


class ControlRequest(Request):
    """How to turn a kill switch."""

    state: TradingState = Field(
        description="`ACTIVE`; `REDUCE_ONLY`: only closing orders; `HALTED`: only cancels"
    )
    reason: Annotated[
        str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)
    ] = Field(description="shown to the owner of an account, kept with the switch")


class ControlView(View):
    """The platform's kill switch."""

    state: TradingState
    reason: str | None
    changed_by: str | None
    change_time: Milliseconds | None

    @classmethod
    def of(cls, control: PlatformControl) -> "ControlView":
        """Translate a kill switch."""
        return cls.model_construct(
            state=control.state,
            reason=control.reason or None,
            changed_by=control.changed_by or None,
            change_time=None if control.changed_at is None else ms_of(control.changed_at),
        )


class NoticeView(View):
    """Something the owner of an account should know: TradingView's notification, and why."""

    code: NoticeCode
    notification_type: Literal[0, 1] = Field(description="0 error, 1 success")
    title: str
    text: str
    time: Milliseconds
    numbers: dict[str, str] = Field(description="what decided it")

    @classmethod
    def of(cls, notice: Notice, at: datetime) -> "NoticeView":
        """Translate a notice of an instant."""
        return cls.model_construct(
            code=notice.code,
            notification_type=0 if notice.is_error else 1,
            title=notice.code.value.replace("_", " ").capitalize(),
            text=notice.text,
            time=ms_of(at),
            numbers=dict(notice.numbers),
        )


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
    type: EventKind
    time: Milliseconds
    order: OrderView | None = None
    execution: ExecutionView | None = None
    position: PositionView | None = None
    cash: CashView | None = None
    notice: NoticeView | None = None

    @classmethod
    def of(cls, event: AccountEvent) -> "EventView":
        """Translate an event."""
        kind, subject = show(event)
        shown: dict[str, Any] = dict.fromkeys(get_args(EventKind))
        return cls.model_construct(
            sequence=event.sequence,
            type=kind,
            time=ms_of(event.occurred_at),
            **{**shown, kind: subject},
        )


class ConnectionView(View):
    """Whether the venue can trade for an account."""

    status: Literal[1, 2] = Field(description="1 connected, 2 connecting: no fresh quotes")
    account_id: str
    trading_state: TradingState = Field(description="the stricter of account and platform")
    message: str

    @classmethod
    def of(cls, connection: Connection) -> "ConnectionView":
        """Translate a status."""
        state = connection.account.effective_state
        message = "Quotes are live" if connection.is_live else "Waiting for fresh quotes"
        if state is not TradingState.ACTIVE:
            message += f"; trading is {state.value.lower().replace('_', '-')}"
        return cls.model_construct(
            status=1 if connection.is_live else 2,
            account_id=connection.account.account_id,
            trading_state=state,
            message=message,
        )


CURRENCY_SIGNS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "CHF": "Fr."}


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
    position_mode: PositionMode
    trading_state: TradingState = Field(description="its kill switch, as an operator turned it")
    starting_balance: Number = Field(description="what a reset goes back to")

    @classmethod
    def of(cls, account: Account) -> "AccountView":
        """Translate an account."""
        code = account.currency.code
        return cls.model_construct(
            id=account.account_id,
            name=account.name,
            type="demo" if account.book == "demo" else "live",
            currency=code,
            currency_sign=CURRENCY_SIGNS.get(code, code),
            epoch=account.epoch,
            offset=account.event_sequence,
            open_time=ms_of(account.opened_at),
            position_mode=account.position_mode,
            trading_state=account.trading_state,
            starting_balance=money_of(account.starting_cash_minor, account.currency),
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
    financing: Number = Field(description="what holding overnight has cost")
    margin_used: Number
    margin_reserved: Number = Field(description="for open orders")
    margin_level: Number | None = Field(
        description="equity in percent of margin used, rounded down; absent without margin"
    )
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
            financing=money(worth.financing_minor),
            margin_level=decimal_or_none(compute_level(worth), 2),
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
        case Notice():
            return "notice", NoticeView.of(subject, event.occurred_at)
