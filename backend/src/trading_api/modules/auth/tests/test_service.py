"""Use cases on both databases."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from trading_api.modules.auth import tables
from trading_api.modules.auth.domain import Device, Role
from trading_api.modules.auth.domain.audit import Caller
from trading_api.modules.auth.errors import (
    CredentialsInvalidError,
    EmailTakenError,
    LoginThrottledError,
    PasswordRefusedError,
    RefreshTokenExpiredError,
    RefreshTokenInvalidError,
    RefreshTokenReusedError,
    SessionEndedError,
    SessionNotFoundError,
    UserDisabledError,
)
from trading_api.modules.auth.service import AuthServices, SignIn
from trading_api.modules.auth.tests.builders import (
    PASSWORD,
    Announcements,
    PlainHasher,
    PlainSigner,
    a_device,
    an_email,
)
from trading_api.modules.auth.tests.conftest import MakeService
from trading_api.runtime.database import Database
from trading_api.runtime.database.migrations import Migrations, compare
from trading_api.testkit.clocks import FixedClock


async def register(service: AuthServices, clock: FixedClock, address: str = "ann@example.com"):
    return await service.registration.register(
        email=an_email(address),
        password=PASSWORD,
        full_name="Ann",
        caller=Caller("192.0.2.1"),
        now=clock.now(),
    )


async def log_in(
    service: AuthServices,
    clock: FixedClock,
    *,
    email: str = "ann@example.com",
    password: str = PASSWORD,
    device: Device | None = None,
) -> SignIn:
    found = await service.sign_in.log_in(
        email=email, password=password, device=device or a_device(), now=clock.now()
    )
    assert isinstance(found, SignIn)
    return found


async def refresh(
    service: AuthServices, clock: FixedClock, token: str, device: Device | None = None
) -> SignIn:
    return await service.sessions.refresh(
        refresh_token=token, device=device or a_device(), now=clock.now()
    )


async def rows_of(database: Database, table: sa.Table):
    async with database.snapshot() as transaction:
        return await transaction.all(sa.select(table))


async def test_migrations_lead_to_the_tables(database: Database) -> None:
    migrations = Migrations.of_package("auth", "trading_api.modules.auth")
    assert await compare(database, migrations) == []


async def test_register_when_new_then_user_and_event_are_in_one_commit(
    service: AuthServices, clock: FixedClock, database: Database
) -> None:
    user = await register(service, clock)
    [stored] = await rows_of(database, tables.users)
    [event] = await rows_of(database, tables.outbox_table)
    assert (stored.id, stored.email, stored.roles) == (user.id, "ann@example.com", "user")
    assert event.type == "auth.user.registered"
    assert json.loads(event.data) == {
        "user_id": user.id,
        "email": "ann@example.com",
        "full_name": "Ann",
    }


async def test_register_when_address_differs_in_case_only_then_taken_and_no_event(
    service: AuthServices, clock: FixedClock, database: Database
) -> None:
    await register(service, clock, "Ann@example.com")
    with pytest.raises(EmailTakenError):
        await register(service, clock, "ANN@example.com")
    assert len(await rows_of(database, tables.outbox_table)) == 1


async def test_register_when_many_at_once_then_one_user(
    service: AuthServices, clock: FixedClock, database: Database
) -> None:
    outcomes = await asyncio.gather(
        *(register(service, clock) for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(each, EmailTakenError) for each in outcomes) == 19
    assert len(await rows_of(database, tables.users)) == 1


async def test_register_when_password_is_common_then_refused_without_hashing(
    service: AuthServices, clock: FixedClock
) -> None:
    with pytest.raises(PasswordRefusedError) as refused:
        await service.registration.register(
            email=an_email(),
            password="password123",
            full_name="",
            caller=Caller(""),
            now=clock.now(),
        )
    assert refused.value.errors[0].rule == "too_common"
    assert "password123" not in refused.value.message


async def test_admin_email_when_first_then_admin_and_later_ones_are_not(
    make_service: MakeService, clock: FixedClock
) -> None:
    service = make_service(admin_email="boss@example.com")
    plain = await register(service, clock, "ann@example.com")
    boss = await register(service, clock, "Boss@example.com")
    assert plain.roles == {Role.USER}
    assert boss.roles == {Role.USER, Role.ADMIN}
    again = make_service(admin_email="eve@example.com")
    assert (await register(again, clock, "eve@example.com")).roles == {Role.USER}


async def test_log_in_when_right_then_token_tells_user_session_and_scopes(
    service: AuthServices, clock: FixedClock, signer: PlainSigner
) -> None:
    user = await register(service, clock)
    signed_in = await log_in(service, clock, email="ANN@example.com")
    claims = signer.claims[-1]
    now = int(clock.now().timestamp())
    assert claims["sub"] == user.id
    assert claims["sid"] == signed_in.session.id
    assert (claims["iat"], claims["nbf"], claims["exp"]) == (now, now, now + 300)
    assert (claims["iss"], claims["aud"]) == ("trading-api", "trading-api")
    assert {"broker:trade", "wallet:withdraw", "datafeed:read"} <= set(claims["scopes"])
    assert "gateway:manage" not in claims["scopes"]
    assert (await service.users.get_user(user_id=user.id)).last_login_at == clock.now()


async def test_log_in_when_unknown_or_wrong_then_same_answer_and_same_work(
    service: AuthServices, clock: FixedClock, hasher: PlainHasher, database: Database
) -> None:
    await register(service, clock)
    with pytest.raises(CredentialsInvalidError) as unknown:
        await log_in(service, clock, email="nobody@example.com")
    with pytest.raises(CredentialsInvalidError) as wrong:
        await log_in(service, clock, password="something else")
    assert unknown.value.message == wrong.value.message
    assert unknown.value.context == wrong.value.context
    assert hasher.compared == [None, f"plain:{PASSWORD}"]
    refused = [
        row for row in await rows_of(database, tables.audit_entries) if row.outcome == "refused"
    ]
    assert len(refused) == 2


async def test_log_in_when_user_has_no_password_then_refused(
    service: AuthServices, clock: FixedClock, database: Database
) -> None:
    await register(service, clock)
    async with database.transaction() as transaction:
        await transaction.execute(tables.users.update().values(password_hash=None))
    with pytest.raises(CredentialsInvalidError):
        await log_in(service, clock)


async def test_log_in_when_hash_is_old_then_replaced(
    service: AuthServices, clock: FixedClock, database: Database
) -> None:
    await register(service, clock)
    async with database.transaction() as transaction:
        await transaction.execute(tables.users.update().values(password_hash=f"old:{PASSWORD}"))
    await log_in(service, clock)
    [stored] = await rows_of(database, tables.users)
    assert stored.password_hash == f"plain:{PASSWORD}"


async def test_log_in_when_disabled_then_told_only_with_the_right_password(
    service: AuthServices, clock: FixedClock
) -> None:
    await register(service, clock)
    await service.users.set_user_active(email="ann@example.com", is_active=False, now=clock.now())
    with pytest.raises(UserDisabledError):
        await log_in(service, clock)
    with pytest.raises(CredentialsInvalidError):
        await log_in(service, clock, password="something else")


@pytest.mark.parametrize("change", [{"is_active": False}, {"password_hash": "plain:another one"}])
async def test_log_in_when_user_changes_while_hashing_then_no_session(
    service: AuthServices,
    clock: FixedClock,
    hasher: PlainHasher,
    database: Database,
    change: dict[str, object],
) -> None:
    await register(service, clock)

    async def meanwhile() -> None:
        async with database.transaction() as transaction:
            await transaction.execute(tables.users.update().values(**change))

    hasher.meanwhile = meanwhile
    with pytest.raises(CredentialsInvalidError):
        await log_in(service, clock)
    assert await rows_of(database, tables.sessions) == []


async def test_log_in_when_guessed_in_parallel_then_no_more_than_the_burst_is_looked_at(
    service: AuthServices, clock: FixedClock, hasher: PlainHasher
) -> None:
    await register(service, clock)
    outcomes = await asyncio.gather(
        *(log_in(service, clock, password=f"guess {n} wrong") for n in range(15)),
        return_exceptions=True,
    )
    throttled = [each for each in outcomes if isinstance(each, LoginThrottledError)]
    assert (len(hasher.compared), len(throttled)) == (5, 10)
    assert {each.retry_after_seconds for each in throttled} == {30}
    with pytest.raises(LoginThrottledError):
        await log_in(service, clock)
    clock.advance(30)
    await log_in(service, clock)


async def test_log_in_when_strangers_lock_the_account_then_known_device_still_gets_in(
    service: AuthServices, clock: FixedClock
) -> None:
    await register(service, clock)
    mine = a_device(cookie="random", address="198.51.100.7")
    await log_in(service, clock, device=mine)
    for _ in range(5):
        with pytest.raises(CredentialsInvalidError):
            await log_in(service, clock, password="wrong wrong")
    with pytest.raises(LoginThrottledError):
        await log_in(service, clock)
    await log_in(service, clock, device=mine)


async def test_log_in_when_one_address_tries_many_accounts_then_throttled(
    service: AuthServices, clock: FixedClock, hasher: PlainHasher
) -> None:
    for n in range(20):
        with pytest.raises(CredentialsInvalidError):
            await log_in(service, clock, email=f"user{n}@example.com")
    with pytest.raises(LoginThrottledError):
        await log_in(service, clock, email="another@example.com")
    assert len(hasher.compared) == 20


async def test_log_in_when_successful_then_allowance_is_given_back(
    service: AuthServices, clock: FixedClock
) -> None:
    await register(service, clock)
    for _ in range(30):
        await log_in(service, clock)


async def test_refresh_when_leaf_then_new_pair_and_old_one_is_spent(
    service: AuthServices, clock: FixedClock
) -> None:
    await register(service, clock)
    first = await log_in(service, clock)
    clock.advance(60)
    second = await refresh(service, clock, first.refresh_token)
    assert second.refresh_token != first.refresh_token
    assert second.session.id == first.session.id
    clock.advance(60)
    third = await refresh(service, clock, second.refresh_token)
    assert third.refresh_token not in (first.refresh_token, second.refresh_token)


async def test_refresh_when_repeated_within_the_grace_then_same_child(
    service: AuthServices, clock: FixedClock
) -> None:
    await register(service, clock)
    first = await log_in(service, clock)
    second = await refresh(service, clock, first.refresh_token)
    clock.advance(10)
    again = await refresh(service, clock, first.refresh_token)
    assert again.refresh_token == second.refresh_token
    await refresh(service, clock, second.refresh_token)


@pytest.mark.parametrize("seconds", [11, 3600])
async def test_refresh_when_reused_after_the_grace_then_session_ends_once_and_for_all(
    service: AuthServices,
    clock: FixedClock,
    database: Database,
    announcements: Announcements,
    seconds: int,
) -> None:
    await register(service, clock)
    first = await log_in(service, clock)
    second = await refresh(service, clock, first.refresh_token)
    clock.advance(seconds)
    with pytest.raises(RefreshTokenReusedError):
        await refresh(service, clock, first.refresh_token)
    for token in (first.refresh_token, second.refresh_token):
        with pytest.raises(SessionEndedError):
            await refresh(service, clock, token)
    assert announcements.ended == [first.session.id]
    reuse = [
        row
        for row in await rows_of(database, tables.audit_entries)
        if row.action == "refresh_reuse"
    ]
    assert [row.session_id for row in reuse] == [first.session.id]


async def test_refresh_when_grandparent_within_the_grace_then_session_ends(
    service: AuthServices, clock: FixedClock
) -> None:
    await register(service, clock)
    first = await log_in(service, clock)
    second = await refresh(service, clock, first.refresh_token)
    await refresh(service, clock, second.refresh_token)
    with pytest.raises(RefreshTokenReusedError):
        await refresh(service, clock, first.refresh_token)


async def test_refresh_when_leaf_from_another_device_then_refused_and_session_lives(
    service: AuthServices, clock: FixedClock, database: Database
) -> None:
    await register(service, clock)
    first = await log_in(service, clock)
    with pytest.raises(RefreshTokenInvalidError):
        await refresh(service, clock, first.refresh_token, a_device("thief"))
    await refresh(service, clock, first.refresh_token)
    actions = [row.action for row in await rows_of(database, tables.audit_entries)]
    assert actions.count("refresh_other_device") == 1


async def test_refresh_when_parent_from_another_device_within_the_grace_then_session_ends(
    service: AuthServices, clock: FixedClock
) -> None:
    await register(service, clock)
    first = await log_in(service, clock)
    await refresh(service, clock, first.refresh_token)
    with pytest.raises(RefreshTokenReusedError):
        await refresh(service, clock, first.refresh_token, a_device("thief"))


async def test_refresh_when_idle_or_past_the_end_then_expired(
    make_service: MakeService, clock: FixedClock
) -> None:
    service = make_service()
    await register(service, clock)
    idle = await log_in(service, clock)
    clock.advance(7 * 86400)
    with pytest.raises(RefreshTokenExpiredError):
        await refresh(service, clock, idle.refresh_token)
    latest = await log_in(service, clock)
    for _ in range(5):
        clock.advance(6 * 86400)
        if clock.now() >= latest.session.expires_at:
            break
        latest = await refresh(service, clock, latest.refresh_token)
        assert latest.session.idle_expires_at <= latest.session.expires_at
    with pytest.raises(RefreshTokenExpiredError):
        await refresh(service, clock, latest.refresh_token)


@pytest.mark.parametrize(
    "token", ["", "rt_", "x" * 46, "rt_" + "A" * 43, "rt_" + "A" * 44, "rt_" + "\uff21" * 43]
)
async def test_refresh_when_not_a_token_of_ours_then_invalid(
    service: AuthServices, clock: FixedClock, token: str
) -> None:
    with pytest.raises(RefreshTokenInvalidError):
        await refresh(service, clock, token)


async def test_refresh_when_fifty_at_once_then_one_child_and_one_live_leaf(
    service: AuthServices, clock: FixedClock, database: Database
) -> None:
    await register(service, clock)
    first = await log_in(service, clock)
    found = await asyncio.gather(*(refresh(service, clock, first.refresh_token) for _ in range(50)))
    assert len({each.refresh_token for each in found}) == 1
    [session] = await rows_of(database, tables.sessions)
    [spent] = await rows_of(database, tables.spent_refresh_tokens)
    assert session.revoked_at_us is None
    assert spent.token_hash != session.leaf_hash
    await refresh(service, clock, found[0].refresh_token)


async def test_refresh_when_two_processes_at_once_then_still_one_child(
    make_service: MakeService, clock: FixedClock, database: Database
) -> None:
    one, other = make_service(), make_service()
    await register(one, clock)
    token = (await log_in(one, clock)).refresh_token
    for _ in range(5):
        found = await asyncio.gather(
            *(refresh(each, clock, token) for each in (one, other, one, other))
        )
        [token] = {each.refresh_token for each in found}
    assert len(await rows_of(database, tables.spent_refresh_tokens)) == 5


async def test_log_out_when_racing_refreshes_then_no_token_lives_on(
    service: AuthServices, clock: FixedClock
) -> None:
    user = await register(service, clock)
    first = await log_in(service, clock)

    async def log_out() -> None:
        await service.sessions.log_out(
            refresh_token=None,
            caller=Caller("", user.id, first.session.id),
            now=clock.now(),
        )

    outcomes = await asyncio.gather(
        *(refresh(service, clock, first.refresh_token) for _ in range(5)),
        log_out(),
        *(refresh(service, clock, first.refresh_token) for _ in range(5)),
        return_exceptions=True,
    )
    for each in outcomes:
        assert each is None or isinstance(each, SignIn | SessionEndedError)
        if isinstance(each, SignIn):
            with pytest.raises(SessionEndedError):
                await refresh(service, clock, each.refresh_token)


async def test_log_out_when_by_refresh_token_then_session_ends_and_repeat_is_harmless(
    service: AuthServices, clock: FixedClock, announcements: Announcements
) -> None:
    await register(service, clock)
    first = await log_in(service, clock)
    for token in (first.refresh_token, first.refresh_token, "rt_" + "A" * 43, "nonsense"):
        await service.sessions.log_out(refresh_token=token, caller=Caller(""), now=clock.now())
    assert announcements.ended == [first.session.id]
    with pytest.raises(SessionEndedError):
        await refresh(service, clock, first.refresh_token)


async def test_log_out_everywhere_then_every_session_of_this_user_alone_ends(
    service: AuthServices, clock: FixedClock, announcements: Announcements
) -> None:
    ann = await register(service, clock)
    await register(service, clock, "bob@example.com")
    mine = [await log_in(service, clock, device=a_device(name)) for name in ("phone", "laptop")]
    other = await log_in(service, clock, email="bob@example.com")
    count = await service.sessions.log_out_everywhere(
        user_id=ann.id, caller=Caller("", ann.id, mine[0].session.id), now=clock.now()
    )
    assert count == 2
    assert sorted(announcements.ended) == sorted(each.session.id for each in mine)
    await refresh(service, clock, other.refresh_token)
    assert await service.sessions.list_sessions(user_id=ann.id, now=clock.now()) == []


async def test_end_session_when_of_another_user_then_not_found_and_nothing_ends(
    service: AuthServices, clock: FixedClock, announcements: Announcements
) -> None:
    await register(service, clock)
    bob = await register(service, clock, "bob@example.com")
    mine = await log_in(service, clock)
    for session_id in (mine.session.id, "ses_unknown"):
        with pytest.raises(SessionNotFoundError) as refused:
            await service.sessions.end_session(
                user_id=bob.id, session_id=session_id, caller=Caller(""), now=clock.now()
            )
        assert session_id not in refused.value.message
    assert announcements.ended == []
    await refresh(service, clock, mine.refresh_token)


async def test_roles_when_changed_then_sessions_end_and_new_tokens_tell_them(
    service: AuthServices, clock: FixedClock, signer: PlainSigner, announcements: Announcements
) -> None:
    await register(service, clock)
    first = await log_in(service, clock)
    await service.users.set_roles(
        email="ann@example.com", roles=frozenset({Role.READ_ONLY}), now=clock.now()
    )
    assert announcements.ended == [first.session.id]
    await log_in(service, clock)
    assert signer.claims[-1]["roles"] == ["read_only"]
    assert all(scope.endswith(":read") for scope in signer.claims[-1]["scopes"])


async def test_update_profile_when_some_fields_then_the_others_stay(
    service: AuthServices, clock: FixedClock
) -> None:
    user = await register(service, clock)
    changed = await service.users.update_profile(
        user_id=user.id,
        changes={"picture": "https://example.com/a.png"},
        caller=Caller(""),
        now=clock.now(),
    )
    assert changed == replace(user, picture="https://example.com/a.png")
    assert await service.users.get_user(user_id=user.id) == changed


async def test_revocations_when_asked_since_then_only_what_may_be_new(
    service: AuthServices, clock: FixedClock
) -> None:
    ann = await register(service, clock)
    first = await log_in(service, clock)
    await service.sessions.end_session(
        user_id=ann.id, session_id=first.session.id, caller=Caller(""), now=clock.now()
    )
    notice = await service.sessions.list_revocations(since_us=0, now=clock.now())
    assert [each.session_id for each in notice.revoked] == [first.session.id]
    assert notice.revoked[0].until_seconds > clock.now().timestamp() + 600
    assert (
        await service.sessions.get_revocation_beat(now=clock.now())
    ).latest_at_us == notice.latest_at_us
    clock.advance(31)
    later = await service.sessions.list_revocations(since_us=0, now=clock.now())
    again = await service.sessions.list_revocations(since_us=later.as_of_us, now=clock.now())
    assert (len(later.revoked), len(again.revoked)) == (1, 0)
    clock.advance(660)
    assert (await service.sessions.list_revocations(since_us=0, now=clock.now())).revoked == ()


async def test_issue_token_then_its_session_can_be_ended(
    service: AuthServices, clock: FixedClock, signer: PlainSigner
) -> None:
    user = await register(service, clock)
    await service.users.issue_token(
        email="ann@example.com", lifetime=timedelta(minutes=10), now=clock.now()
    )
    [session] = await service.sessions.list_sessions(user_id=user.id, now=clock.now())
    assert signer.claims[-1]["sid"] == session.id
    assert signer.claims[-1]["exp"] == int(clock.now().timestamp()) + 600


async def test_remove_dead_then_long_ended_sessions_go_with_their_tokens(
    service: AuthServices, clock: FixedClock, database: Database
) -> None:
    await register(service, clock)
    first = await log_in(service, clock)
    await refresh(service, clock, first.refresh_token)
    assert await service.sessions.remove_dead(now=clock.now()) == 0
    clock.advance(38 * 86400)
    live = await log_in(service, clock)
    assert await service.sessions.remove_dead(now=clock.now()) == 1
    assert await rows_of(database, tables.spent_refresh_tokens) == []
    assert [row.id for row in await rows_of(database, tables.sessions)] == [live.session.id]


@pytest.mark.parametrize(
    "change", [tables.audit_entries.update().values(outcome="done"), tables.audit_entries.delete()]
)
async def test_audit_when_changed_then_the_database_refuses(
    service: AuthServices, clock: FixedClock, database: Database, change: sa.Executable
) -> None:
    await register(service, clock)
    with pytest.raises(DBAPIError, match="append-only"):
        async with database.transaction() as transaction:
            await transaction.execute(change)


async def test_stored_rows_never_hold_a_secret(
    service: AuthServices, clock: FixedClock, database: Database
) -> None:
    await register(service, clock)
    first = await log_in(service, clock)
    second = await refresh(service, clock, first.refresh_token)
    stored = ""
    for table in tables.metadata.sorted_tables:
        stored += repr(await rows_of(database, table))
    for token in (first.refresh_token, second.refresh_token):
        assert token not in stored
        assert token.removeprefix("rt_") not in stored
