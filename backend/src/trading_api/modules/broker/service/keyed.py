"""One keyed request: its first answer is kept with its effect, repeats get it again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trading_api.runtime.database import Idempotency, Transaction


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

    async def begin(self, transaction: Transaction) -> dict[str, Any] | None:
        """Claim the key first of all; return the first answer where this is a repeat."""
        return await self.idempotency.begin(
            transaction,
            user_id=self.user_id,
            operation=self.operation,
            key=self.key,
            body=self.body,
        )

    async def finish(self, transaction: Transaction, result: Mapping[str, Any]) -> None:
        """Keep the answer in the transaction of its effect."""
        await self.idempotency.finish(
            transaction,
            user_id=self.user_id,
            operation=self.operation,
            key=self.key,
            result=result,
        )
