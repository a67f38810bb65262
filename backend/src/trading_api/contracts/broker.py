"""What the broker publishes, keyed by account; decimal numbers travel as text."""

from datetime import datetime
from decimal import Decimal
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from trading_api.contracts.envelope import Event

TransferDirection = Literal["in", "out"]
"""Seen from the trading account: in from the wallet, or out to it."""


class AccountOpened(Event):
    """A trading account exists and has its opening cash.

    Attributes:
        account_id: the account, which is the key too.
        user_id: whose.
        book: ``demo`` or ``funded``.
        currency: of its cash.
        opening_cash: in units of the currency.
    """

    TYPE: ClassVar[str] = "broker.account.opened"

    account_id: str
    user_id: str
    book: str
    currency: str
    opening_cash: Decimal


class AccountReset(Event):
    """A paper account began anew: no orders, no positions, its starting cash.

    Attributes:
        offset: number of the account's event that shows the same.
        epoch: of its event sequence from now on.
    """

    TYPE: ClassVar[str] = "broker.account.reset"

    account_id: str
    user_id: str
    offset: int
    epoch: str
    currency: str
    starting_cash: Decimal


class AccountRestricted(Event):
    """An operator turned an account's kill switch.

    Attributes:
        offset: number of the account's event that shows the same.
        state: what is taken from now on; REDUCE_ONLY takes what closes, HALTED only cancels.
    """

    TYPE: ClassVar[str] = "broker.account.restricted"

    account_id: str
    user_id: str
    offset: int
    state: Literal["ACTIVE", "REDUCE_ONLY", "HALTED"]
    reason: str


class MarginCalled(Event):
    """An account's equity fell to what its positions need, or below.

    Attributes:
        offset: number of the account's event that shows the same.
        level_percent: equity in percent of margin, rounded down to two decimals.
    """

    TYPE: ClassVar[str] = "broker.account.margin_called"

    account_id: str
    user_id: str
    offset: int
    currency: str
    equity: Decimal
    margin: Decimal
    level_percent: Decimal


class StoppedOut(Event):
    """The house canceled an account's orders and closed positions until it was safe again.

    Attributes:
        offset: number of the account's event that shows the same.
        level_percent: before; rounded down to two decimals.
        closed: what was closed, in order, the largest loss first.
    """

    TYPE: ClassVar[str] = "broker.account.stopped_out"

    account_id: str
    user_id: str
    offset: int
    currency: str
    equity: Decimal
    margin: Decimal
    level_percent: Decimal
    closed: list[str]


class _OrderEvent(Event):
    """What every event of an order tells.

    Attributes:
        offset: number of the account's event that shows the same.
        client_order_id: the caller's id; None where none was given.
        quantity: whole size, in units of the instrument.
        filled_quantity: of it, what is filled.
        limit_price: None where the type has none.
        trigger_price: None where the type has none.
        reduce_only: whether it may only make a position smaller.
        position_id: the position that its fills change; None in events of earlier versions.
        parent_id: of a bracket's leg: the entry that holds it, later the position it protects.
        parent_type: ``ORDER``, ``POSITION`` or ``TRADE`` (one entry's position); None without.
        bracket_role: ``TAKE_PROFIT`` or ``STOP_LOSS`` of a leg; None for any other order.
        take_profit: of an entry: where its take-profit stands; None without.
        stop_loss: of an entry: where its stop-loss stands; None without, and of a trailing stop.
    """

    order_id: str
    account_id: str
    user_id: str
    offset: int
    client_order_id: str | None
    symbol: str
    side: Literal["BUY", "SELL"]
    type: Literal["MARKET", "LIMIT", "STOP_MARKET", "STOP_LIMIT"]
    time_in_force: Literal["GTC", "IOC", "FOK", "GTD", "DAY"]
    quantity: Decimal
    filled_quantity: Decimal
    limit_price: Decimal | None
    trigger_price: Decimal | None
    reduce_only: bool
    position_id: str | None = None
    parent_id: str | None = None
    parent_type: Literal["ORDER", "POSITION", "TRADE"] | None = None
    bracket_role: Literal["TAKE_PROFIT", "STOP_LOSS"] | None = None
    take_profit: Decimal | None = None
    stop_loss: Decimal | None = None


class OrderAccepted(_OrderEvent):
    """The order works."""

    TYPE: ClassVar[str] = "broker.order.accepted"


class OrderModified(_OrderEvent):
    """The order works with other numbers."""

    TYPE: ClassVar[str] = "broker.order.modified"


