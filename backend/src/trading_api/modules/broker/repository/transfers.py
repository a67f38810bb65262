"""Queries of transfers, and the proofs over them.

* T1 a transfer agrees with the ledger: its hold and its entry are what its state says
* T2 every entry on a clearing account belongs to a transfer
"""

from collections.abc import Collection
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
    """Compare every transfer with the ledger's entries and holds."""
    violations: list[Violation] = []
    clearing = (
        sa.select(
            ledger.entries.c.reference,
            ledger.postings.c.side,
            ledger.postings.c.amount_minor,
            ledger.postings.c.currency,
        )
        .join_from(
            ledger.postings,
            ledger.entries,
            ledger.postings.c.entry_id == ledger.entries.c.entry_id,
        )
        .join(ledger.accounts, ledger.postings.c.account_id == ledger.accounts.c.account_id)
        .where(ledger.accounts.c.type == AccountType.CLEARING.value)
    )
    posted: dict[str, list[tuple[str, int, str]]] = {}
    for row in await transaction.all(clearing):
        posted.setdefault(row.reference or "", []).append(
            (row.side, row.amount_minor, row.currency)
        )
    holds = {
        row.hold_id: (row.state, row.amount_minor)
        for row in await transaction.all(
            sa.select(ledger.holds.c.hold_id, ledger.holds.c.state, ledger.holds.c.amount_minor)
        )
    }
    for row in await transaction.all(sa.select(transfers)):
        transfer = _transfer_of(row._mapping)
        lines = posted.pop(transfer.transfer_id, [])
        code, minor = transfer.amount.currency.code, transfer.amount.minor
        expected: list[tuple[str, int, str]] = []
        if transfer.state is TransferState.CREDITED:
            expected = [("DEBIT", minor, code)]
        elif transfer.state is TransferState.CAPTURED:
            expected = [("CREDIT", minor, code)]
        if lines != expected:
            violations.append(
                Violation("T1", transfer.transfer_id, f"{transfer.state}, but posted {lines}")
            )
        if transfer.direction == "out":
            held = holds.get(transfer.hold_id)
            if held not in _holds_of(transfer):
                violations.append(
                    Violation("T1", transfer.transfer_id, f"{transfer.state}, its hold: {held}")
                )
    violations += [
        Violation("T2", reference or "-", f"{lines} on clearing without a transfer")
        for reference, lines in posted.items()
    ]
    return violations


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
