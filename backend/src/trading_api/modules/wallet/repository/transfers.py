"""Queries of transfers, and the proofs over them.

* W3 a transfer agrees with the ledger: its hold and its entry are what its state says
* W4 every entry on a clearing account belongs to a transfer
"""

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from trading_api.kernel.clock import from_us, to_us
from trading_api.kernel.values import Currency, Money
from trading_api.ledger.checks import Violation
from trading_api.ledger.domain import AccountType, Book, HoldState
from trading_api.modules.wallet.domain.transfer import (
    Transfer,
    TransferDirection,
    TransferState,
)
from trading_api.modules.wallet.errors import TransferNotFoundError, TransferNotOpenError
from trading_api.modules.wallet.tables import ledger, transfers
from trading_api.runtime.database import Transaction

_PAGE = 500
"""Rows that a proof holds in memory at once."""


async def add_transfer(transaction: Transaction, transfer: Transfer) -> bool:
    """Write a new transfer; False where its client's id was used before."""
    make = postgresql.insert if transaction.dialect == "postgresql" else sqlite.insert
    result = await transaction.execute(
        make(transfers).values(_values(transfer)).on_conflict_do_nothing()
    )
    return result.rowcount == 1


async def save_transfer(transaction: Transaction, before: Transfer, after: Transfer) -> None:
    """Store a transfer's next state; the statement carries the guard.

    Raises:
        TransferNotOpenError: Somebody else took a step since it was read.
    """
    values = _values(after)
    result = await transaction.execute(
        update(transfers)
        .where(
            transfers.c.transfer_id == before.transfer_id,
            transfers.c.state == before.state.value,
        )
        .values(
            {
                name: values[name]
                for name in ("state", "failure_code", "failure", "entry_id", "closed_at_us")
            }
        )
    )
    if result.rowcount != 1:
        raise TransferNotOpenError("the transfer has moved on", transfer_id=before.transfer_id)


async def get_transfer(
    transaction: Transaction, transfer_id: str, *, user_id: str | None = None
) -> Transfer:
    """Return a transfer; with a user, only that user's.

    Raises:
        TransferNotFoundError: No such transfer.
    """
    row = await transaction.first(select(transfers).where(transfers.c.transfer_id == transfer_id))
    if row is None or user_id not in (None, row.user_id):
        raise TransferNotFoundError("there is no such transfer")
    return _transfer_of(row)


async def find_by_client_id(
    transaction: Transaction, user_id: str, client_transfer_id: str
) -> Transfer | None:
    """Return the transfer of a client's id, or None."""
    row = await transaction.first(
        select(transfers).where(
            transfers.c.user_id == user_id, transfers.c.client_transfer_id == client_transfer_id
        )
    )
    return None if row is None else _transfer_of(row)


async def find_transfers(
    transaction: Transaction, transfer_ids: Collection[str]
) -> dict[str, Transfer]:
    """Return transfers by id; unknown ones are absent."""
    if not transfer_ids:
        return {}
    rows = await transaction.all(
        select(transfers).where(transfers.c.transfer_id.in_(sorted(set(transfer_ids))))
    )
    return {row.transfer_id: _transfer_of(row) for row in rows}


async def list_transfers(
    transaction: Transaction, user_id: str, book: Book, *, limit: int, below: str | None
) -> list[Transfer]:
    """Return a user's transfers in a book, newest first, behind the id `below`."""
    statement = select(transfers).where(
        transfers.c.user_id == user_id, transfers.c.book == book.value
    )
    if below is not None:
        statement = statement.where(transfers.c.transfer_id < below)
    rows = await transaction.all(statement.order_by(transfers.c.transfer_id.desc()).limit(limit))
    return [_transfer_of(row) for row in rows]


async def list_open(
    transaction: Transaction, *, limit: int, before: datetime | None = None, after: str = ""
) -> list[Transfer]:
    """Return open transfers, oldest first, begun before an instant where one is given."""
    statement = select(transfers).where(
        transfers.c.closed_at_us.is_(None), transfers.c.transfer_id > after
    )
    if before is not None:
        statement = statement.where(transfers.c.created_at_us <= to_us(before))
    rows = await transaction.all(statement.order_by(transfers.c.transfer_id).limit(limit))
    return [_transfer_of(row) for row in rows]


async def sum_begun(
    transaction: Transaction, wallet_id: str, currency: Currency, *, since: datetime, but: str
) -> Money:
    """Return what transfers moved or may yet move, begun at or after an instant, both ways.

    Args:
        transaction: The caller's, holding the wallet's lock.
        wallet_id: Whose.
        currency: Only this.
        since: UTC.
        but: The transfer that doesn't count.
    """
    undone = (TransferState.FAILED.value, TransferState.EXPIRED.value)
    total = await transaction.scalar(
        select(func.coalesce(func.sum(transfers.c.amount_minor), 0)).where(
            transfers.c.wallet_id == wallet_id,
            transfers.c.created_at_us >= to_us(since),
            transfers.c.currency == currency.code,
            transfers.c.state.not_in(undone),
            transfers.c.transfer_id != but,
        )
    )
    return Money(int(total), currency)


async def list_clearing(transaction: Transaction) -> list[str]:
    """Return the clearing accounts of the ledger."""
    rows = await transaction.all(
        select(ledger.accounts.c.account_id)
        .where(ledger.accounts.c.type == AccountType.CLEARING.value)
        .order_by(ledger.accounts.c.account_id)
    )
    return [row.account_id for row in rows]


