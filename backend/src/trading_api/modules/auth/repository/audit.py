"""The audit: rows are added, never changed."""

from datetime import datetime

from trading_api.kernel.clock import to_us
from trading_api.modules.auth.tables import audit
from trading_api.runtime import context
from trading_api.runtime.database import Transaction


class AuditRepository:
    """Appends inside the caller's transaction."""

    async def add_audit(
        self,
        transaction: Transaction,
        *,
        action: str,
        outcome: str,
        now: datetime,
        address: str,
        actor_id: str | None = None,
        session_id: str | None = None,
        about: str | None = None,
    ) -> None:
        """Append one row to the audit."""
        await transaction.execute(
            audit.insert(),
            {
                "occurred_at_us": to_us(now),
                "actor_id": actor_id,
                "session_id": session_id,
                "address": address,
                "action": action,
                "outcome": outcome,
                "object": about,
                "request_id": context.request_id.get(),
            },
        )
