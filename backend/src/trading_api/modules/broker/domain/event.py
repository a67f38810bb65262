"""The account's event log: one gapless sequence over orders, fills, positions and money."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from trading_api.modules.broker.domain.execution import Execution
from trading_api.modules.broker.domain.order import Order
from trading_api.modules.broker.domain.position import Position


@dataclass(frozen=True, slots=True)
class CashChange:
    """A movement of the account's cash, as its ledger has it.

    Attributes:
        entry_id: the ledger entry.
        type: why the money moved, as the ledger names it.
        change_minor: positive when the cash grew.
        cash_minor: the cash afterwards.
        reference: what caused it, such as an execution id; None where nothing did.
    """

    account_id: str
    entry_id: str
    type: str
    change_minor: int
    cash_minor: int
    currency: str
    currency_scale: int
    reference: str | None


class NoticeCode(StrEnum):
    """What an account is told about."""

    MARGIN_CALL = "MARGIN_CALL"
    MARGIN_RESTORED = "MARGIN_RESTORED"
    STOP_OUT = "STOP_OUT"
    TRADING_STATE = "TRADING_STATE"
    LEVERAGE = "LEVERAGE"
    RESET = "RESET"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the owner of an account should know.

    Attributes:
        is_error: whether it needs the owner's attention.
        text: for people.
        numbers: what decided it, as text.
    """

    account_id: str
    code: NoticeCode
    is_error: bool
    text: str
    numbers: Mapping[str, str] = field(default_factory=dict)


Subject = Order | Execution | Position | CashChange | Notice
"""What an event shows, as it was right after the event."""


@dataclass(frozen=True, slots=True)
class AccountEvent:
    """One event of an account.

    Attributes:
        sequence: from 1, without a gap.
        occurred_at: UTC.
    """

    account_id: str
    sequence: int
    subject: Subject
    occurred_at: datetime
