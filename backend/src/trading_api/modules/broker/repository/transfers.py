"""Queries of transfers, and the proofs over them.

* T1 a transfer agrees with the ledger: its hold and its entry are what its state says
* T2 every entry on a clearing account belongs to a transfer
"""

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from trading_api.kernel.clock import from_us, to_us
from trading_api.kernel.values import Currency, Money
from trading_api.ledger.checks import Violation
from trading_api.ledger.domain import AccountType, HoldState
from trading_api.modules.broker.domain.transfer import Transfer, TransferState
from trading_api.modules.broker.tables import ledger, transfers
from trading_api.runtime.database import Transaction

_PAGE = 500
"""Rows that a proof holds in memory at once."""


async def add_transfer(transaction: Transaction, transfer: Transfer) -> bool:
    """Write a transfer; False where one of that id exists, committed by now."""
    insert = postgresql.insert if transaction.dialect == "postgresql" else sqlite.insert
    result = await transaction.execute(
        insert(transfers).values(_values(transfer)).on_conflict_do_nothing()
    )
    return result.rowcount == 1


async def find_transfer(transaction: Transaction, transfer_id: str) -> Transfer | None:
    """Return a transfer, or None; its account's lock keeps it as it is."""
    row = await transaction.first(
        sa.select(transfers).where(transfers.c.transfer_id == transfer_id)
    )
    return None if row is None else _transfer_of(row._mapping)


async def end_transfer(transaction: Transaction, transfer: Transfer) -> None:
    """Store how a held transfer ended."""
    assert transfer.closed_at is not None, "it ended"
    result = await transaction.execute(
        transfers.update()
        .where(
            transfers.c.transfer_id == transfer.transfer_id,
            transfers.c.state == TransferState.HELD.value,
        )
        .values(state=transfer.state.value, closed_at_us=to_us(transfer.closed_at))
    )
    assert result.rowcount == 1, f"{transfer.transfer_id} ended under its account's lock"


async def find_states(transaction: Transaction, ids: Collection[str]) -> dict[str, str]:
    """Return the states of transfers by id; unknown ones are absent."""
    if not ids:
        return {}
    found = await transaction.all(
        sa.select(transfers.c.transfer_id, transfers.c.state).where(
            transfers.c.transfer_id.in_(sorted(ids))
        )
    )
    return {row.transfer_id: row.state for row in found}


async def list_clearing(transaction: Transaction) -> list[str]:
    """Return the clearing accounts of the ledger."""
    found = await transaction.all(
        sa.select(ledger.accounts.c.account_id)
        .where(ledger.accounts.c.type == AccountType.CLEARING.value)
        .order_by(ledger.accounts.c.account_id)
    )
    return [row.account_id for row in found]


async def check_transfers(transaction: Transaction) -> list[Violation]:
    """Compare every transfer with the ledger's entries and holds, a page at a time."""
    violations: list[Violation] = []
    last = ""
    while page := await transaction.all(
        sa.select(transfers)
        .where(transfers.c.transfer_id > last)
        .order_by(transfers.c.transfer_id)
        .limit(_PAGE)
    ):
        violations += await _check_page(transaction, [_transfer_of(row._mapping) for row in page])
        last = page[-1].transfer_id
    return violations + await _check_strays(transaction)


async def _check_page(transaction: Transaction, page: Sequence[Transfer]) -> list[Violation]:
    posted: dict[str, list[tuple[str, int, str]]] = {}
    ids = [each.transfer_id for each in page]
    for row in await transaction.all(_clearing_lines().where(ledger.entries.c.reference.in_(ids))):
        line = (row.side, row.amount_minor, row.currency)
        posted.setdefault(row.reference, []).append(line)
    holds = {
        row.hold_id: (row.state, row.amount_minor)
        for row in await transaction.all(
            sa.select(
                ledger.holds.c.hold_id, ledger.holds.c.state, ledger.holds.c.amount_minor
            ).where(ledger.holds.c.hold_id.in_([each.hold_id for each in page]))
        )
    }
    found = []
    for each in page:
        lines = posted.get(each.transfer_id, [])
        if lines != _lines_of(each):
            found.append(Violation("T1", each.transfer_id, f"{each.state}, but posted {lines}"))
        held = holds.get(each.hold_id)
        if each.direction == "out" and held not in _holds_of(each):
            found.append(Violation("T1", each.transfer_id, f"{each.state}, its hold: {held}"))
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
                "T2",
                row.reference or row.entry_id,
                f"{row.side} {row.amount_minor} {row.currency} on clearing without a transfer",
            )
            for row in page
            if row.transfer_id is None
        ]
        last = page[-1].entry_id
    return found


def _clearing_lines() -> sa.Select[Any]:
    entries, postings, accounts = ledger.entries, ledger.postings, ledger.accounts
    return (
        sa.select(
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


def _lines_of(transfer: Transfer) -> list[tuple[str, int, str]]:
    sides = {TransferState.CREDITED: "DEBIT", TransferState.CAPTURED: "CREDIT"}
    side = sides.get(transfer.state)
    amount = transfer.amount
    return [] if side is None else [(side, amount.minor, amount.currency.code)]


def _holds_of(transfer: Transfer) -> tuple[tuple[str, int] | None, ...]:
    minor = transfer.amount.minor
    match transfer.state:
        case TransferState.HELD:
            return ((HoldState.PENDING.value, minor),)
        case TransferState.CAPTURED:
            return ((HoldState.POSTED.value, minor),)
        case _:
            # None: voided before it ever arrived.
            return ((HoldState.VOIDED.value, minor), None)


def _values(transfer: Transfer) -> dict[str, Any]:
    return {
        "transfer_id": transfer.transfer_id,
        "account_id": transfer.account_id,
        "user_id": transfer.user_id,
        "book": transfer.book,
        "direction": transfer.direction,
        "currency": transfer.amount.currency.code,
        "scale": transfer.amount.currency.scale,
        "amount_minor": transfer.amount.minor,
        "state": transfer.state.value,
        "created_at_us": to_us(transfer.created_at),
        "closed_at_us": None if transfer.closed_at is None else to_us(transfer.closed_at),
    }


def _transfer_of(values: Any) -> Transfer:
    closed_at_us = values["closed_at_us"]
    return Transfer(
        transfer_id=values["transfer_id"],
        account_id=values["account_id"],
        user_id=values["user_id"],
        book=values["book"],
        direction=values["direction"],
        amount=Money(values["amount_minor"], Currency(values["currency"], values["scale"])),
        state=TransferState(values["state"]),
        created_at=from_us(values["created_at_us"]),
        closed_at=None if closed_at_us is None else from_us(closed_at_us),
    )
