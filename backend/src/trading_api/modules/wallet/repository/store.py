"""Queries of the wallet: rows to domain values and back; no rules, no commit."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from trading_api.kernel.clock import from_us, to_us
from trading_api.kernel.ids import IdSource
from trading_api.kernel.values import Currency, Money
from trading_api.ledger.checks import Violation
from trading_api.ledger.domain import Balance, Book, HoldState
from trading_api.ledger.engine import Ledger, StatementLine
from trading_api.modules.wallet.domain import (
    ActKind,
    Funding,
    FundingKind,
    FundingState,
    OperatorAct,
    Transfer,
    TransferState,
    Wallet,
    WalletEventKind,
)
from trading_api.modules.wallet.errors import FundingNotFoundError, WalletNotFoundError
from trading_api.modules.wallet.repository.transfers import find_transfers
from trading_api.modules.wallet.tables import (
    destinations,
    fundings,
    ledger,
    operator_acts,
    wallet_events,
    wallets,
)
from trading_api.runtime.database import Transaction, statements


@dataclass(frozen=True, slots=True)
class WalletEvent:
    """One event of a wallet's stream.

    Attributes:
        balance: The account's after the change.
        line: Of an entry: its line.
        transfer: Of a transfer: the transfer as it was right after the event.
    """

    sequence: int
    kind: WalletEventKind
    balance: Balance
    line: StatementLine | None
    recorded_at: datetime
    transfer: Transfer | None = None


@dataclass(frozen=True, slots=True)
class WalletChange:
    """What a commit did to one account of a wallet.

    Attributes:
        balance: After it.
        posting_sequence: Of a new posting; None where only the balance or a transfer changed.
        transfer: The transfer's new state; None where none changed.
    """

    account_id: str
    balance: Balance
    posting_sequence: int | None = None
    transfer: Transfer | None = None


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

    async def get_wallet(
        self, transaction: Transaction, wallet_id: str, *, lock: bool = False
    ) -> Wallet:
        """Return a wallet by its id.

        Raises:
            WalletNotFoundError: There is none of that id.
        """
        statement = select(wallets).where(wallets.c.wallet_id == wallet_id)
        row = await transaction.first(statement.with_for_update() if lock else statement)
        if row is None:
            raise WalletNotFoundError("no wallet has this id")
        return _wallet_of(row)

    async def save_frozen(
        self,
        transaction: Transaction,
        wallet_id: str,
        *,
        frozen_at: datetime | None,
        operator_id: str | None,
        reason: str | None,
    ) -> None:
        """Freeze a locked wallet, or thaw it where `frozen_at` is None."""
        await transaction.execute(
            update(wallets)
            .where(wallets.c.wallet_id == wallet_id)
            .values(
                frozen_at_us=None if frozen_at is None else to_us(frozen_at),
                frozen_by=operator_id,
                frozen_reason=reason,
            )
        )

    async def remember_destination(
        self, transaction: Transaction, wallet_id: str, destination: str, now: datetime
    ) -> datetime:
        """Return since when a wallet has withdrawn to a destination; now where it never had."""
        make = postgresql.insert if transaction.dialect == "postgresql" else sqlite.insert
        await transaction.execute(
            make(destinations)
            .values(wallet_id=wallet_id, destination=destination, first_asked_at_us=to_us(now))
            .on_conflict_do_nothing()
        )
        first_us = await transaction.scalar(
            select(destinations.c.first_asked_at_us).where(
                destinations.c.wallet_id == wallet_id, destinations.c.destination == destination
            )
        )
        return from_us(first_us)

    async def find_wallet(
        self, transaction: Transaction, *, user_id: str, book: Book, lock: bool = False
    ) -> Wallet | None:
        """Return a user's wallet, or None; with `lock`, nobody else changes it until the end."""
        statement = select(wallets).where(
            wallets.c.user_id == user_id, wallets.c.book == book.value
        )
        row = await transaction.first(statement.with_for_update() if lock else statement)
        return None if row is None else _wallet_of(row)

    async def lock_wallets(
        self, transaction: Transaction, user_ids: Collection[str], book: Book
    ) -> list[Wallet]:
        """Lock the wallets of users in the order of their ids; users without one are absent."""
        dialect = transaction.dialect
        for_update = " FOR UPDATE" if dialect == "postgresql" else ""
        rows = await transaction.execute_raw(
            "SELECT wallet_id, user_id, book, epoch, last_event_sequence, created_at_us,"  # noqa: S608
            f" frozen_at_us FROM {statements.name_of(wallets, dialect)}"
            f" WHERE user_id {statements.is_listed(dialect)} ORDER BY wallet_id{for_update}",
            (statements.list_of(sorted(user_ids), dialect),),
        )
        found = [_wallet_of(row) for row in rows]
        return [each for each in found if each.book is book]

    def queue_events(
        self,
        transaction: Transaction,
        wallet: Wallet,
        changes: Sequence[tuple[WalletChange, datetime]],
    ) -> int:
        """Append to the stream of a wallet as it was just locked; return the newest sequence.

        Args:
            transaction: The caller's, holding the wallet's lock; the rows wait for its end.
            wallet: As its lock showed it, with nothing appended since.
            changes: Oldest first, each with the instant it was recorded at, UTC.
        """
        last = wallet.last_event_sequence
        for change, recorded_at in changes:
            rows = _event_rows(wallet.wallet_id, last, change, recorded_at)
            for row in rows:
                transaction.later(statements.insert(wallet_events), row)
            last += len(rows)
        transaction.later(
            statements.update(wallets, ("wallet_id",), ("last_event_sequence",)),
            statements.keyed({"wallet_id": wallet.wallet_id}, {"last_event_sequence": last}),
        )
        return last

    async def add_events(
        self,
        transaction: Transaction,
        wallet: Wallet,
        changes: Sequence[WalletChange],
        *,
        recorded_at: datetime,
    ) -> int:
        """Append to a locked wallet's stream; return the newest sequence.

        Args:
            transaction: The caller's, holding the wallet's lock.
            wallet: The wallet; its sequence is read anew, for it may have moved on since.
            changes: Oldest first; one with a posting becomes two events, the entry and the
                balance; one of a transfer alone is one.
            recorded_at: UTC.
        """
        before = int(
            await transaction.scalar(
                select(wallets.c.last_event_sequence).where(wallets.c.wallet_id == wallet.wallet_id)
            )
        )
        rows: list[dict[str, Any]] = []
        for change in changes:
            rows += _event_rows(wallet.wallet_id, before + len(rows), change, recorded_at)
        last = before + len(rows)
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
        shown = await find_transfers(
            transaction, [row.transfer_id for row in rows if row.transfer_id is not None]
        )
        return [
            _event_of(
                row,
                lines.get((row.account_id, row.posting_sequence)),
                shown.get(row.transfer_id),
            )
            for row in rows
        ]

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
                "destination": funding.destination,
                "not_before_at_us": funding.not_before and to_us(funding.not_before),
                "confirm_by_at_us": funding.confirm_by and to_us(funding.confirm_by),
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

    async def list_due_fundings(
        self, transaction: Transaction, *, rail: str, now: datetime, limit: int
    ) -> list[Funding]:
        """Return what time alone ends: unconfirmed too long, or cooled off on a rail of its own.

        What cooled off waits while its wallet is frozen.
        """
        rows = await transaction.all(
            select(fundings)
            .join(wallets, fundings.c.wallet_id == wallets.c.wallet_id)
            .where(
                or_(
                    and_(
                        fundings.c.state == FundingState.UNCONFIRMED.value,
                        fundings.c.confirm_by_at_us <= to_us(now),
                    ),
                    and_(
                        fundings.c.state == FundingState.PENDING.value,
                        fundings.c.rail == rail,
                        fundings.c.not_before_at_us <= to_us(now),
                        wallets.c.frozen_at_us.is_(None),
                    ),
                )
            )
            .order_by(fundings.c.created_at_us, fundings.c.funding_id)
            .limit(limit)
        )
        return [_funding_of(row) for row in rows]

    async def sum_open_fundings(
        self, transaction: Transaction, wallet: Wallet, kind: FundingKind, currency: Currency
    ) -> Money:
        """Return what waits of a wallet's deposits or withdrawals in one currency."""
        total = await transaction.scalar(
            select(func.coalesce(func.sum(fundings.c.amount_minor), 0)).where(
                fundings.c.wallet_id == wallet.wallet_id,
                fundings.c.closed_at_us.is_(None),
                fundings.c.kind == kind.value,
                fundings.c.currency == currency.code,
            )
        )
        return Money(int(total), currency)

    async def save_funding_state(self, transaction: Transaction, funding: Funding) -> None:
        """Save a step of an open funding; its wallet is locked."""
        await transaction.execute(
            update(fundings)
            .where(fundings.c.funding_id == funding.funding_id, fundings.c.closed_at_us.is_(None))
            .values(state=funding.state.value)
        )

    async def is_of_funding(self, transaction: Transaction, hold_id: str) -> bool:
        """Tell whether a hold is a withdrawal's."""
        found = await transaction.scalar(
            select(fundings.c.funding_id).where(fundings.c.hold_id == hold_id)
        )
        return found is not None

    async def list_due_holds(
        self, transaction: Transaction, *, now: datetime, limit: int
    ) -> list[tuple[str, str]]:
        """Return (hold id, owner) of pending holds whose own time is over, oldest first."""
        rows = await transaction.all(
            select(ledger.holds.c.hold_id, ledger.accounts.c.owner_id)
            .join(ledger.accounts, ledger.holds.c.account_id == ledger.accounts.c.account_id)
            .where(
                ledger.holds.c.state == HoldState.PENDING.value,
                ledger.holds.c.expires_at_us <= to_us(now),
            )
            .order_by(ledger.holds.c.expires_at_us, ledger.holds.c.hold_id)
            .limit(limit)
        )
        return [(row.hold_id, row.owner_id) for row in rows]

    async def close_funding(self, transaction: Transaction, funding: Funding) -> None:
        """Save how a funding ended; its wallet is locked."""
        await transaction.execute(
            update(fundings)
            .where(fundings.c.funding_id == funding.funding_id, fundings.c.closed_at_us.is_(None))
            .values(
                state=funding.state.value,
                entry_id=funding.entry_id,
                closed_at_us=None if funding.closed_at is None else to_us(funding.closed_at),
                closed_by=funding.closed_by,
            )
        )

    async def add_act(self, transaction: Transaction, act: OperatorAct) -> None:
        """Write down who did what."""
        await transaction.execute(
            insert(operator_acts),
            {
                "act_id": act.act_id,
                "done_by": act.by,
                "kind": act.kind.value,
                "subject": act.subject,
                "reason": act.reason,
                "recorded_at_us": to_us(act.recorded_at),
            },
        )

    async def list_acts(
        self, transaction: Transaction, *, subject: str | None, limit: int
    ) -> list[OperatorAct]:
        """Return acts, newest first; with a subject, only on that."""
        statement = select(operator_acts)
        if subject is not None:
            statement = statement.where(operator_acts.c.subject == subject)
        rows = await transaction.all(statement.order_by(operator_acts.c.act_id.desc()).limit(limit))
        return [
            OperatorAct(
                act_id=row.act_id,
                by=row.done_by,
                kind=ActKind(row.kind),
                subject=row.subject,
                reason=row.reason,
                recorded_at=from_us(row.recorded_at_us),
            )
            for row in rows
        ]

    async def renew_epochs(self, transaction: Transaction, *, ids: IdSource) -> None:
        """Begin every wallet's stream anew, as after a restore: offsets of before mean nothing."""
        await transaction.execute(update(wallets).values(epoch=ids.new("epo")))

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


