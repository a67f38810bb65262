"""Transactions, groups, idempotency and the tables of facts, on both databases."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trading_api.kernel.clock import SystemClock
from trading_api.kernel.errors import (
    ConflictError,
    DatabaseUnavailableError,
    IdempotencyKeyReusedError,
    RequestInProgressError,
    UnavailableError,
)
from trading_api.runtime import context
from trading_api.runtime.database import (
    Ahead,
    Database,
    Idempotency,
    Inbox,
    Transaction,
    idempotency,
    inbox,
    module_metadata,
)
from trading_api.testkit.clocks import FixedClock

METADATA = module_metadata("shop")
ITEMS = sa.Table(
    "items",
    METADATA,
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column(
        "stock", sa.BigInteger, sa.CheckConstraint("stock >= 0", name="stock"), nullable=False
    ),
)
IDEMPOTENCY = idempotency.table(METADATA)
INBOX = inbox.table(METADATA)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, schema="shop")
    await made.create_all(METADATA)
    async with made.transaction() as transaction:
        await transaction.execute(ITEMS.insert(), {"id": 1, "stock": 0})
    yield made
    await made.close()


async def read_stock(database: Database, item: int = 1) -> int:
    async with database.snapshot() as snapshot:
        stock: int = await snapshot.scalar(sa.select(ITEMS.c.stock).where(ITEMS.c.id == item))
    return stock


async def increase(transaction: Transaction) -> int:
    stock: int = await transaction.scalar(
        sa.select(ITEMS.c.stock).where(ITEMS.c.id == 1).with_for_update()
    )
    await transaction.execute(ITEMS.update().where(ITEMS.c.id == 1).values(stock=stock + 1))
    return stock + 1


async def test_transaction_when_it_raises_then_nothing_stays_and_no_callback_runs(
    database: Database,
) -> None:
    called: list[str] = []
    with pytest.raises(ConflictError):
        async with database.transaction() as transaction:
            transaction.after_commit(lambda: called.append("rolled back"))
            await increase(transaction)
            raise ConflictError("planted")
    assert (await read_stock(database), called) == (0, [])
    async with database.transaction() as transaction:
        transaction.after_commit(lambda: called.append("committed"))
        await increase(transaction)
        assert called == []
    assert (await read_stock(database), called) == (1, ["committed"])


async def test_transaction_when_many_read_then_write_then_no_update_is_lost(
    database: Database,
) -> None:
    async def once() -> None:
        async with database.transaction() as transaction:
            await increase(transaction)

    await asyncio.gather(*(once() for _ in range(10)))
    assert await read_stock(database) == 10


async def test_transaction_when_cancelled_at_any_point_then_no_lock_stays(
    database: Database,
) -> None:
    async def work() -> None:
        async with database.transaction() as transaction:
            await increase(transaction)

    for turns in range(0, 60, 3):
        task = asyncio.ensure_future(work())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        before = await read_stock(database)
        await asyncio.wait_for(work(), 2)
        assert await read_stock(database) == before + 1


async def test_snapshot_when_others_write_meanwhile_then_it_sees_one_state(
    database: Database,
) -> None:
    async with database.snapshot() as snapshot:
        first = await snapshot.scalar(sa.select(ITEMS.c.stock))
        async with database.transaction() as transaction:
            await increase(transaction)
        assert await snapshot.scalar(sa.select(ITEMS.c.stock)) == first == 0
    assert await read_stock(database) == 1


async def test_group_when_one_command_is_refused_then_its_neighbours_commit(
    database: Database,
) -> None:
    async def refuse(transaction: Transaction) -> int:
        await increase(transaction)
        raise ConflictError("planted")

    outcomes = await asyncio.gather(
        database.group(increase),
        database.group(refuse),
        database.group(increase),
        return_exceptions=True,
    )
    assert [type(each) for each in outcomes] == [int, ConflictError, int]
    assert await read_stock(database) == 2


async def test_group_when_a_statement_breaks_then_only_its_own_command_fails(
    database: Database,
) -> None:
    async def break_constraint(transaction: Transaction) -> None:
        await transaction.execute(ITEMS.update().values(stock=-1))

    outcomes = await asyncio.gather(
        database.group(increase),
        database.group(break_constraint),
        database.group(increase),
        return_exceptions=True,
    )
    assert [type(each) for each in outcomes] == [int, sa.exc.IntegrityError, int]
    assert await read_stock(database) == 2


async def test_group_when_the_database_goes_away_then_no_command_is_repeated(
    database: Database,
) -> None:
    async def lose_the_connection(_transaction: Transaction) -> None:
        raise ConnectionResetError("the answer is lost")

    outcomes = await asyncio.gather(
        database.group(increase),
        database.group(lose_the_connection),
        database.group(increase),
        return_exceptions=True,
    )
    assert [type(each) for each in outcomes] == [DatabaseUnavailableError] * 3
    assert await read_stock(database) == 0


async def test_group_when_it_returns_then_all_is_committed_and_callbacks_ran(
    database: Database,
) -> None:
    called: list[int] = []

    async def command(transaction: Transaction) -> None:
        stock = await increase(transaction)
        transaction.after_commit(lambda: called.append(stock))

    async def check() -> None:
        await database.group(command)
        assert await read_stock(database) >= len(called) > 0

    await asyncio.gather(*(check() for _ in range(20)))
    assert sorted(called) == list(range(1, 21))


async def test_group_when_several_requests_share_a_commit_then_each_command_sees_its_own(
    database: Database,
) -> None:
    committed: list[str | None] = []

    async def request(name: str) -> str | None:
        context.request_id.set(name)

        async def command(transaction: Transaction) -> str | None:
            transaction.after_commit(lambda: committed.append(context.request_id.get()))
            await transaction.execute(sa.text("SELECT 1"))
            return context.request_id.get()

        return await database.group(command)

    names = [f"req_{number}" for number in range(10)]
    assert await asyncio.gather(*(request(name) for name in names)) == names
    assert sorted(map(str, committed)) == names


async def test_group_when_the_caller_is_cancelled_then_the_others_still_get_their_answers(
    database: Database,
) -> None:
    waiting = [asyncio.ensure_future(database.group(increase)) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert [type(each) for each in outcomes[1:]] == [int] * 4


async def test_database_when_nobody_is_there_then_unavailable() -> None:
    database = Database("postgresql+asyncpg://x@127.0.0.1:1/x", schema="shop")
    with pytest.raises(DatabaseUnavailableError):
        await database.ping()
    await database.close()


class Shop:
    """A use case that must happen once per key."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._idempotency = Idempotency(IDEMPOTENCY, clock=SystemClock())

    async def buy(
        self, key: str | None, *, amount: str = "1", user: str = "u", fails: bool = False
    ) -> int:
        names: Any = {"user_id": user, "operation": "POST /buy", "key": key}
        async with self._database.transaction() as transaction:
            kept = await self._idempotency.begin(transaction, **names, body={"amount": amount})
            if kept is not None:
                return int(kept["stock"])
            stock = await increase(transaction)
            if fails:
                raise ConflictError("planted")
            await self._idempotency.finish(transaction, **names, result={"stock": stock})
            return stock