class OrderFilled(_OrderEvent):
    """The order is filled in full.

    Attributes:
        average_fill_price: rounded half-even to 8 decimals.
    """

    TYPE: ClassVar[str] = "broker.order.filled"

    average_fill_price: Decimal


class OrderCanceled(_OrderEvent):
    """What was left of the order was canceled."""

    TYPE: ClassVar[str] = "broker.order.canceled"

    reason: str


class OrderExpired(_OrderEvent):
    """The order's time was over."""

    TYPE: ClassVar[str] = "broker.order.expired"


class OrderRejected(_OrderEvent):
    """The venue refused the order after it was accepted, as at a stop's trigger."""

    TYPE: ClassVar[str] = "broker.order.rejected"

    reason: str


class ExecutionRecorded(Event):
    """A fill of an order.

    Attributes:
        offset: number of the account's event that shows the same.
        quantity: filled by this execution.
        closed_quantity: of it, what closed the position held before.
        position_id: the position that it changed; None in events of earlier versions.
        signed_quantity_after: that position afterwards, negative for short.
        realized: what the closed part earned, in ``currency``.
        commission: what the fill cost, in ``currency``.
        quote_sequence: the quote it filled on.
        executed_at: UTC.
    """

    TYPE: ClassVar[str] = "broker.execution.recorded"

    execution_id: str
    order_id: str
    client_order_id: str | None
    account_id: str
    user_id: str
    offset: int
    symbol: str
    side: Literal["BUY", "SELL"]
    quantity: Decimal
    price: Decimal
    closed_quantity: Decimal
    signed_quantity_after: Decimal
    realized: Decimal
    commission: Decimal
    currency: str
    liquidity: Literal["MAKER", "TAKER"]
    position_id: str | None = None
    quote_bid: Decimal
    quote_ask: Decimal
    quote_sequence: int
    executed_at: datetime


EXECUTION_MARKS_PATH = "/internal/v1/broker/execution-marks"
"""Answers ``?symbol&from_us&to_us&limit`` with the acting user's ``ExecutionMarksAnswer``."""


class ExecutionMark(BaseModel):
    """An execution as a chart marks it.

    Attributes:
        execution_id: ours; unique.
        executed_at: UTC.
        quantity: in units, positive.
        price: per unit.
        is_closing: it reduced or closed a position.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    execution_id: str
    executed_at: datetime
    side: Literal["BUY", "SELL"]
    quantity: Decimal
    price: Decimal
    is_closing: bool


class ExecutionMarksAnswer(BaseModel):
    """What a user bought and sold of one symbol in a stretch of time, newest first.

    Attributes:
        executions: on all of the user's accounts, the newest of the stretch.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    executions: tuple[ExecutionMark, ...]


class CashTransferred(Event):
    """Cash came from the owner's wallet or went there; no result of trading.

    Attributes:
        offset: number of the account's event that shows the same.
        transfer_id: the wallet's id of the transfer.
        amount: in ``currency``, positive when the cash grew.
        cash: afterwards.
        occurred_at: UTC.
    """

    TYPE: ClassVar[str] = "broker.cash.transferred"

    account_id: str
    user_id: str
    offset: int
    transfer_id: str
    amount: Decimal
    cash: Decimal
    currency: str
    occurred_at: datetime


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class TransferOrder(_Message):
    """What wallet asks of one transfer; every step repeats the whole of it.

    Attributes:
        account_id: the trading account.
        user_id: whose it must be.
        book: of both ends.
        amount_minor: positive, in units of 10^-scale.
    """

    direction: TransferDirection
    account_id: str
    user_id: str
    book: str
    currency: str
    scale: int
    amount_minor: int


class TransferAnswer(_Message):
    """Where a transfer stands on the trading account's side, for good once it isn't ``held``.

    Attributes:
        state: ``credited`` and ``refused`` end a transfer in, ``captured`` and ``voided`` one out;
            ``refused`` and ``voided`` also stand for a transfer that never arrived and never will.
    """

    transfer_id: str
    state: Literal["credited", "refused", "held", "captured", "voided"]


class TransferStates(_Message):
    """The broker's half of the money between the two ledgers, from one snapshot.

    Attributes:
        clearing_minor: balance of the clearing account by ``book:currency``, credit positive.
        states: of the transfers asked for; unknown ones are absent.
    """

    clearing_minor: dict[str, int]
    states: dict[str, str]


class CashAnswer(_Message):
    """Whose a trading account is and what may leave it.

    Attributes:
        withdrawable_minor: in units of 10^-scale.
    """

    account_id: str
    user_id: str
    book: str
    currency: str
    scale: int
    withdrawable_minor: int
