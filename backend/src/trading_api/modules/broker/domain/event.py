"""The account's event log: one gapless sequence over orders, fills, positions and money."""

from dataclasses import dataclass
from datetime import datetime

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


Subject = Order | Execution | Position | CashChange
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