async def test_idempotency_when_repeated_then_the_first_result_and_one_effect(
    database: Database,
) -> None:
    shop = Shop(database)
    assert await shop.buy("k") == 1
    assert await shop.buy("k") == 1
    assert await shop.buy("k", user="other") == 2
    assert await shop.buy(None) == 3
    with pytest.raises(IdempotencyKeyReusedError) as reused:
        await shop.buy("k", amount="2")
    assert [field.field for field in reused.value.errors] == ["amount"]
    assert await read_stock(database) == 3


async def test_idempotency_when_the_first_was_refused_then_the_key_is_free(
    database: Database,
) -> None:
    shop = Shop(database)
    with pytest.raises(ConflictError):
        await shop.buy("k", fails=True)
    assert await shop.buy("k", amount="2") == 1


async def test_idempotency_when_rivals_come_at_once_then_one_effect(database: Database) -> None:
    shop = Shop(database)
    results = await asyncio.gather(*(shop.buy("k") for _ in range(8)))
    assert results == [1] * 8
    assert await read_stock(database) == 1


@pytest.mark.postgresql
async def test_idempotency_when_the_first_hangs_then_the_rival_is_told_in_two_seconds(
    postgresql_url: str,
) -> None:
    database = Database(postgresql_url, schema="shop")
    await database.create_all(METADATA)
    keys = Idempotency(IDEMPOTENCY, clock=SystemClock())
    names = {"user_id": "u", "operation": "o", "key": "k"}
    async with database.transaction() as first:
        assert await keys.begin(first, **names, body={}) is None
        began = asyncio.get_running_loop().time()
        with pytest.raises(RequestInProgressError):
            async with database.transaction() as rival:
                await keys.begin(rival, **names, body={})
        assert 1.5 < asyncio.get_running_loop().time() - began < 3.5
        await keys.finish(first, **names, result={})
    await database.close()


