"""One keyed request: its first answer is kept with its effect, repeats get it again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trading_api.kernel.errors import TradingError
from trading_api.modules.broker.service.ahead import DeskAhead
from trading_api.runtime.database import Idempotency, Transaction
from trading_api.runtime.database.idempotency import Claim


@dataclass(frozen=True, slots=True)
class Keyed:
    """A request that may carry an idempotency key.

    Attributes:
        key: None switches the mechanism off.
        body: canonical, JSON-ready, numbers as text.
    """

    idempotency: Idempotency
    user_id: str
    operation: str
    key: str | None
    body: Mapping[str, Any]

    @property
    def claim(self) -> Claim:
        """Return it as the database knows it."""
        return Claim(self.user_id, self.operation, self.key, self.body)

    async def begin(self, transaction: Transaction) -> dict[str, Any] | None:
        """Claim the key first of all; return the first answer where this is a repeat."""
        if self._is_read_ahead(transaction):
            answer: dict[str, Any] | TradingError | None = transaction.ahead.answer
            if isinstance(answer, TradingError):
                raise answer
            return answer
        return await self.idempotency.begin(
            transaction,
            user_id=self.user_id,
            operation=self.operation,
            key=self.key,
            body=self.body,
        )

    async def finish(self, transaction: Transaction, result: Mapping[str, Any]) -> None:
        """Keep the answer in the transaction of its effect."""
        if self._is_read_ahead(transaction):
            self.idempotency.keep_later(transaction, self.claim, result=result)
            return
        await self.idempotency.finish(
            transaction,
            user_id=self.user_id,
            operation=self.operation,
            key=self.key,
            result=result,
        )

    def _is_read_ahead(self, transaction: Transaction) -> bool:
        ahead = transaction.ahead
        return isinstance(ahead, DeskAhead) and ahead.claim == self.claim
