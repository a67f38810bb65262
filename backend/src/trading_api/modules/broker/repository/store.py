"""Queries of the broker's tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from trading_api.kernel.clock import from_us, to_us
from trading_api.kernel.ids import IdSource
from trading_api.modules.broker.domain.account import Account, TradingState
from trading_api.modules.broker.domain.event import AccountEvent
from trading_api.modules.broker.domain.execution import Execution
from trading_api.modules.broker.domain.instrument import Quote
from trading_api.modules.broker.domain.order import (
    Order,
    OrderSide,
    OrderStatus,
    OrderType,
    TimeInForce,
)
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.domain.schedules import midnight_of
from trading_api.modules.broker.repository import rows
from trading_api.modules.broker.tables import (
    CLOSED_STATUSES,
    IS_LIVE,
    IS_OPEN,
    PLATFORM,
    account_events,
    accounts,
    controls,
    executions,
    ledger,
    orders,
    positions,
)
from trading_api.runtime.database import Transaction, statements

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Margined:
    """An account that holds something.

    Attributes:
        cash_minor: what its ledger says.
        is_called: whether a margin call is on.
        positions: what it holds.
    """

    account_id: str
    cash_minor: int
    is_called: bool
    positions: tuple[Position, ...]


_ACCOUNT = sa.select(
    accounts,
    # Read with the account, so that the platform's switch costs no round trip of its own.
    sa.select(controls.c.state)
    .where(controls.c.name == PLATFORM)
    .scalar_subquery()
    .label("platform_state"),
)


# What every order needs is built once; building takes longer than running.
_LOCK_ACCOUNT = _ACCOUNT.where(
    accounts.c.account_id == sa.bindparam("of_account_id")
).with_for_update(of=accounts)
_POSITIONS = (
    sa.select(positions)
    .where(
        positions.c.account_id == sa.bindparam("of_account_id"),
        sa.or_(
            positions.c.signed_quantity != 0,
            positions.c.position_id == positions.c.symbol,
        ),
    )
    .order_by(positions.c.position_id)
)
_LIVE_ORDERS = (
    sa.select(orders)
    .where(orders.c.account_id == sa.bindparam("of_account_id"), IS_LIVE)
    .order_by(orders.c.order_id)
)
_LIVE_ORDERS_IN = _LIVE_ORDERS.where(orders.c.symbol == sa.bindparam("of_symbol"))
_ACCOUNT_IDS: sa.BindParameter[str] = sa.bindparam("of_account_ids", expanding=True)
_LOCK_ACCOUNTS = (
    _ACCOUNT.where(accounts.c.account_id.in_(_ACCOUNT_IDS))
    .order_by(accounts.c.account_id)
    .with_for_update(of=accounts)
)
_POSITIONS_OF = (
    sa.select(positions)
    .where(
        positions.c.account_id.in_(_ACCOUNT_IDS),
        sa.or_(
            positions.c.signed_quantity != 0,
            positions.c.position_id == positions.c.symbol,
        ),
    )
    .order_by(positions.c.account_id, positions.c.position_id)
)
_LIVE_ORDERS_OF = (
    sa.select(orders)
    .where(
        orders.c.account_id.in_(_ACCOUNT_IDS),
        orders.c.symbol.in_(sa.bindparam("of_symbols", expanding=True)),
        IS_LIVE,
    )
    .order_by(orders.c.order_id)
)


@cache
def _save_order(columns: tuple[str, ...]) -> sa.Update:
    return statements.update(orders, ("order_id",), columns).where(
        orders.c.status.not_in(CLOSED_STATUSES)
    )


class BrokerRepository:
    """Reads and writes accounts, orders, executions, positions and events in a transaction."""

    async def add_account(self, transaction: Transaction, account: Account) -> bool:
        """Write a new account; False where the user has one of that ordinal."""
        insert = postgresql.insert if transaction.dialect == "postgresql" else sqlite.insert
        result = await transaction.execute(
            insert(accounts).values(rows.account_values(account)).on_conflict_do_nothing()
        )
        return result.rowcount == 1

    async def find_account(self, transaction: Transaction, account_id: str) -> Account | None:
        """Return an account as it is, without a lock."""
        row = await transaction.first(_ACCOUNT.where(accounts.c.account_id == account_id))
        return None if row is None else rows.account_of(row._mapping)

    async def lock_account(self, transaction: Transaction, account_id: str) -> Account | None:
        """Return an account and hold its lock to the end: all it does is in one order."""
        row = await transaction.first(_LOCK_ACCOUNT, {"of_account_id": account_id})
        return None if row is None else rows.account_of(row._mapping)

    async def lock_accounts(
        self, transaction: Transaction, account_ids: Sequence[str]
    ) -> dict[str, Account]:
        """Lock accounts in the order of their ids and return those that are there."""
        found = await transaction.all(_LOCK_ACCOUNTS, {"of_account_ids": account_ids})
        return {row.account_id: rows.account_of(row._mapping) for row in found}

    async def save_account(self, transaction: Transaction, account: Account) -> None:
        """Store what changed in a locked account: its sequences, switches and leverages."""
        values = rows.mutable_values(account)
        transaction.later(
            statements.update(accounts, ("account_id",), tuple(values)),
            statements.keyed({"account_id": account.account_id}, values),
        )

    async def find_platform_control(
        self, transaction: Transaction
    ) -> tuple[TradingState, str, str, datetime] | None:
        """Return state, reason, who and when of the platform's kill switch."""
        row = await transaction.first(sa.select(controls).where(controls.c.name == PLATFORM))
        if row is None:
            return None
        return TradingState(row.state), row.reason, row.changed_by, from_us(row.changed_at_us)

    async def save_platform_control(
        self,
        transaction: Transaction,
        *,
        state: TradingState,
        reason: str,
        changed_by: str,
        changed_at: datetime,
    ) -> None:
        """Store the platform's kill switch."""
        insert = postgresql.insert if transaction.dialect == "postgresql" else sqlite.insert
        values = {
            "state": state.value,
            "reason": reason,
            "changed_by": changed_by,
            "changed_at_us": to_us(changed_at),
        }
        await transaction.execute(
            insert(controls)
            .values(name=PLATFORM, **values)
            .on_conflict_do_update(index_elements=["name"], set_=values)
        )

    async def renew_epochs(self, transaction: Transaction, *, ids: IdSource) -> None:
        """Begin every account's stream anew, as after a restore: old offsets mean nothing."""
        await transaction.execute(accounts.update().values(epoch=ids.new("epo")))

    async def list_accounts(self, transaction: Transaction, user_id: str) -> list[Account]:
        """Return a user's accounts, the first one first."""
        found = await transaction.all(
            sa.select(accounts).where(accounts.c.user_id == user_id).order_by(accounts.c.ordinal)
        )
        return [rows.account_of(row._mapping) for row in found]

    async def lock_accounts_of(self, transaction: Transaction, user_id: str) -> list[Account]:
        """Return a user's accounts under their locks, so that no further one comes meanwhile."""
        found = await transaction.all(
            sa.select(accounts)
            .where(accounts.c.user_id == user_id)
            .order_by(accounts.c.ordinal)
            .with_for_update()
        )
        return [rows.account_of(row._mapping) for row in found]

    async def add_order(self, transaction: Transaction, order: Order, *, ticket: str) -> None:
        """Write an accepted order with the canonical request it came from."""
        transaction.later(statements.insert(orders), {**rows.order_values(order), "ticket": ticket})

    async def save_order(self, transaction: Transaction, order: Order) -> None:
        """Store an order's new state; what is closed in the table stays as it is."""
        values = rows.order_values(order)
        result = await transaction.execute(
            _save_order(tuple(values)), statements.keyed({"order_id": order.order_id}, values)
        )
        assert result.rowcount == 1, f"{order.order_id} was closed under its account's lock"

    async def find_order(
        self, transaction: Transaction, account_id: str, order_id: str
    ) -> Order | None:
        """Return an order of that account."""
        row = await transaction.first(
            sa.select(orders).where(
                orders.c.order_id == order_id, orders.c.account_id == account_id
            )
        )
        return None if row is None else rows.order_of(row._mapping)

    async def find_order_by_client_id(
        self, transaction: Transaction, account_id: str, client_order_id: str
    ) -> tuple[Order, str] | None:
        """Return the order of a client order id, and its canonical request."""
        row = await transaction.first(
            sa.select(orders).where(
                orders.c.account_id == account_id, orders.c.client_order_id == client_order_id
            )
        )
        return None if row is None else (rows.order_of(row._mapping), row.ticket)

    async def list_live_orders(
        self, transaction: Transaction, account_id: str, *, symbol: str | None = None
    ) -> list[Order]:
        """Return an account's open orders and held brackets, oldest first."""
        statement, parameters = _LIVE_ORDERS, {"of_account_id": account_id}
        if symbol is not None:
            statement, parameters = _LIVE_ORDERS_IN, {**parameters, "of_symbol": symbol}
        return _orders_of(await transaction.all(statement, parameters))

    async def list_closed_since(
        self, transaction: Transaction, account_id: str, *, since: datetime, limit: int
    ) -> list[Order]:
        """Return orders that closed since then, those that closed last first."""
        found = await transaction.all(
            sa.select(orders)
            .where(
                orders.c.account_id == account_id,
                orders.c.status.in_(CLOSED_STATUSES),
                orders.c.updated_at_us >= to_us(since),
            )
            .order_by(orders.c.updated_at_us.desc())
            .limit(limit)
        )
        return [rows.order_of(row._mapping) for row in found]

    async def list_closed(
        self,
        transaction: Transaction,
        account_id: str,
        *,
        limit: int,
        before: str | None = None,
        symbol: str | None = None,
    ) -> list[Order]:
        """Return closed orders, newest first; ``before`` leaves out that order id and newer."""
        condition = sa.and_(orders.c.account_id == account_id, orders.c.status.in_(CLOSED_STATUSES))
        if before is not None:
            condition = sa.and_(condition, orders.c.order_id < before)
        if symbol is not None:
            condition = sa.and_(condition, orders.c.symbol == symbol)
        found = await transaction.all(
            sa.select(orders).where(condition).order_by(orders.c.order_id.desc()).limit(limit)
        )
        return [rows.order_of(row._mapping) for row in found]

    async def list_symbols_with_open_orders(self, transaction: Transaction) -> list[str]:
        """Return the instruments that any open order waits for."""
        found = await transaction.all(sa.select(orders.c.symbol).where(IS_OPEN).distinct())
        return [row.symbol for row in found]

    async def list_matchable(
        self, transaction: Transaction, quote: Quote, *, limit: int, after: str = ""
    ) -> list[tuple[str, str]]:
        """Return (account id, order id) of open orders that a quote may fill, oldest first.

        Advice only: whether it does is decided under the account's lock.
        """
        is_buy = orders.c.side == OrderSide.BUY.value
        touch = sa.case((is_buy, quote.ask), else_=quote.bid)
        waits = sa.and_(
            orders.c.type.in_((OrderType.STOP_MARKET.value, OrderType.STOP_LIMIT.value)),
            orders.c.status == OrderStatus.ACCEPTED.value,
        )
        is_reached = sa.case(
            (is_buy, orders.c.trigger_price <= touch), else_=orders.c.trigger_price >= touch
        )
        is_within = sa.or_(
            orders.c.limit_price.is_(None),
            sa.case((is_buy, orders.c.limit_price >= touch), else_=orders.c.limit_price <= touch),
        )
        found = await transaction.all(
            sa.select(orders.c.account_id, orders.c.order_id)
            .where(
                orders.c.symbol == quote.symbol,
                IS_LIVE,
                IS_OPEN,
                orders.c.quote_sequence < quote.sequence,
                orders.c.order_id > after,
                sa.or_(
                    sa.case(
                        (waits, sa.or_(is_reached, orders.c.trailing.is_not(None))), else_=is_within
                    ),
                    # What the venue's delay has kept from its first quote ends on it.
                    sa.and_(
                        orders.c.time_in_force.in_((TimeInForce.IOC.value, TimeInForce.FOK.value)),
                        sa.not_(waits),
                    ),
                ),
            )
            .order_by(orders.c.order_id)
            .limit(limit)
        )
        return [(row.account_id, row.order_id) for row in found]

    async def list_expired(
        self, transaction: Transaction, now: datetime, *, limit: int, after: str
    ) -> list[tuple[str, str]]:
        """Return (account id, order id) of open orders whose time is over, oldest first.

        Args:
            after: the last order id of the page before; empty for the first one.
        """
        found = await transaction.all(
            sa.select(orders.c.account_id, orders.c.order_id)
            .where(IS_OPEN, orders.c.expires_at_us <= to_us(now), orders.c.order_id > after)
            .order_by(orders.c.order_id)
            .limit(limit)
        )
        return [(row.account_id, row.order_id) for row in found]

    async def add_execution(self, transaction: Transaction, execution: Execution) -> None:
        """Write an execution; the table takes no change of it ever after."""
        transaction.later(statements.insert(executions), rows.execution_values(execution))

    async def list_executions(
        self,
        transaction: Transaction,
        account_id: str,
        *,
        limit: int,
        symbol: str | None = None,
        order_id: str | None = None,
        before: int | None = None,
    ) -> list[Execution]:
        """Return an account's executions, newest first; ``before`` is an execution's sequence."""
        condition: sa.ColumnElement[bool] = executions.c.account_id == account_id
        if symbol is not None:
            condition = sa.and_(condition, executions.c.symbol == symbol)
        if order_id is not None:
            condition = sa.and_(condition, executions.c.order_id == order_id)
        if before is not None:
            condition = sa.and_(condition, executions.c.sequence < before)
        found = await transaction.all(
            sa.select(executions)
            .where(condition)
            .order_by(executions.c.sequence.desc())
            .limit(limit)
        )
        return [rows.execution_of(row._mapping) for row in found]

    async def find_position(
        self, transaction: Transaction, account_id: str, position_id: str
    ) -> Position | None:
        """Return an account's position by its id; flat ones are kept too."""
        row = await transaction.first(
            sa.select(positions).where(
                positions.c.account_id == account_id, positions.c.position_id == position_id
            )
        )
        return None if row is None else rows.position_of(row._mapping)

    async def list_positions(self, transaction: Transaction, account_id: str) -> list[Position]:
        """Return an account's open positions and the instruments' own, flat ones too, by id."""
        found = await transaction.all(_POSITIONS, {"of_account_id": account_id})
        return [rows.position_of(row._mapping) for row in found]

    async def save_position(self, transaction: Transaction, position: Position) -> None:
        """Write a position, new or not."""
        values = rows.position_values(position)
        transaction.later(statements.upsert(positions, transaction.dialect, *values), values)

    async def list_held_symbols(
        self, transaction: Transaction, account_id: str | None = None
    ) -> list[str]:
        """Return the instruments that an account holds, or anybody where None."""
        condition: sa.ColumnElement[bool] = positions.c.signed_quantity != 0
        if account_id is not None:
            condition = sa.and_(condition, positions.c.account_id == account_id)
        found = await transaction.all(sa.select(positions.c.symbol).where(condition).distinct())
        return [row.symbol for row in found]

    async def list_reserving_accounts(
        self, transaction: Transaction, *, after: str, limit: int
    ) -> list[str]:
        """Return accounts that reserve something or have open orders, by id."""
        # The page is named in each half, so that a later one reads no more than what is left.
        reserving = sa.select(positions.c.account_id).where(
            positions.c.account_id > after, positions.c.reserved_minor > 0
        )
        ordering = sa.select(orders.c.account_id).where(orders.c.account_id > after, IS_LIVE)
        found = await transaction.all(
            sa.union(reserving, ordering).order_by("account_id").limit(limit)
        )
        return [row.account_id for row in found]

    async def list_positions_of(
        self, transaction: Transaction, account_ids: Sequence[str]
    ) -> dict[str, list[Position]]:
        """Return the open positions of some accounts and the instruments' own, by account."""
        found: dict[str, list[Position]] = {}
        for row in await transaction.all(_POSITIONS_OF, {"of_account_ids": account_ids}):
            found.setdefault(row.account_id, []).append(rows.position_of(row._mapping))
        return found

    async def list_live_orders_in(
        self, transaction: Transaction, account_ids: Sequence[str], symbols: Sequence[str]
    ) -> dict[str, list[Order]]:
        """Return the live orders of some accounts in some instruments, oldest first, by account."""
        found: dict[str, list[Order]] = {}
        parameters = {"of_account_ids": account_ids, "of_symbols": symbols}
        for row in await transaction.all(_LIVE_ORDERS_OF, parameters):
            found.setdefault(row.account_id, []).append(rows.order_of(row._mapping))
        return found

    async def list_live_orders_of(
        self, transaction: Transaction, account_ids: Sequence[str]
    ) -> dict[str, list[Order]]:
        """Return the live orders of some accounts, oldest first, by account."""
        found: dict[str, list[Order]] = {}
        stored = await transaction.all(
            sa.select(orders)
            .where(orders.c.account_id.in_(account_ids), IS_LIVE)
            .order_by(orders.c.order_id)
        )
        for order in _orders_of(stored):
            found.setdefault(order.account_id, []).append(order)
        return found

    async def add_events(self, transaction: Transaction, events: Sequence[AccountEvent]) -> None:
        """Append events of a locked account."""
        for event in events:
            transaction.later(statements.insert(account_events), rows.event_values(event))

    async def list_notices(
        self, transaction: Transaction, account_id: str, *, limit: int
    ) -> list[AccountEvent]:
        """Return an account's newest notices, newest first."""
        return await self._list_newest(transaction, account_id, "notice", limit=limit)

    async def list_cash_changes(
        self, transaction: Transaction, account_id: str, *, limit: int
    ) -> list[AccountEvent]:
        """Return an account's newest movements of cash, newest first."""
        return await self._list_newest(transaction, account_id, "cash", limit=limit)

    async def _list_newest(
        self, transaction: Transaction, account_id: str, kind: str, *, limit: int
    ) -> list[AccountEvent]:
        found = await transaction.all(
            sa.select(account_events)
            .where(account_events.c.account_id == account_id, account_events.c.kind == kind)
            .order_by(account_events.c.sequence.desc())
            .limit(limit)
        )
        return [rows.event_of(row._mapping) for row in found]

    async def list_accounts_with_old_events(
        self, transaction: Transaction, *, before: datetime, limit: int
    ) -> list[tuple[str, int]]:
        """Return (account id, number) of accounts with events from before an instant.

        The number is that of the last event to go: numbers go without a gap, whatever a clock
        that jumped wrote beside them.
        """
        old = account_events.c.occurred_at_us < to_us(before)
        found = await transaction.all(
            sa.select(
                account_events.c.account_id,
                sa.func.max(account_events.c.sequence).label("upto"),
            )
            .where(old)
            .group_by(account_events.c.account_id)
            .order_by(account_events.c.account_id)
            .limit(limit)
        )
        return [(row.account_id, row.upto) for row in found]

    async def delete_events(self, transaction: Transaction, account_id: str, *, upto: int) -> int:
        """Delete an account's events up to a number; return how many."""
        result = await transaction.execute(
            account_events.delete().where(
                account_events.c.account_id == account_id, account_events.c.sequence <= upto
            )
        )
        return result.rowcount

    async def list_margined(
        self, transaction: Transaction, *, after: str, limit: int
    ) -> list[Margined]:
        """Return accounts that hold something, by id, with what their worth depends on."""
        held = (
            sa.select(positions.c.account_id)
            .where(positions.c.signed_quantity != 0, positions.c.account_id > after)
            .distinct()
            .order_by(positions.c.account_id)
            .limit(limit)
            .subquery()
        )
        found = await transaction.all(
            sa.select(
                accounts.c.account_id,
                accounts.c.margin_called_at_us,
                ledger.accounts.c.balance_minor,
            )
            .join_from(held, accounts, accounts.c.account_id == held.c.account_id)
            .join(
                ledger.accounts,
                ledger.accounts.c.account_id == accounts.c.account_id + ":" + accounts.c.currency,
            )
            .order_by(accounts.c.account_id)
        )
        theirs: dict[str, list[Position]] = {row.account_id: [] for row in found}
        for row in await transaction.all(
            sa.select(positions).where(
                positions.c.account_id.in_(sa.select(held.c.account_id)),
                positions.c.signed_quantity != 0,
            )
        ):
            theirs[row.account_id].append(rows.position_of(row._mapping))
        return [
            Margined(
                row.account_id,
                row.balance_minor,
                row.margin_called_at_us is not None,
                tuple(theirs[row.account_id]),
            )
            for row in found
        ]

    async def list_to_finance(
        self, transaction: Transaction, *, today: date, after: str, limit: int
    ) -> list[str]:
        """Return accounts not charged for today's beginning that may have held something then."""
        begins = midnight_of(today)
        found = await transaction.all(
            sa.select(accounts.c.account_id)
            .where(
                accounts.c.account_id > after,
                accounts.c.financed_day < (begins - _EPOCH).days,
                sa.exists().where(
                    positions.c.account_id == accounts.c.account_id,
                    sa.or_(
                        positions.c.signed_quantity != 0,
                        positions.c.updated_at_us >= to_us(begins),
                    ),
                ),
            )
            .order_by(accounts.c.account_id)
            .limit(limit)
        )
        return [row.account_id for row in found]

    async def list_executions_since(
        self, transaction: Transaction, account_id: str, *, since: datetime
    ) -> list[Execution]:
        """Return an account's executions from an instant on, oldest first."""
        found = await transaction.all(
            sa.select(executions)
            .where(
                executions.c.account_id == account_id,
                executions.c.executed_at_us >= to_us(since),
            )
            .order_by(executions.c.sequence)
        )
        return [rows.execution_of(row._mapping) for row in found]

    async def list_events(
        self, transaction: Transaction, account_id: str, *, after: int, limit: int
    ) -> list[AccountEvent]:
        """Return an account's events behind a sequence, oldest first."""
        found = await transaction.all(
            sa.select(account_events)
            .where(account_events.c.account_id == account_id, account_events.c.sequence > after)
            .order_by(account_events.c.sequence)
            .limit(limit)
        )
        return [rows.event_of(row._mapping) for row in found]


def _orders_of(found: Sequence[sa.Row[Any]]) -> list[Order]:
    # A dictionary of its own is read faster than a row by name, which an order is thirty times.
    names = found[0]._fields if found else ()
    return [rows.order_of(dict(zip(names, row, strict=True))) for row in found]
