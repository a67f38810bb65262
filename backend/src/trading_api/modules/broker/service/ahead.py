"""What commands on accounts read before they begin: for many accounts at once.

A command that finds nothing read ahead reads by itself; both ways lead to the same desk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trading_api.kernel.errors import TradingError
from trading_api.ledger.domain import AccountState
from trading_api.ledger.engine import Ledger
from trading_api.modules.broker.domain.account import Account
from trading_api.modules.broker.domain.order import Order
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.repository import BrokerRepository
from trading_api.runtime.database import Ahead, Idempotency, Transaction
from trading_api.runtime.database.idempotency import Claim


@dataclass(frozen=True, slots=True)
class Need:
    """What a command will ask for.

    Attributes:
        symbol: the instrument whose live orders it needs.
        claim: the key it may carry, and its request.
    """

    account_id: str
    symbol: str
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class FoundAccount:
    """A locked account with what hangs on it.

    Attributes:
        positions: the open ones and the instruments' own.
        orders: live ones of the instrument ``symbol``.
        cash: of its ledger account, locked as well.
    """

    account: Account
    positions: Sequence[Position]
    symbol: str
    orders: Sequence[Order]
    cash: AccountState


class DeskAhead:
    """What was read for one command.

    Attributes:
        claim: the request that was looked for.
        answer: what a first request with its key got, or why that one can't be repeated; None
            where the key is free.
    """

    __slots__ = ("_found", "answer", "claim")

    def __init__(
        self,
        found: FoundAccount | None,
        *,
        claim: Claim | None,
        answer: dict[str, Any] | TradingError | None,
    ) -> None:
        self._found = found
        self.claim = claim
        self.answer = answer

    def take(self, account_id: str) -> FoundAccount | None:
        """Return the account once: afterwards it may have changed."""
        found, self._found = self._found, None
        return found if found is not None and found.account.account_id == account_id else None


class AheadReader:
    """Reads what several commands need, and locks their accounts in the order of their ids."""

    def __init__(
        self, repository: BrokerRepository, ledger: Ledger, idempotency: Idempotency
    ) -> None:
        self._repository = repository
        self._ledger = ledger
        self._idempotency = idempotency

    def of(self, account_id: str, symbol: str, claim: Claim | None = None) -> Ahead[Need]:
        """Return what to hand to a group with a command."""
        return Ahead(self.read, Need(account_id, symbol, claim))

    async def read(self, transaction: Transaction, needs: Sequence[Need]) -> list[DeskAhead]:
        """Read for each need; an account that isn't there is left for its command to miss."""
        claims = [each.claim for each in needs if each.claim is not None]
        answers = iter(await self._idempotency.find_many(transaction, claims))
        account_ids = sorted({each.account_id for each in needs})
        accounts = await self._repository.lock_accounts(transaction, account_ids)
        positions = await self._repository.list_positions_of(transaction, account_ids)
        orders = await self._repository.list_live_orders_in(
            transaction, account_ids, sorted({each.symbol for each in needs})
        )
        states = await self._ledger.lock_accounts(
            transaction, [each.cash_account_id for each in accounts.values()]
        )
        found = []
        for need in needs:
            account = accounts.get(need.account_id)
            theirs = None
            if account is not None and account.cash_account_id in states:
                theirs = FoundAccount(
                    account,
                    positions.get(need.account_id, ()),
                    need.symbol,
                    [
                        each
                        for each in orders.get(need.account_id, ())
                        if each.symbol == need.symbol
                    ],
                    states[account.cash_account_id],
                )
            answer = None if need.claim is None else next(answers)
            found.append(DeskAhead(theirs, claim=need.claim, answer=answer))
        return found
