"""The audit: one row per change, chained, and no edit of it goes unseen (T13)."""

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from trading_api.kernel.clock import to_us
from trading_api.modules.auth.domain.audit import HOST, Caller, hash_state
from trading_api.modules.auth.domain.users import Role
from trading_api.modules.auth.repository.checks import Violation, check_audit, check_auth
from trading_api.modules.auth.service import AuthServices
from trading_api.modules.auth.tables import audit_entries, audit_head, sessions, users
from trading_api.modules.auth.tests.builders import PASSWORD, a_device, an_email
from trading_api.runtime.database import Database
from trading_api.testkit.clocks import FixedClock


async def entries(database: Database) -> list[Any]:
    async with database.snapshot() as transaction:
        return list(
            await transaction.all(sa.select(audit_entries).order_by(audit_entries.c.sequence))
        )


async def violations(database: Database) -> list[Violation]:
    async with database.snapshot() as transaction:
        return await check_audit(transaction)


async def some_history(service: AuthServices, clock: FixedClock) -> None:
    await service.registration.register(
        email=an_email(),
        password=PASSWORD,
        full_name="",
        caller=Caller("192.0.2.1"),
        now=clock.now(),
    )
    for _ in range(3):
        await service.sign_in.log_in(
            email="ann@example.com", password=PASSWORD, device=a_device(), now=clock.now()
        )


async def disarm(database: Database) -> None:
    """Do what only the database's owner can do: take the triggers away."""
    async with database.transaction() as transaction:
        if transaction.dialect == "sqlite":
            for name in ("update", "delete"):
                await transaction.execute(sa.text(f"DROP TRIGGER auth.audit_entries_no_{name}"))
        else:
            await transaction.execute(
                sa.text("DROP TRIGGER audit_entries_append_only ON auth.audit_entries")
            )


async def test_chain_when_nothing_was_touched_then_walks_clean(
    service: AuthServices, database: Database, clock: FixedClock
) -> None:
    assert await violations(database) == []
    await some_history(service, clock)
    rows = await entries(database)
    assert [row.sequence for row in rows] == [1, 2, 3, 4]
    assert [row.action for row in rows] == ["user_register", "login", "login", "login"]
    assert rows[0].object == f"user:{rows[1].actor_id}"
    assert rows[1].object == f"session:{rows[1].session_id}"
    async with database.snapshot() as transaction:
        assert await check_auth(transaction, now_us=to_us(clock.now())) == [
            # The tests' hasher is a plain one, and the check sees that too.
            Violation("T9", rows[1].actor_id, "the password isn't stored as a slow hash")
        ]


@pytest.mark.parametrize(
    ("tamper", "subjects"),
    [
        (
            audit_entries.update()
            .where(audit_entries.c.sequence == 2)
            .values(address="198.51.100.9"),
            ["audit:2"],
        ),
        (audit_entries.delete().where(audit_entries.c.sequence == 2), ["audit:3", "audit:3"]),
        (audit_entries.delete().where(audit_entries.c.sequence == 4), ["audit"]),
        (audit_head.update().values(sequence=9), ["audit"]),
    ],
    ids=["edited", "removed inside", "removed at the end", "head moved"],
)
async def test_chain_when_touched_then_found_at_its_place(
    service: AuthServices, database: Database, clock: FixedClock, tamper: Any, subjects: list[str]
) -> None:
    await some_history(service, clock)
    await disarm(database)
    async with database.transaction() as transaction:
        await transaction.execute(tamper)
    found = [each for each in await violations(database) if "trigger" not in each.message]
    assert [each.subject for each in found] == subjects


async def test_check_when_triggers_are_gone_then_told(database: Database) -> None:
    await disarm(database)
    assert {each.message.split(" ")[1] for each in await violations(database)} == {"trigger"}


async def test_check_when_rows_contradict_then_each_is_told(
    service: AuthServices, database: Database, clock: FixedClock
) -> None:
    await some_history(service, clock)
    async with database.transaction() as transaction:
        await transaction.execute(users.update().values(is_active=False))
        ids = [row.id for row in await transaction.all(sa.select(sessions.c.id).order_by("id"))]
        await transaction.execute(
            sessions.update().where(sessions.c.id == ids[0]).values(leaf_hash="rt_in_clear")
        )
        await transaction.execute(
            sessions.update()
            .where(sessions.c.id == ids[1])
            .values(parent_hash="a" * 64, parent_rotated_at_us=1)
        )
    async with database.snapshot() as transaction:
        found = await check_auth(transaction, now_us=to_us(clock.now()))
    assert {(each.id, each.subject) for each in found if each.subject.startswith("ses_")} == {
        ("T6", ids[0]),
        ("T6", ids[1]),
        ("T6", ids[2]),
        ("T9", ids[0]),
        ("T1", ids[1]),
    }


async def test_chain_when_many_write_at_once_then_no_gap(
    service: AuthServices, database: Database, clock: FixedClock
) -> None:
    await some_history(service, clock)
    await asyncio.gather(
        *(
            service.sign_in.log_in(
                email="ann@example.com",
                password=PASSWORD,
                device=a_device(f"device {number}"),
                now=clock.now(),
            )
            for number in range(5)
        )
    )
    assert [row.sequence for row in await entries(database)] == list(range(1, 10))
    assert await violations(database) == []


async def test_row_tells_what_changed_without_telling_the_content(
    service: AuthServices, database: Database, clock: FixedClock
) -> None:
    await some_history(service, clock)
    before = (await service.users.list_users())[0]
    after = await service.users.set_roles(
        email="ann@example.com", roles=frozenset({Role.OPERATOR}), now=clock.now()
    )
    row = (await entries(database))[-1]
    assert (row.action, row.address, row.object) == ("user_roles", HOST.address, f"user:{after.id}")
    assert (row.before_hash, row.after_hash) == (hash_state(before), hash_state(after))
    assert row.before_hash != row.after_hash
