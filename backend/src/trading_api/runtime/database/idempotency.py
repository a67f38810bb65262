"""Unsafe requests that may be repeated: the first answer is kept in the transaction of its effect.

A key belongs to (user, operation). The row is written first, so rivals wait for the first to
commit and then replay it; a request that is refused rolls back and leaves no row, so its key is
free again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from trading_api.kernel.clock import Clock, to_us
from trading_api.kernel.errors import (
    FieldError,
    IdempotencyKeyReusedError,
    RequestInProgressError,
    TradingError,
)
from trading_api.runtime.database import statements
from trading_api.runtime.database.schema import Id, Instant
from trading_api.runtime.database.transactions import Dialect, Transaction

RETENTION = timedelta(days=7)

_LOCK_NOT_AVAILABLE = "55P03"
"""PostgreSQL's word for a row that its first writer still holds after ``lock_timeout``."""


def table(metadata: sa.MetaData) -> sa.Table:
    """Declare the kept answers in a module's own metadata."""
    return sa.Table(
        "idempotency",
        metadata,
        sa.Column("user_id", Id, primary_key=True),
        sa.Column("operation", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("created_at_us", Instant, nullable=False),
    )


@dataclass(frozen=True, slots=True)
class Claim:
    """A request that may be repeated.

    Attributes:
        operation: method and route, or the use case's name.
        key: None switches the whole mechanism off.
        body: the request in canonical, JSON-ready form; numbers as text.
    """

    user_id: str
    operation: str
    key: str | None
    body: Mapping[str, Any]

    @property
    def place(self) -> tuple[str, str, str] | None:
        """Return what is claimed; None without a key."""
        return None if self.key is None else (self.user_id, self.operation, self.key)


class Idempotency:
    """Keeps the first result of each keyed request and hands it to every repeat."""

    def __init__(self, table: sa.Table, *, clock: Clock) -> None:
        self._table = table
        self._clock = clock

    async def begin(
        self,
        transaction: Transaction,
        *,
        user_id: str,
        operation: str,
        key: str | None,
        body: Mapping[str, Any],
    ) -> dict[str, Any] | None:
        """Claim the key as the transaction's first statement.

        Args:
            operation: method and route, or the use case's name.
            key: None switches the whole mechanism off.
            body: the request in canonical, JSON-ready form; numbers as text.

        Returns:
            None to go on, or the frozen result of the first request.

        Raises:
            IdempotencyKeyReusedError: the key was used with another body; names the fields.
            RequestInProgressError: the first request didn't finish within two seconds.
        """
        if key is None:
            return None
        canonical = _canonical(body)
        try:
            if await self._insert(transaction, user_id, operation, key, canonical):
                return None
        except DBAPIError as error:
            # The database's errors get their platform names only where the transaction ends.
            if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
                raise _in_progress() from error
            raise
        row = await self._read(transaction, user_id, operation, key)
        if row is None or row.result is None:
            raise _in_progress()
        return _result_of(row, canonical)

    async def begin_many(
        self, transaction: Transaction, claims: Sequence[Claim]
    ) -> list[dict[str, Any] | TradingError | None]:
        """Claim keys, no two the same, as the transaction's first statement.

        Returns:
            For each what ``begin`` would return or raise.

        Raises:
            RequestInProgressError: one of the first requests didn't finish within two seconds.
        """
        keyed = {each.place: each for each in claims if each.place is not None}
        taken = keyed.keys() - await self._insert_many(transaction, keyed)
        rows = await self._read_many(transaction, sorted(taken))
        return [self._found(each, rows) if each.place in taken else None for each in claims]

    async def find_many(
        self, transaction: Transaction, claims: Sequence[Claim]
    ) -> list[dict[str, Any] | TradingError | None]:
        """Look for first requests; claims nothing, so ``keep_later`` may meet a rival.

        Returns:
            For each what ``begin`` would return or raise.
        """
        places = {each.place for each in claims if each.place is not None}
        rows = await self._read_many(transaction, sorted(places))
        return [self._found(each, rows) if each.place in rows else None for each in claims]

    def keep_later(
        self, transaction: Transaction, claim: Claim, *, result: Mapping[str, Any]
    ) -> None:
        """Claim a key that ``find_many`` found free and freeze its result, at the end.

        Where a rival took the key meanwhile the database refuses the whole transaction. No effect
        without a key.
        """
        if claim.place is None:
            return
        user_id, operation, key = claim.place
        transaction.later(
            statements.insert(self._table),
            {
                "user_id": user_id,
                "operation": operation,
                "key": key,
                "body": _canonical(claim.body),
                "result": json.dumps(result),
                "created_at_us": to_us(self._clock.now()),
            },
        )

    async def release(self, transaction: Transaction, claims: Sequence[Claim]) -> None:
        """Let go what ``begin_many`` claimed for requests that were refused: nothing happened."""
        places = [each.place for each in claims if each.place is not None]
        if places:
            name = statements.name_of(self._table, transaction.dialect)
            await transaction.execute_raw(
                f"DELETE FROM {name} WHERE {_is_at(transaction.dialect)}",  # noqa: S608
                (json.dumps(places),),
            )

    async def find(
        self,
        transaction: Transaction,
        *,
        user_id: str,
        operation: str,
        key: str | None,
        body: Mapping[str, Any],
    ) -> dict[str, Any] | None:
        """Look for a first request's result before anybody else is asked; claims nothing.

        A snapshot is enough. Whoever finds none still has to `begin`.

        Returns:
            The frozen result; None without a key, or where none was frozen yet.

        Raises:
            IdempotencyKeyReusedError: the key was used with another body; names the fields.
        """
        if key is None:
            return None
        row = await self._read(transaction, user_id, operation, key)
        if row is None or row.result is None:
            return None
        return _result_of(row, _canonical(body))

    async def finish(
        self,
        transaction: Transaction,
        *,
        user_id: str,
        operation: str,
        key: str | None,
        result: Mapping[str, Any],
    ) -> None:
        """Freeze the result in the same transaction; no effect without a key."""
        if key is None:
            return
        row = {"user_id": user_id, "operation": operation, "key": key}
        transaction.later(
            statements.update(self._table, ("user_id", "operation", "key"), ("result",)),
            statements.keyed(row, {"result": json.dumps(result)}),
        )

    async def remove_older_than(self, transaction: Transaction, *, instant: datetime) -> int:
        """Remove answers first given before ``instant``; return how many."""
        result = await transaction.execute(
            self._table.delete().where(self._table.c.created_at_us < to_us(instant))
        )
        return result.rowcount

    def _found(
        self, claim: Claim, rows: Mapping[tuple[str, str, str] | None, sa.Row[Any]]
    ) -> dict[str, Any] | TradingError:
        row = rows.get(claim.place)
        if row is None or row.result is None:
            return _in_progress()
        try:
            return _result_of(row, _canonical(claim.body))
        except IdempotencyKeyReusedError as error:
            return error

    async def _insert_many(
        self, transaction: Transaction, keyed: Mapping[tuple[str, str, str], Claim]
    ) -> set[tuple[str, str, str]]:
        if not keyed:
            return set()
        now_us = to_us(self._clock.now())
        # In one order for all, so that two who claim the same keys never wait for one another.
        rows = [(*place, _canonical(keyed[place].body), now_us) for place in sorted(keyed)]
        types = ("text", "text", "text", "text", "bigint")
        try:
            found = await transaction.execute_raw(
                f"INSERT INTO {statements.name_of(self._table, transaction.dialect)}"
                " (user_id, operation, key, body, created_at_us)"
                f" {statements.rows_of(types, transaction.dialect)}"
                " ON CONFLICT DO NOTHING RETURNING user_id, operation, key",
                (json.dumps(rows, ensure_ascii=False),),
            )
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
                raise _in_progress() from error
            raise
        return {(row.user_id, row.operation, row.key) for row in found}

    async def _read_many(
        self, transaction: Transaction, places: Sequence[tuple[str, str, str]]
    ) -> dict[tuple[str, str, str] | None, sa.Row[Any]]:
        if not places:
            return {}
        name = statements.name_of(self._table, transaction.dialect)
        rows = await transaction.execute_raw(
            f"SELECT user_id, operation, key, body, result FROM {name}"  # noqa: S608
            f" WHERE {_is_at(transaction.dialect)}",
            (json.dumps(places, ensure_ascii=False),),
        )
        return {(row.user_id, row.operation, row.key): row for row in rows}

    async def _read(
        self, transaction: Transaction, user_id: str, operation: str, key: str
    ) -> sa.Row[Any] | None:
        return await transaction.first(
            sa.select(self._table.c.body, self._table.c.result).where(
                self._table.c.user_id == user_id,
                self._table.c.operation == operation,
                self._table.c.key == key,
            )
        )

    async def _insert(
        self, transaction: Transaction, user_id: str, operation: str, key: str, body: str
    ) -> bool:
        row = {
            "user_id": user_id,
            "operation": operation,
            "key": key,
            "body": body,
            "created_at_us": to_us(self._clock.now()),
        }
        result = await transaction.execute(
            statements.insert_or_skip(self._table, transaction.dialect, *row), row
        )
        return result.rowcount == 1


def _is_at(dialect: Dialect) -> str:
    places = statements.rows_of(("text", "text", "text"), dialect)
    return f"(user_id, operation, key) IN ({places})"


def _result_of(row: sa.Row[Any], canonical: str) -> dict[str, Any]:
    if row.body != canonical:
        raise _reused(json.loads(row.body), json.loads(canonical))
    result: dict[str, Any] = json.loads(row.result)
    return result


def _canonical(body: Mapping[str, Any]) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _in_progress() -> RequestInProgressError:
    return RequestInProgressError(
        "the first request with this Idempotency-Key is still running; ask again",
        retry_after_seconds=1,
    )


def _reused(first: Mapping[str, Any], now: Mapping[str, Any]) -> IdempotencyKeyReusedError:
    fields = sorted(name for name in {*first, *now} if first.get(name) != now.get(name))
    return IdempotencyKeyReusedError(
        "this Idempotency-Key was used for a request with another body",
        errors=[
            FieldError(name, "idempotency_mismatch", "differs from the first request")
            for name in fields
        ],
    )