async def check_transfers(transaction: Transaction) -> list[Violation]:
    """Compare every transfer with the ledger's entries and holds, a page at a time."""
    violations: list[Violation] = []
    last = ""
    while page := await transaction.all(
        select(transfers)
        .where(transfers.c.transfer_id > last)
        .order_by(transfers.c.transfer_id)
        .limit(_PAGE)
    ):
        violations += await _check_page(transaction, [_transfer_of(row) for row in page])
        last = page[-1].transfer_id
    return violations + await _check_strays(transaction)


async def _check_page(transaction: Transaction, page: Sequence[Transfer]) -> list[Violation]:
    posted: dict[str, list[tuple[str, int, str]]] = {}
    for row in await transaction.all(
        _clearing_lines().where(ledger.entries.c.reference.in_([t.transfer_id for t in page]))
    ):
        line = (row.side, row.amount_minor, row.currency)
        posted.setdefault(row.reference, []).append(line)
    holds = {
        row.hold_id: (row.state, row.amount_minor)
        for row in await transaction.all(
            select(ledger.holds.c.hold_id, ledger.holds.c.state, ledger.holds.c.amount_minor).where(
                ledger.holds.c.hold_id.in_([each.hold_id for each in page])
            )
        )
    }
    found = []
    for each in page:
        lines = posted.get(each.transfer_id, [])
        if lines != _expected_lines(each):
            found.append(Violation("W3", each.transfer_id, f"{each.state}, but posted {lines}"))
        held = holds.get(each.hold_id)
        if held != _expected_hold(each):
            found.append(Violation("W3", each.transfer_id, f"{each.state}, its hold: {held}"))
    return found


async def _check_strays(transaction: Transaction) -> list[Violation]:
    entry_id = ledger.entries.c.entry_id
    lines = (
        _clearing_lines()
        .add_columns(transfers.c.transfer_id)
        .outerjoin(transfers, ledger.entries.c.reference == transfers.c.transfer_id)
        .order_by(entry_id)
        .limit(_PAGE)
    )
    found: list[Violation] = []
    last = ""
    while page := await transaction.all(lines.where(entry_id > last)):
        found += [
            Violation(
                "W4",
                row.reference or row.entry_id,
                f"{row.side} {row.amount_minor} {row.currency} on clearing without a transfer",
            )
            for row in page
            if row.transfer_id is None
        ]
        last = page[-1].entry_id
    return found


def _clearing_lines() -> Select[Any]:
    entries, postings, accounts = ledger.entries, ledger.postings, ledger.accounts
    return (
        select(
            entries.c.entry_id,
            entries.c.reference,
            postings.c.side,
            postings.c.amount_minor,
            postings.c.currency,
        )
        .join_from(postings, entries, postings.c.entry_id == entries.c.entry_id)
        .join(accounts, postings.c.account_id == accounts.c.account_id)
        .where(accounts.c.type == AccountType.CLEARING.value)
    )


def _expected_lines(transfer: Transfer) -> list[tuple[str, int, str]]:
    if transfer.state not in (TransferState.COMPLETED, TransferState.CREDITED):
        return []
    is_out = transfer.direction is TransferDirection.TO_ACCOUNT
    amount = transfer.amount
    return [("CREDIT" if is_out else "DEBIT", amount.minor, amount.currency.code)]


def _expected_hold(transfer: Transfer) -> tuple[str, int] | None:
    if transfer.direction is TransferDirection.TO_WALLET:
        return None
    states = {
        TransferState.COMPLETED: HoldState.POSTED,
        TransferState.FAILED: HoldState.VOIDED,
        TransferState.EXPIRED: HoldState.EXPIRED,
    }
    return states.get(transfer.state, HoldState.PENDING).value, transfer.amount.minor


def _values(transfer: Transfer) -> dict[str, Any]:
    failure = transfer.failure
    return {
        "transfer_id": transfer.transfer_id,
        "wallet_id": transfer.wallet_id,
        "user_id": transfer.user_id,
        "book": transfer.book.value,
        "client_transfer_id": transfer.client_transfer_id,
        "account_id": transfer.account_id,
        "direction": transfer.direction.value,
        "currency": transfer.amount.currency.code,
        "scale": transfer.amount.currency.scale,
        "amount_minor": transfer.amount.minor,
        "state": transfer.state.value,
        "description": transfer.description,
        "failure_code": transfer.failure_code,
        "failure": None if failure is None else json.dumps(dict(failure), sort_keys=True),
        "entry_id": transfer.entry_id,
        "created_at_us": to_us(transfer.created_at),
        "expires_at_us": to_us(transfer.expires_at),
        "closed_at_us": None if transfer.closed_at is None else to_us(transfer.closed_at),
    }


def _transfer_of(row: Row[Any]) -> Transfer:
    return Transfer(
        transfer_id=row.transfer_id,
        wallet_id=row.wallet_id,
        user_id=row.user_id,
        book=Book(row.book),
        account_id=row.account_id,
        direction=TransferDirection(row.direction),
        amount=Money(row.amount_minor, Currency(row.currency, row.scale)),
        state=TransferState(row.state),
        description=row.description,
        created_at=from_us(row.created_at_us),
        expires_at=from_us(row.expires_at_us),
        client_transfer_id=row.client_transfer_id,
        failure_code=row.failure_code,
        failure=None if row.failure is None else json.loads(row.failure),
        entry_id=row.entry_id,
        closed_at=None if row.closed_at_us is None else from_us(row.closed_at_us),
    )
