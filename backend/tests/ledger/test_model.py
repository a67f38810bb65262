"""The ledger against an independent model: plain dictionaries, one step at a time.

After every step the stored ledger is proven from scratch and compared with the model.
"""

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from trading_api.kernel.errors import ConflictError
from trading_api.ledger.checks import check_ledger
from trading_api.ledger.domain import Entry, HoldRequest, reversal
from trading_api.ledger.engine import Ledger
from trading_api.ledger.errors import EntryDiffersError, InsufficientFundsError
from trading_api.runtime.database import Database
from trading_api.testkit.ledgers import (
    ALICE,
    BOB,
    EXTERNAL,
    NOW,
    SCHEMA,
    TABLES,
    a_deposit,
    a_transfer,
    a_withdrawal,
    create_ledger,
    usd,
)

CUSTOMERS = {"alice": ALICE, "bob": BOB}
names = st.sampled_from(sorted(CUSTOMERS))
amounts = st.integers(1, 50)


class LedgerMachine(RuleBasedStateMachine):
    """Deposits, withdrawals, transfers, holds, captures, voids and repeats in any order."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.run = self.runner.run
        self.ledger = Ledger(TABLES)
        self.run(self._open())
        self.total = {"alice": 0, "bob": 0}
        self.holds: dict[str, tuple[str, int]] = {}
        self.ended: list[str] = []
        self.entries: list[Entry] = []
        self.lines = {"alice": 0, "bob": 0}
        self.number = 0
        self.deposits: list[tuple[str, int, str]] = []
        self.reversed: list[str] = []

    async def _open(self) -> None:
        if self.url.startswith("sqlite"):
            self.url = f"sqlite+aiosqlite:///{Path(self.folder.name)}/ledger.db"
        self.database = Database(self.url, schema=SCHEMA)
        if self.database.dialect == "postgresql":
            async with self.database.transaction() as transaction:
                await transaction.execute(text(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"))
        await create_ledger(self.database)
        async with self.database.transaction() as transaction:
            await self.ledger.open_accounts(transaction, [EXTERNAL, ALICE, BOB], created_at=NOW)

    def teardown(self) -> None:
        self.run(self.database.close())
        self.runner.close()
        self.folder.cleanup()

    def available(self, name: str) -> int:
        return self.total[name] - sum(amount for who, amount in self.holds.values() if who == name)

    def next_id(self) -> str:
        self.number += 1
        return f"id{self.number:04d}"

    async def _post(self, entry: Entry):
        async with self.database.transaction() as transaction:
            return await self.ledger.post_entry(transaction, entry, recorded_at=NOW)

    def _expect(self, entry: Entry, *, allowed: bool) -> None:
        if allowed:
            assert not self.run(self._post(entry)).is_replay
            self.entries.append(entry)
            return
        try:
            self.run(self._post(entry))
        except InsufficientFundsError:
            return
        raise AssertionError("the model refuses what the ledger accepted")

    @rule(name=names, amount=amounts)
    def deposit(self, name: str, amount: int) -> None:
        entry = a_deposit(self.next_id(), amount, CUSTOMERS[name])
        self._expect(entry, allowed=True)
        self.deposits.append((name, amount, entry.entry_id))
        self.total[name] += amount
        self.lines[name] += 1

    @rule(name=names, amount=amounts)
    def withdraw(self, name: str, amount: int) -> None:
        allowed = self.available(name) >= amount
        self._expect(a_withdrawal(self.next_id(), amount, CUSTOMERS[name]), allowed=allowed)
        if allowed:
            self.total[name] -= amount
            self.lines[name] += 1

    @rule(name=names, amount=amounts)
    def transfer(self, name: str, amount: int) -> None:
        other = "bob" if name == "alice" else "alice"
        allowed = self.available(name) >= amount
        entry = a_transfer(self.next_id(), amount, CUSTOMERS[name], CUSTOMERS[other])
        self._expect(entry, allowed=allowed)
        if allowed:
            self.total[name] -= amount
            self.total[other] += amount
            self.lines[name] += 1
            self.lines[other] += 1

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.entries))
        assert self.run(self._post(entry)).is_replay

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def repeat_with_other_amount(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.entries))
        other = a_deposit(entry.entry_id, entry.postings[0].amount.minor + 1)
        try:
            self.run(self._post(other))
        except EntryDiffersError as error:
            assert error.errors
            return
        raise AssertionError("another body was taken for the same entry")

    @rule(name=names, amount=amounts)
    def hold(self, name: str, amount: int) -> None:
        hold_id = self.next_id()

        async def open_hold() -> None:
            async with self.database.transaction() as transaction:
                request = HoldRequest(hold_id, CUSTOMERS[name].account_id, usd(amount), NOW)
                await self.ledger.open_hold(transaction, request)

        if self.available(name) >= amount:
            self.run(open_hold())
            self.holds[hold_id] = (name, amount)
            return
        try:
            self.run(open_hold())
        except InsufficientFundsError:
            return
        raise AssertionError("a hold without cover was opened")

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def capture(self, data: st.DataObject) -> None:
        hold_id = data.draw(st.sampled_from(sorted(self.holds)))
        name, held = self.holds.pop(hold_id)
        taken = data.draw(st.integers(1, held))
        entry = a_withdrawal(self.next_id(), taken, CUSTOMERS[name])

        async def capture_hold() -> None:
            async with self.database.transaction() as transaction:
                await self.ledger.capture_hold(transaction, hold_id, entry, recorded_at=NOW)

        self.run(capture_hold())
        self.total[name] -= taken
        self.lines[name] += 1
        self.ended.append(hold_id)

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), expires=st.booleans())
    def release(self, data: st.DataObject, expires: bool) -> None:
        hold_id = data.draw(st.sampled_from(sorted(self.holds)))
        self.holds.pop(hold_id)
        self.run(self._release(hold_id, expires=expires))
        self.ended.append(hold_id)

    @precondition(lambda self: self.ended)
    @rule(data=st.data(), expires=st.booleans())
    def release_again(self, data: st.DataObject, expires: bool) -> None:
        hold_id = data.draw(st.sampled_from(self.ended))
        try:
            self.run(self._release(hold_id, expires=expires))
        except ConflictError:
            return
        raise AssertionError("a hold ended twice")

    async def _release(self, hold_id: str, *, expires: bool) -> None:
        async with self.database.transaction() as transaction:
            end = self.ledger.expire_hold if expires else self.ledger.void_hold
            await end(transaction, hold_id, closed_at=NOW)

    @precondition(lambda self: self.deposits)
    @rule(data=st.data())
    def reverse(self, data: st.DataObject) -> None:
        """Undo a deposit, where the money is still there; once."""
        name, amount, entry_id = data.draw(st.sampled_from(self.deposits))

        async def undo() -> None:
            async with self.database.transaction() as transaction:
                first = await self.ledger.get_entry(transaction, entry_id)
                entry = reversal(first, entry_id=self.next_id(), occurred_at=NOW, reason="")
                await self.ledger.post_entry(transaction, entry, recorded_at=NOW)

        if self.available(name) >= amount:
            self.run(undo())
            self.total[name] -= amount
            self.lines[name] += 1
            self.deposits.remove((name, amount, entry_id))
            self.reversed.append(entry_id)
            return
        try:
            self.run(undo())
        except InsufficientFundsError:
            return
        raise AssertionError("a reversal made a balance negative")

    @precondition(lambda self: self.reversed)
    @rule(data=st.data())
    def reverse_again(self, data: st.DataObject) -> None:
        entry_id = data.draw(st.sampled_from(self.reversed))

        async def undo() -> None:
            async with self.database.transaction() as transaction:
                first = await self.ledger.get_entry(transaction, entry_id)
                entry = reversal(first, entry_id=self.next_id(), occurred_at=NOW, reason="")
                await self.ledger.post_entry(transaction, entry, recorded_at=NOW)

        try:
            self.run(undo())
        except ConflictError:
            return
        raise AssertionError("an entry was reversed twice")

    @invariant()
    def agrees_with_the_model(self) -> None:
        async def compare() -> None:
            async with self.database.snapshot() as transaction:
                for name, account in CUSTOMERS.items():
                    found = await self.ledger.get_balance(transaction, account.account_id)
                    assert found.total.minor == self.total[name]
                    assert found.available.minor == self.available(name)
                    lines = await self.ledger.list_entries(
                        transaction, [account.account_id], limit=1
                    )
                    assert (lines[0].sequence if lines else 0) == self.lines[name]
                world = await self.ledger.get_balance(transaction, EXTERNAL.account_id)
                assert world.total.minor == -sum(self.total.values())
                assert await check_ledger(transaction, TABLES) == []

        self.run(compare())


def run_model(url: str, *, examples: int, steps: int) -> None:
    def make() -> LedgerMachine:
        return LedgerMachine(url)

    run_state_machine_as_test(
        make,  # type: ignore[arg-type]
        settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None),
    )


def test_ledger_agrees_with_the_model(database_url):
    is_sqlite = database_url.startswith("sqlite")
    run_model(database_url, examples=8 if is_sqlite else 3, steps=25)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_ledger_agrees_with_the_model_for_long(database_url):
    run_model(database_url, examples=200, steps=100)
