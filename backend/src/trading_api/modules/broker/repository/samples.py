"""Equity over time: which accounts are due, their samples, results by instrument."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from trading_api.kernel.clock import from_us, to_us
from trading_api.modules.broker.domain.performance import EquityPoint
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.repository import rows
from trading_api.modules.broker.tables import (
    accounts,
    equity_samples,
    executions,
    ledger,
    positions,
)
from trading_api.runtime.database import Transaction


@dataclass(frozen=True, slots=True)
class Due:
    """An account to be sampled, as one snapshot shows it.

    Attributes:
        is_changed: whether it has events since its last sample.
        positions: all of them, flat ones too.
    """

    account_id: str
    sequence: int
    is_changed: bool
    cash_minor: int
    positions: tuple[Position, ...]


@dataclass(frozen=True, slots=True)
class SymbolResult:
    """What executions of one instrument brought, minor units of the account's currency."""

    symbol: str
    executions: int
    realized_minor: int
    commission_minor: int
    closes: int
    wins: int


class SampleRepository:
    """Reads and writes samples in a transaction."""

    async def list_due(self, transaction: Transaction, *, after: str, limit: int) -> list[Due]:
        """Return accounts that hold something or have news since their last sample, by id."""
        holds = sa.exists().where(
            positions.c.account_id == accounts.c.account_id, positions.c.signed_quantity != 0
        )
        is_changed = accounts.c.event_sequence > accounts.c.sampled_sequence
        found = await transaction.all(
            sa.select(
                accounts.c.account_id,
                accounts.c.event_sequence,
                is_changed.label("is_changed"),
                ledger.accounts.c.balance_minor,
            )
            .join(
                ledger.accounts,
                ledger.accounts.c.account_id == accounts.c.account_id + ":" + accounts.c.currency,
            )
            .where(accounts.c.account_id > after, sa.or_(is_changed, holds))
            .order_by(accounts.c.account_id)
            .limit(limit)
        )
        theirs: dict[str, list[Position]] = {row.account_id: [] for row in found}
        if found:
            for row in await transaction.all(
                sa.select(positions).where(positions.c.account_id.in_(theirs))
            ):
                theirs[row.account_id].append(rows.position_of(row._mapping))
        return [
            Due(
                row.account_id,
                row.event_sequence,
                bool(row.is_changed),
                row.balance_minor,
                tuple(theirs[row.account_id]),
            )
            for row in found
        ]

    async def add_samples(
        self, transaction: Transaction, samples: Sequence[tuple[str, EquityPoint]]
    ) -> None:
        """Write samples, and how far each account's events are in them."""
        insert = postgresql.insert if transaction.dialect == "postgresql" else sqlite.insert
        statement = insert(equity_samples)
        keys = {"account_id", "at_us"}
        await transaction.execute(
            # Of two of one instant the later one knows more.
            statement.on_conflict_do_update(
                index_elements=sorted(keys),
                set_={
                    column.name: statement.excluded[column.name]
                    for column in equity_samples.c
                    if column.name not in keys
                },
            ),
            [
                {
                    "account_id": account_id,
                    "at_us": to_us(point.at),
                    "cash_minor": point.cash_minor,
                    "equity_minor": point.equity_minor,
                    "flows_minor": point.flows_minor,
                    "margin_minor": point.margin_minor,
                    "exposure_minor": point.exposure_minor,
                    "sequence": point.sequence,
                }
                for account_id, point in samples
            ],
        )

    async def mark_sampled(
        self, transaction: Transaction, sampled: Sequence[tuple[str, int]]
    ) -> None:
        """Store up to which event each account is sampled, in id order."""
        if sampled:
            await transaction.execute(
                accounts.update()
                .where(accounts.c.account_id == sa.bindparam("of_account_id"))
                .values(sampled_sequence=sa.bindparam("upto")),
                [{"of_account_id": each, "upto": upto} for each, upto in sorted(sampled)],
            )

    async def list_samples(
        self, transaction: Transaction, account_id: str, *, from_: datetime, to: datetime
    ) -> list[EquityPoint]:
        """Return an account's samples in [from_, to), oldest first, with the last one before."""
        table = equity_samples
        theirs = table.c.account_id == account_id
        before = (
            sa.select(sa.func.max(table.c.at_us))
            .where(theirs, table.c.at_us <= to_us(from_))
            .scalar_subquery()
        )
        found = await transaction.all(
            sa.select(table)
            .where(
                theirs,
                table.c.at_us >= sa.func.coalesce(before, to_us(from_)),
                table.c.at_us < to_us(to),
            )
            .order_by(table.c.at_us)
        )
        return [
            EquityPoint(
                at=from_us(row.at_us),
                cash_minor=row.cash_minor,
                equity_minor=row.equity_minor,
                flows_minor=row.flows_minor,
                margin_minor=row.margin_minor,
                exposure_minor=row.exposure_minor,
                sequence=row.sequence,
            )
            for row in found
        ]

    async def sum_by_symbol(
        self, transaction: Transaction, account_id: str, *, from_: datetime, to: datetime
    ) -> list[SymbolResult]:
        """Return what executions in [from_, to) brought, by instrument."""
        closes = executions.c.closed_quantity > 0
        found = await transaction.all(
            sa.select(
                executions.c.symbol,
                sa.func.count().label("executions"),
                sa.func.sum(executions.c.realized_minor).label("realized"),
                sa.func.sum(executions.c.commission_minor).label("commission"),
                sa.func.sum(sa.case((closes, 1), else_=0)).label("closes"),
                sa.func.sum(
                    sa.case((sa.and_(closes, executions.c.realized_minor > 0), 1), else_=0)
                ).label("wins"),
            )
            .where(
                executions.c.account_id == account_id,
                executions.c.executed_at_us >= to_us(from_),
                executions.c.executed_at_us < to_us(to),
            )
            .group_by(executions.c.symbol)
            .order_by(executions.c.symbol)
        )
        return [
            SymbolResult(
                row.symbol,
                int(row.executions),
                int(row.realized),
                int(row.commission),
                int(row.closes),
                int(row.wins),
            )
            for row in found
        ]

    async def thin_out(self, transaction: Transaction, *, before: datetime, bucket_us: int) -> int:
        """Delete of the samples before an instant all but the last one in each bucket."""
        table, later = equity_samples, equity_samples.alias("later")
        result = await transaction.execute(
            table.delete().where(
                table.c.at_us < to_us(before),
                sa.exists().where(
                    later.c.account_id == table.c.account_id,
                    later.c.at_us > table.c.at_us,
                    later.c.at_us // bucket_us == table.c.at_us // bucket_us,
                ),
            )
        )
        return result.rowcount
