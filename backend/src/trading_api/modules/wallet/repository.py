"""Queries of the wallet: rows to domain values and back; no rules, no commit."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from trading_api.kernel.clock import from_us, to_us
from trading_api.kernel.values import Currency, Money
from trading_api.ledger.checks import Violation
from trading_api.ledger.domain import Balance, Book
from trading_api.ledger.engine import Ledger, StatementLine
from trading_api.modules.wallet.domain import (
    Funding,
    FundingKind,
    FundingState,
    Wallet,
    WalletEventKind,
)
from trading_api.modules.wallet.errors import FundingNotFoundError
from trading_api.modules.wallet.tables import fundings, ledger, wallet_events, wallets
from trading_api.runtime.database import Transaction


@dataclass(frozen=True, slots=True)
class WalletEvent:
    """One event of a wallet's stream: an entry's line, or an account's balance after a change."""

    sequence: int
    kind: WalletEventKind
    balance: Balance
    line: StatementLine | None
    recorded_at: datetime


class WalletRepository:
    """Reads and writes wallets, fundings and event streams; carries the ledger on its tables."""

    def __init__(self) -> None:
        self.ledger = Ledger(ledger)
        self.ledger_tables = ledger

    async def insert_wallet(self, transaction: Transaction, wallet: Wallet) -> bool:
        """Insert a wallet; False where its user has one in that book."""
        make = postgresql.insert if transaction.dialect == "postgresql" else sqlite.insert
        result = await transaction.execute(
            make(wallets).on_conflict_do_nothing(),
            {
                "wallet_id": wallet.wallet_id,
                "user_id": wallet.user_id,
                "book": wallet.book.value,
                "epoch": wallet.epoch,
                "last_event_sequence": wallet.last_event_sequence,
                "created_at_us": to_us(wallet.created_at),
            },
        )
        return result.rowcount == 1

    async def find_wallet(
        self, transaction: Transaction, *, user_id: str, book: Book, lock: bool = False
    ) -> Wallet | None:
        """Return a user's wallet, or None; with `lock`, nobody else changes it until the end."""
        statement = select(wallets).where(
            wallets.c.user_id == user_id, wallets.c.book == book.value
        )
        row = await transaction.first(statement.with_for_update() if lock else statement)
        return None if row is None else _wallet_of(row)

    async def add_events(
        self,
        transaction: Transaction,
        wallet: Wallet,
        changes: Sequence[tuple[str, Balance, int | None]],
        *,
        recorded_at: datetime,
    ) -> int:
        """Append to a locked wallet's stream; return the newest sequence.

        Args:
            transaction: The caller's, holding the wallet's lock.
            wallet: The wallet as it was read under the lock.
            changes: (account id, balance after, sequence of the posting or None), oldest first; one
                with a posting becomes two events, the entry and the balance.
            recorded_at: UTC.
        """
        rows: list[dict[str, Any]] = []
        for account_id, balance, posting_sequence in changes:
            kinds = [WalletEventKind.ENTRY] if posting_sequence is not None else []
            for kind in (*kinds, WalletEventKind.BALANCE):
                is_entry = kind is WalletEventKind.ENTRY
                rows.append(
                    {
                        "wallet_id": wallet.wallet_id,
                        "sequence": wallet.last_event_sequence + len(rows) + 1,
                        "kind": kind.value,
                        "account_id": account_id,
                        "currency": balance.total.currency.code,
                        "scale": balance.total.currency.scale,
                        "posting_sequence": posting_sequence if is_entry else None,
                        "balance_minor": balance.total.minor,
                        "held_minor": balance.held.minor,
                        "recorded_at_us": to_us(recorded_at),
                    }
                )
        last = wallet.last_event_sequence + len(rows)
        await transaction.execute(insert(wallet_events), rows)
        await transaction.execute(
            update(wallets)
            .where(wallets.c.wallet_id == wallet.wallet_id)
            .values(last_event_sequence=last)
        )
        return last

    async def list_events(
        self, transaction: Transaction, wallet_id: str, *, after: int, limit: int
    ) -> list[WalletEvent]:
        """Return a wallet's events behind a sequence, oldest first."""
        rows = await transaction.all(
            select(wallet_events)
            .where(wallet_events.c.wallet_id == wallet_id, wallet_events.c.sequence > after)
            .order_by(wallet_events.c.sequence)
            .limit(limit)
        )
        lines = await self.ledger.get_lines(
            transaction,
            [
                (row.account_id, row.posting_sequence)
                for row in rows
                if row.posting_sequence is not None
            ],
        )
        return [_event_of(row, lines.get((row.account_id, row.posting_sequence))) for row in rows]

    async def insert_funding(self, transaction: Transaction, funding: Funding) -> None:
        """Insert a funding that waits."""
        await transaction.execute(
            insert(fundings),
            {
                "funding_id": funding.funding_id,
                "wallet_id": funding.wallet_id,
                "user_id": funding.user_id,
                "kind": funding.kind.value,
                "currency": funding.amount.currency.code,
                "scale": funding.amount.currency.scale,
                "amount_minor": funding.amount.minor,
                "rail": funding.rail,
                "state": funding.state.value,
                "description": funding.description,
                "hold_id": funding.hold_id,
                "entry_id": None,
                "created_at_us": to_us(funding.created_at),
                "closed_at_us": None,
                "closed_by": None,
            },
        )

    async def get_funding(self, transaction: Transaction, funding_id: str) -> Funding:
        """Return a funding.

        Raises:
            FundingNotFoundError: There is none of that id.
        """
        row = await transaction.first(select(fundings).where(fundings.c.funding_id == funding_id))
        if row is None:
            raise FundingNotFoundError("no deposit or withdrawal has this id")
        return _funding_of(row)

    async def list_pending_fundings(self, transaction: Transaction, *, limit: int) -> list[Funding]:
        """Return fundings that wait, oldest first."""
        rows = await transaction.all(
            select(fundings)
            .where(fundings.c.state == FundingState.PENDING.value)
            .order_by(fundings.c.created_at_us, fundings.c.funding_id)
            .limit(limit)
        )
        return [_funding_of(row) for row in rows]

    async def close_funding(self, transaction: Transaction, funding: Funding) -> None:
        """Save how a funding ended; its wallet is locked."""
        await transaction.execute(
            update(fundings)
            .where(
                fundings.c.funding_id == funding.funding_id,
                fundings.c.state == FundingState.PENDING.value,
            )
            .values(
                state=funding.state.value,
                entry_id=funding.entry_id,
                closed_at_us=None if funding.closed_at is None else to_us(funding.closed_at),
                closed_by=funding.closed_by,
            )
        )

    async def find_stream_violations(self, transaction: Transaction) -> list[Violation]:
        """Prove every wallet's event stream: gapless to its newest, each posting told once."""
        violations: list[Violation] = []
        counted = (
            select(
                wallets.c.wallet_id,
                wallets.c.last_event_sequence,
                func.count(wallet_events.c.sequence).label("event_count"),
                func.coalesce(func.max(wallet_events.c.sequence), 0).label("newest"),
                func.count(wallet_events.c.posting_sequence).label("entry_count"),
            )
            .outerjoin(wallet_events, wallets.c.wallet_id == wallet_events.c.wallet_id)
            .group_by(wallets.c.wallet_id, wallets.c.last_event_sequence)
        )
        posted = {
            row.owner_id: int(row.posting_count)
            for row in await transaction.all(
                select(
                    ledger.accounts.c.owner_id,
                    func.sum(ledger.accounts.c.last_sequence).label("posting_count"),
                )
                .where(ledger.accounts.c.owner_id.is_not(None))
                .group_by(ledger.accounts.c.owner_id)
            )
        }
        for row in await transaction.all(counted):
            if not row.last_event_sequence == row.event_count == row.newest:
                violations.append(
                    Violation(
                        "W1",
                        row.wallet_id,
                        f"{row.event_count} events, newest {row.newest}, "
                        f"wallet says {row.last_event_sequence}",
                    )
                )
            if posted.get(row.wallet_id, 0) != row.entry_count:
                violations.append(
                    Violation(
                        "W2",
                        row.wallet_id,
                        f"{posted.get(row.wallet_id, 0)} postings, {row.entry_count} told",
                    )
                )
        return violations