def _event_rows(
    wallet_id: str, before: int, change: WalletChange, recorded_at: datetime
) -> list[dict[str, Any]]:
    kinds = [WalletEventKind.BALANCE]
    if change.posting_sequence is not None:
        kinds.insert(0, WalletEventKind.ENTRY)
    if change.transfer is not None:
        kinds = [WalletEventKind.TRANSFER]
    transfer, total = change.transfer, change.balance.total
    return [
        {
            "wallet_id": wallet_id,
            "sequence": sequence,
            "kind": kind.value,
            "account_id": change.account_id,
            "currency": total.currency.code,
            "scale": total.currency.scale,
            "posting_sequence": change.posting_sequence if kind is WalletEventKind.ENTRY else None,
            "balance_minor": total.minor,
            "held_minor": change.balance.held.minor,
            "recorded_at_us": to_us(recorded_at),
            "transfer_id": None if transfer is None else transfer.transfer_id,
            "transfer_state": None if transfer is None else transfer.state.value,
        }
        for sequence, kind in enumerate(kinds, start=before + 1)
    ]


def _wallet_of(row: Row[Any]) -> Wallet:
    return Wallet(
        wallet_id=row.wallet_id,
        user_id=row.user_id,
        book=Book(row.book),
        epoch=row.epoch,
        last_event_sequence=row.last_event_sequence,
        created_at=from_us(row.created_at_us),
        frozen_at=_instant(row.frozen_at_us),
    )


def _instant(instant_us: int | None) -> datetime | None:
    return None if instant_us is None else from_us(instant_us)


def _event_of(row: Row[Any], line: StatementLine | None, transfer: Transfer | None) -> WalletEvent:
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
        transfer=None
        if transfer is None
        else replace(transfer, state=TransferState(row.transfer_state)),
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
        destination=row.destination,
        not_before=_instant(row.not_before_at_us),
        confirm_by=_instant(row.confirm_by_at_us),
    )
