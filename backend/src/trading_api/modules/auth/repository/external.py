"""Who is known to which outside provider, and ID tokens that were used up."""

from datetime import datetime, timedelta

import sqlalchemy as sa

from trading_api.kernel.clock import to_us
from trading_api.modules.auth.domain.external import ExternalUser
from trading_api.modules.auth.domain.tickets import Purpose
from trading_api.modules.auth.repository.rows import MICROSECOND, insert_into
from trading_api.modules.auth.tables import external_identities, tickets
from trading_api.runtime.database import Transaction


class ExternalRepository:
    """Reads and writes inside the caller's transaction."""

    async def find_user_id(self, transaction: Transaction, external: ExternalUser) -> str | None:
        """Return the user who is connected with somebody at a provider."""
        found: str | None = await transaction.scalar(
            sa.select(external_identities.c.user_id).where(
                external_identities.c.issuer == external.issuer,
                external_identities.c.subject == external.subject,
            )
        )
        return found

    async def connect(
        self, transaction: Transaction, external: ExternalUser, user_id: str, *, now: datetime
    ) -> None:
        """Connect a user with somebody at a provider; who is connected stays so."""
        await transaction.execute(
            insert_into(transaction, external_identities)
            .values(
                issuer=external.issuer,
                subject=external.subject,
                user_id=user_id,
                connected_at_us=to_us(now),
            )
            .on_conflict_do_nothing(index_elements=["issuer", "subject"])
        )

    async def use_token(
        self, transaction: Transaction, token_hash: str, *, lifetime: timedelta, now: datetime
    ) -> bool:
        """Use an ID token up; False where it was used before."""
        now_us = to_us(now)
        result = await transaction.execute(
            insert_into(transaction, tickets)
            .values(
                token_hash=token_hash,
                purpose=Purpose.EXTERNAL_TOKEN.value,
                data="",
                created_at_us=now_us,
                expires_at_us=now_us + lifetime // MICROSECOND,
                attempts=0,
                used_at_us=now_us,
            )
            .on_conflict_do_nothing(index_elements=["token_hash"])
        )
        return result.rowcount == 1