def _wallet_of(row: Row[Any]) -> Wallet:
    return Wallet(
        wallet_id=row.wallet_id,
        user_id=row.user_id,
        book=Book(row.book),
        epoch=row.epoch,
        last_event_sequence=row.last_event_sequence,
        created_at=from_us(row.created_at_us),
    )


def _event_of(row: Row[Any], line: StatementLine | None) -> WalletEvent:
    currency = Currency(row.currency, row.scale)
    return WalletEvent(
        sequence=row.sequence,
        kind=WalletEventKind(row.kind),
        balance=Balance(
            total=Money(row.balance_minor, currency),
            held=Money(row.held_minor, currency),
            available=Money(row.balance_minor - row.held_minor, currency),
        ),
        line=line,
        recorded_at=from_us(row.recorded_at_us),
    )


def _funding_of(row: Row[Any]) -> Funding:
    return Funding(
        funding_id=row.funding_id,
        wallet_id=row.wallet_id,
        user_id=row.user_id,
        kind=FundingKind(row.kind),
        amount=Money(row.amount_minor, Currency(row.currency, row.scale)),
        rail=row.rail,
        state=FundingState(row.state),
        description=row.description,
        created_at=from_us(row.created_at_us),
        hold_id=row.hold_id,
        entry_id=row.entry_id,
        closed_at=None if row.closed_at_us is None else from_us(row.closed_at_us),
        closed_by=row.closed_by,
    )