async def test_idempotency_when_old_then_removed(database: Database, clock: FixedClock) -> None:
    keys = Idempotency(IDEMPOTENCY, clock=clock)
    async with database.transaction() as transaction:
        await keys.begin(transaction, user_id="u", operation="o", key="k", body={})
    clock.advance(10)
    async with database.transaction() as transaction:
        early = await keys.remove_older_than(
            transaction, instant=clock.now() - timedelta(seconds=11)
        )
        late = await keys.remove_older_than(transaction, instant=clock.now())
    assert (early, late) == (0, 1)


async def test_inbox_when_claimed_again_then_false_and_a_rollback_frees_it(
    database: Database,
) -> None:
    box = Inbox(INBOX)
    with pytest.raises(ConflictError):
        async with database.transaction() as transaction:
            assert await box.claim(transaction, consumer="a", event_id="evt_1")
            raise ConflictError("planted")
    async with database.transaction() as transaction:
        assert await box.claim(transaction, consumer="a", event_id="evt_1")
        assert not await box.claim(transaction, consumer="a", event_id="evt_1")
        assert await box.claim(transaction, consumer="b", event_id="evt_1")
    async with database.transaction() as transaction:
        assert not await box.claim(transaction, consumer="a", event_id="evt_1")


async def test_cursor_when_told_less_then_it_stays_and_each_producer_has_its_own(
    database: Database,
) -> None:
    box = Inbox(INBOX)
    async with database.transaction() as transaction:
        for sequence in (3, 7, 5):
            await box.advance(transaction, producer="a", sequence=sequence)
        assert await box.get_last_sequence(transaction, producer="a") == 7
        assert await box.get_last_sequence(transaction, producer="b") == 0
        await box.rewind(transaction, producer="a")
        assert await box.get_last_sequence(transaction, producer="a") == 0


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(deliveries=st.lists(st.integers(1, 6), max_size=20))
def test_inbox_when_any_multiset_is_delivered_in_any_order_then_each_has_one_effect(
    deliveries: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def play(folder: Path) -> int:
        database = Database(f"sqlite+aiosqlite:///{folder}/shop.db", schema="shop")
        await database.create_all(METADATA)
        async with database.transaction() as transaction:
            await transaction.execute(ITEMS.insert(), {"id": 1, "stock": 0})
        box = Inbox(INBOX)
        for number in deliveries:
            async with database.transaction() as transaction:
                if await box.claim(transaction, consumer="c", event_id=f"evt_{number}"):
                    await increase(transaction)
        stock = await read_stock(database)
        await database.close()
        return stock

    assert asyncio.run(play(tmp_path_factory.mktemp("inbox"))) == len(set(deliveries))


@pytest.mark.postgresql
async def test_run_when_two_transactions_deadlock_then_both_succeed(postgresql_url: str) -> None:
    database = Database(postgresql_url, schema="shop")
    await database.create_all(METADATA)
    async with database.transaction() as transaction:
        await transaction.execute(ITEMS.insert(), [{"id": 1, "stock": 0}, {"id": 2, "stock": 0}])
    met = asyncio.Barrier(2)
    attempts: list[int] = []

    async def cross(first: int, second: int, transaction: Transaction) -> None:
        attempts.append(first)
        for item in (first, second):
            await transaction.execute(
                ITEMS.update().where(ITEMS.c.id == item).values(stock=ITEMS.c.stock + 1)
            )
            if len(attempts) <= 2 and item == first:
                await met.wait()

    await asyncio.gather(
        database.run(lambda transaction: cross(1, 2, transaction)),
        database.run(lambda transaction: cross(2, 1, transaction)),
    )
    assert len(attempts) > 2
    assert (await read_stock(database, 1), await read_stock(database, 2)) == (2, 2)
    await database.close()


@pytest.mark.postgresql
async def test_transaction_when_every_connection_is_in_use_then_unavailable_soon(
    postgresql_url: str,
) -> None:
    database = Database(postgresql_url, schema="shop", pool_size=1, pool_overflow=0)
    async with database.transaction():
        with pytest.raises(UnavailableError):
            await asyncio.wait_for(database.ping(), 2)
    await database.ping()
    await database.close()


ADD_ITEM = ITEMS.insert()
TAKE_ONE = (
    ITEMS.update()
    .where(ITEMS.c.id == sa.bindparam("of_id"))
    .values(stock=ITEMS.c.stock - sa.bindparam("taken"))
)


def count_statements(database: Database) -> list[str]:
    """Return a list that the text of each statement is added to."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.append(statement)

    sa.event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    return seen


async def test_later_when_commands_of_several_keys_wait_then_written_in_one_statement(
    database: Database,
) -> None:
    def adding(number: int) -> Any:
        async def command(transaction: Transaction) -> int:
            transaction.later(ADD_ITEM, {"id": number, "stock": number})
            return number

        return command

    seen = count_statements(database)
    numbers = range(10, 30)
    groups = [database.group(adding(number), key=f"item {number}") for number in numbers]
    assert await asyncio.gather(*groups) == list(numbers)
    # The first may have gone alone while the others gathered.
    assert len([each for each in seen if each.startswith("INSERT")]) <= 2
    assert [await read_stock(database, number) for number in numbers] == list(numbers)


async def test_later_when_a_command_reads_then_it_sees_what_it_and_its_key_wrote(
    database: Database,
) -> None:
    async def add(transaction: Transaction) -> None:
        transaction.later(ADD_ITEM, {"id": 2, "stock": 5})

    async def take(transaction: Transaction) -> Any:
        transaction.later(TAKE_ONE, {"of_id": 2, "taken": 1})
        return await transaction.scalar(sa.select(ITEMS.c.stock).where(ITEMS.c.id == 2))

    async def look(transaction: Transaction) -> Any:
        return await transaction.scalar(sa.select(ITEMS.c.stock).where(ITEMS.c.id == 2))

    found = await asyncio.gather(
        database.group(look),
        database.group(add, key="2"),
        database.group(take, key="2"),
        database.group(take, key="2"),
        database.group(look),
    )
    assert list(found) == [None, None, 4, 3, 3]


async def test_later_when_a_row_is_refused_at_the_end_then_its_neighbours_are_written(
    database: Database,
) -> None:
    def taking(number: int, taken: int) -> Any:
        async def command(transaction: Transaction) -> str:
            transaction.later(ADD_ITEM, {"id": number, "stock": 1})
            transaction.later(TAKE_ONE, {"of_id": number, "taken": taken})
            return f"took {taken}"

        return command

    taken = {10: 1, 11: 2, 12: 0, 13: 1}
    outcomes = await asyncio.gather(
        *(database.group(taking(number, n), key=str(number)) for number, n in taken.items()),
        return_exceptions=True,
    )
    assert [isinstance(each, Exception) for each in outcomes] == [False, True, False, False]
    assert [await read_stock(database, number) for number in (10, 12, 13)] == [0, 1, 0]
    async with database.snapshot() as snapshot:
        assert await snapshot.first(sa.select(ITEMS).where(ITEMS.c.id == 11)) is None


async def test_later_when_commands_share_statements_then_each_keeps_its_own_order(
    database: Database,
) -> None:
    def leaving(*left: tuple[sa.Executable, dict[str, int]]) -> Any:
        async def command(transaction: Transaction) -> None:
            for statement, parameters in left:
                transaction.later(statement, parameters)

        return command

    async def run(*commands: Any) -> int:
        seen = count_statements(database)
        # The first goes alone while the others gather.
        together = [add_nothing, *commands]
        await asyncio.gather(*(database.group(each, key=str(i)) for i, each in enumerate(together)))
        return len([each for each in seen if "items" in each])

    def take(item: int) -> tuple[sa.Executable, dict[str, int]]:
        return TAKE_ONE, {"of_id": item, "taken": 1}

    def add(item: int) -> tuple[sa.Executable, dict[str, int]]:
        return ADD_ITEM, {"id": item, "stock": 5}

    await run(leaving(add(2)), leaving(add(3)))
    # The statement that one command leaves alone is the second one of the others.
    assert await run(leaving(take(2)), leaving(add(4), take(4)), leaving(take(3))) == 2
    assert [await read_stock(database, item) for item in (2, 3, 4)] == [4, 4, 4]
    # No order is that of both: they run one after the other.
    assert await run(leaving(add(5), take(5)), leaving(take(2), add(6))) == 4
    assert [await read_stock(database, item) for item in (2, 5, 6)] == [3, 4, 5]


async def test_later_when_a_command_refuses_then_what_it_left_is_forgotten(
    database: Database,
) -> None:
    async def refuse(transaction: Transaction) -> None:
        transaction.later(ADD_ITEM, {"id": 20, "stock": 1})
        raise ConflictError("not now")

    async def add(transaction: Transaction) -> None:
        transaction.later(ADD_ITEM, {"id": 21, "stock": 1})

    outcomes = await asyncio.gather(
        *(database.group(each, key=str(i)) for i, each in enumerate([add_nothing, refuse, add])),
        return_exceptions=True,
    )
    assert [type(each) for each in outcomes] == [type(None), ConflictError, type(None)]
    async with database.snapshot() as snapshot:
        found = await snapshot.all(sa.select(ITEMS.c.id).where(ITEMS.c.id >= 20))
    assert [row.id for row in found] == [21]


async def add_nothing(_transaction: Transaction) -> None:
    return None


class StockReader:
    """Reads items ahead of commands and counts how often it is asked."""

    def __init__(self) -> None:
        self.needs: list[list[int]] = []

    async def read(self, transaction: Transaction, needs: Sequence[int]) -> list[int | None]:
        self.needs.append(list(needs))
        rows = await transaction.all(sa.select(ITEMS).where(ITEMS.c.id.in_(needs)))
        found = {row.id: row.stock for row in rows}
        return [found.get(need) for need in needs]


async def test_ahead_when_commands_of_several_keys_wait_then_read_for_all_at_once(
    database: Database,
) -> None:
    reader = StockReader()

    async def tell(transaction: Transaction) -> Any:
        return transaction.ahead

    await asyncio.gather(
        *(database.group(adding(number, 10 * number), key=str(number)) for number in (2, 3))
    )
    told = await asyncio.gather(
        *(database.group(tell, key=str(n), ahead=Ahead(reader.read, n)) for n in (3, 2, 9)),
    )
    assert told == [30, 20, None]
    assert reader.needs == [[3, 2, 9]]
    # Alone it is read for as well.
    assert await database.group(tell, key="2", ahead=Ahead(reader.read, 2)) == 20


async def test_ahead_when_something_may_have_been_written_meanwhile_then_nothing_is_told(
    database: Database,
) -> None:
    reader = StockReader()

    async def tell(transaction: Transaction) -> Any:
        return transaction.ahead

    def asking(number: int) -> Any:
        return database.group(tell, key=str(number), ahead=Ahead(reader.read, number))

    await database.group(adding(2, 20))
    told = await asyncio.gather(
        database.group(adding(3, 30), key="3"),
        asking(3),  # another of its key came before it
        asking(2),
        asking(2),
        database.group(add_nothing),  # without a key: it may write anything
        asking(4),
    )
    assert list(told) == [None, None, 20, None, None, None]
    assert reader.needs == [[2]]


async def test_group_when_a_refused_command_wrote_already_then_only_that_is_undone(
    database: Database,
) -> None:
    async def write_and_refuse(transaction: Transaction) -> None:
        await transaction.execute(ADD_ITEM, {"id": 30, "stock": 1})
        raise ConflictError("not now")

    seen = count_statements(database)
    outcomes = await asyncio.gather(
        database.group(adding(31, 5), key="31"),
        database.group(write_and_refuse, key="30"),
        database.group(adding(32, 5), key="32"),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], ConflictError)
    assert [await read_stock(database, item) for item in (31, 32)] == [5, 5]
    async with database.snapshot() as snapshot:
        assert await snapshot.first(sa.select(ITEMS).where(ITEMS.c.id == 30)) is None
    # Those that write at the end alone need no savepoint.
    assert len([each for each in seen if each.startswith("SAVEPOINT")]) <= 1


async def test_write_later_when_commands_share_a_writer_then_it_gets_all_once(
    database: Database,
) -> None:
    written: list[list[int]] = []

    async def write(transaction: Transaction, items: Sequence[int]) -> None:
        written.append(list(items))
        await transaction.execute(ADD_ITEM, [{"id": each, "stock": each} for each in items])

    def leaving(number: int) -> Any:
        async def command(transaction: Transaction) -> None:
            transaction.write_later(write, number)

        return command

    await asyncio.gather(
        *(database.group(leaving(number), key=str(number)) for number in (40, 41, 42)),
    )
    assert written == [[40, 41, 42]]
    assert [await read_stock(database, item) for item in (40, 41, 42)] == [40, 41, 42]


def adding(number: int, stock: int) -> Any:
    async def command(transaction: Transaction) -> None:
        transaction.later(ADD_ITEM, {"id": number, "stock": stock})

    return command


async def test_keep_later_when_a_rival_took_the_key_then_its_answer_is_told(
    database: Database, clock: FixedClock
) -> None:
    kept = Idempotency(IDEMPOTENCY, clock=clock)
    claim = idempotency.Claim("usr_1", "POST /items", "key-1", {"id": "50"})
    reader_of = kept.find_many

    async def add(transaction: Transaction) -> dict[str, Any]:
        if transaction.ahead is FREE:
            # Between our look and our end somebody else commits the same request.
            transaction.later(ADD_ITEM, {"id": 50, "stock": 1})
            kept.keep_later(transaction, claim, result={"id": 50})
            kept.keep_later(transaction, claim, result={"id": 51})
            return {"id": 50}
        first = await kept.begin(
            transaction,
            user_id=claim.user_id,
            operation=claim.operation,
            key=claim.key,
            body=claim.body,
        )
        if first is not None:
            return first
        transaction.later(ADD_ITEM, {"id": 52, "stock": 1})
        await kept.finish(
            transaction,
            user_id=claim.user_id,
            operation=claim.operation,
            key=claim.key,
            result={"id": 52},
        )
        return {"id": 52}

    async def look(transaction: Transaction, claims: Sequence[idempotency.Claim]) -> list[Any]:
        return [FREE if each is None else each for each in await reader_of(transaction, claims)]

    # The group is refused by the database, and the command runs again by itself.
    assert await database.group(add, key="a", ahead=Ahead(look, claim)) == {"id": 52}
    assert await database.group(add, key="a", ahead=Ahead(look, claim)) == {"id": 52}
    assert await database.group(look_up(look, claim), key="a") == [{"id": 52}]


FREE = object()


def look_up(look: Any, claim: idempotency.Claim) -> Any:
    async def command(transaction: Transaction) -> Any:
        return await look(transaction, [claim])

    return command
