"""Executions by user, symbol and time."""

from datetime import datetime

import sqlalchemy as sa

from trading_api.kernel.clock import to_us
from trading_api.modules.broker.domain.execution import Execution
from trading_api.modules.broker.repository import rows
from trading_api.modules.broker.tables import accounts, executions
from trading_api.runtime.database import Transaction


class MarkRepository:
    """One query; the unique key (account, sequence) leads it to the user's rows."""

    async def list_executions(
        self,
        transaction: Transaction,
        *,
        user_id: str,
        symbol: str,
        from_: datetime,
        to: datetime,
        limit: int,
    ) -> list[Execution]:
        """Return executions in [from_, to), newest first."""
        owned = sa.select(accounts.c.account_id).where(accounts.c.user_id == user_id)
        found = await transaction.all(
            sa.select(executions)
            .where(
                executions.c.account_id.in_(owned),
                executions.c.symbol == symbol,
                executions.c.executed_at_us >= to_us(from_),
                executions.c.executed_at_us < to_us(to),
            )
            .order_by(executions.c.executed_at_us.desc(), executions.c.execution_id.desc())
            .limit(limit)
        )
        return [rows.execution_of(row._mapping) for row in found]
