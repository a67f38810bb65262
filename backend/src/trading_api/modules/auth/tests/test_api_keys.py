"""API keys and share tokens, on both databases."""

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from trading_api.contracts.auth import ApiKeyAnswer, ApiKeyQuestion
from trading_api.kernel.clock import to_us
from trading_api.kernel.credentials import Credential, parse_credential
from trading_api.modules.auth.domain import Role, User
from trading_api.modules.auth.domain.api_keys import KEYS_MAX, ApiKey
from trading_api.modules.auth.domain.audit import Caller
from trading_api.modules.auth.errors import (
    ApiKeyLimitError,
    ApiKeyNotFoundError,
    ApiKeyRefusedError,
    ApiKeyScopeError,
    PasswordWrongError,
    SessionEndedError,
    UserDisabledError,
)
from trading_api.modules.auth.repository.checks import check_auth
from trading_api.modules.auth.repository.key_checks import check_keys
from trading_api.modules.auth.service import AuthServices, SignIn
from trading_api.modules.auth.tables import api_keys, users
from trading_api.modules.auth.tests.builders import (
    PASSWORD,
    Announcements,
    Mails,
    PlainHasher,
    a_caller,
    a_device,
    an_email,
)
from trading_api.runtime.database import Database
from trading_api.testkit.clocks import FixedClock

READ = frozenset({"broker:read"})


@pytest.fixture
async def user(service: AuthServices, clock: FixedClock) -> User:
    return await service.registration.register(
        email=an_email(), password=PASSWORD, full_name="Ann", caller=a_caller(), now=clock.now()
    )


async def make(
    service: AuthServices,
    clock: FixedClock,
    user: User,
    scopes: frozenset[str] = READ,
    **changes: object,
) -> tuple[str, ApiKey]:
    options: dict[str, object] = {
        "name": "bot",
        "expires_at": None,
        "ip_allow": (),
        "password": PASSWORD,
        "caller": Caller("192.0.2.1", user.id),
    }
    return await service.api_keys.create_key(
        scopes=scopes,
        device=a_device(),
        now=clock.now(),
        **{**options, **changes},  # type: ignore[arg-type]
    )


async def resolve(service: AuthServices, clock: FixedClock, text: str) -> ApiKeyAnswer:
    credential = parse_credential(text)
    assert credential is not None
    question = ApiKeyQuestion(key_id=credential.id, secret_hash=credential.secret_hash)
    return await service.api_keys.resolve(question=question, now=clock.now())


async def test_create_then_only_its_id_and_a_hash_are_stored(
    service: AuthServices, database: Database, clock: FixedClock, user: User
) -> None:
    text, key = await make(service, clock, user)
    async with database.snapshot() as transaction:
        rows = await transaction.all(sa.select(api_keys))
    stored = "|".join(str(value) for row in rows for value in row)
    credential = parse_credential(text)
    assert credential == Credential(key.id, "live", rows[0].secret_hash)
    assert text.split("_")[3] not in stored
    assert text.split("_")[3][:43] not in stored


async def test_resolve_then_the_owner_and_no_more_than_was_given(
    service: AuthServices, clock: FixedClock, user: User
) -> None:
    end = clock.now() + timedelta(hours=1)
    text, key = await make(service, clock, user, expires_at=end, ip_allow=("203.0.113.0/24",))
    assert await resolve(service, clock, text) == ApiKeyAnswer(
        key_id=key.id,
        user_id=user.id,
        roles=("user",),
        scopes=("broker:read",),
        expires_at_seconds=int(end.timestamp()),
        ip_allow=("203.0.113.0/24",),
    )
    listed = await service.api_keys.list_keys(user_id=user.id, kind="live", now=clock.now())
    assert listed == [replace(key, last_used_at=clock.now())]
    clock.advance(3600)
    with pytest.raises(ApiKeyNotFoundError):
        await resolve(service, clock, text)
    assert await service.api_keys.list_keys(user_id=user.id, kind="live", now=clock.now()) == []


async def test_resolve_when_the_secret_is_another_then_not_found(
    service: AuthServices, clock: FixedClock, user: User
) -> None:
    _, key = await make(service, clock, user)
    for key_id, secret_hash in ((key.id, "0" * 64), ("key_00000000", key.secret_hash)):
        with pytest.raises(ApiKeyNotFoundError):
            await service.api_keys.resolve(
                question=ApiKeyQuestion(key_id=key_id, secret_hash=secret_hash), now=clock.now()
            )


@pytest.mark.parametrize(
    "scopes", [{"wallet:manage"}, {"auth:manage"}, {"broker:read", "no:such"}, set()]
)
async def test_create_when_a_scope_is_not_the_owner_s_to_give_then_refused(
    service: AuthServices, clock: FixedClock, user: User, scopes: set[str]
) -> None:
    with pytest.raises(ApiKeyScopeError):
        await make(service, clock, user, frozenset(scopes))


async def test_create_when_it_would_have_ended_or_there_are_too_many_then_refused(
    service: AuthServices, clock: FixedClock, user: User
) -> None:
    with pytest.raises(ApiKeyRefusedError):
        await make(service, clock, user, expires_at=clock.now())
    for _ in range(KEYS_MAX):
        await make(service, clock, user)
    with pytest.raises(ApiKeyLimitError):
        await make(service, clock, user)


async def test_revoke_then_refused_announced_and_listed_for_processes_that_missed_it(
    service: AuthServices, clock: FixedClock, user: User, announcements: Announcements
) -> None:
    text, key = await make(service, clock, user)
    with pytest.raises(ApiKeyNotFoundError):
        await revoke(service, clock, "usr_other", key.id)
    assert announcements.ended == []
    await revoke(service, clock, user.id, key.id)
    assert announcements.ended == [key.id]
    with pytest.raises(ApiKeyNotFoundError):
        await resolve(service, clock, text)
    with pytest.raises(ApiKeyNotFoundError):
        await revoke(service, clock, user.id, key.id)
    notice = await service.sessions.list_revocations(since_us=0, now=clock.now())
    assert [each.session_id for each in notice.revoked] == [key.id]
    beat = await service.sessions.get_revocation_beat(now=clock.now())
    assert beat.latest_at_us == notice.latest_at_us > 0


async def test_disable_then_every_key_is_revoked_for_good(
    service: AuthServices, clock: FixedClock, user: User, announcements: Announcements
) -> None:
    text, key = await make(service, clock, user)
    await service.users.set_user_active(email="ann@example.com", is_active=False, now=clock.now())
    assert key.id in announcements.ended
    await service.users.set_user_active(email="ann@example.com", is_active=True, now=clock.now())
    with pytest.raises(ApiKeyNotFoundError):
        await resolve(service, clock, text)


async def test_set_roles_then_keys_that_may_more_than_their_owner_are_revoked(
    service: AuthServices, clock: FixedClock, user: User, announcements: Announcements
) -> None:
    reading, _ = await make(service, clock, user)
    trading, _ = await make(service, clock, user, frozenset({"broker:trade"}))
    await service.users.set_roles(
        email="ann@example.com", roles=frozenset({Role.READ_ONLY}), now=clock.now()
    )
    assert (await resolve(service, clock, reading)).roles == ("read_only",)
    with pytest.raises(ApiKeyNotFoundError):
        await resolve(service, clock, trading)


@pytest.mark.parametrize("scope", ["broker:trade", "wallet:withdraw", "auth:manage"])
async def test_create_when_it_may_act_then_the_password_is_wanted(
    service: AuthServices, clock: FixedClock, user: User, hasher: PlainHasher, scope: str
) -> None:
    scopes = READ | {scope}
    for password in (None, "something else"):
        with pytest.raises(PasswordWrongError):
            await make(service, clock, user, scopes, password=password)

    async def change_password() -> None:
        hasher.meanwhile = None
        await service.passwords.set_by_operator(
            email="ann@example.com", new="another battery staple", now=clock.now()
        )

    hasher.meanwhile = change_password
    with pytest.raises(PasswordWrongError):
        await make(service, clock, user, scopes)
    assert await service.api_keys.list_keys(user_id=user.id, kind="live", now=clock.now()) == []


async def test_create_then_the_owner_is_told_by_mail(
    service: AuthServices, clock: FixedClock, user: User, mails: Mails
) -> None:
    await make(service, clock, user, password=None)
    await make(service, clock, user, READ | {"broker:trade"}, name="trader")
    await share(service, clock, user)
    await service.mail.deliver_due(now=clock.now())
    texts = sorted(each.text for each in mails.sent)
    assert "API key bot may act for you from now on: broker:read (" in texts[0]
    assert "API key trader may act for you from now on: broker:read, broker:trade (" in texts[1]
    assert "share token investor sees the trading account acc_1" in texts[2]


async def test_create_when_switched_off_or_signed_out_then_refused(
    service: AuthServices, clock: FixedClock, user: User
) -> None:
    """An access token is good for seconds after its session ended; a key would be for ever."""
    found = await service.sign_in.log_in(
        email="ann@example.com", password=PASSWORD, device=a_device(), now=clock.now()
    )
    assert isinstance(found, SignIn)
    caller = Caller("192.0.2.1", user.id, found.session.id)
    await make(service, clock, user, caller=caller)
    await service.sessions.end_session(
        user_id=user.id, session_id=found.session.id, caller=caller, now=clock.now()
    )
    with pytest.raises(SessionEndedError):
        await make(service, clock, user, caller=caller)
    await service.users.set_user_active(email="ann@example.com", is_active=False, now=clock.now())
    for scopes in (READ, READ | {"broker:trade"}):
        with pytest.raises(UserDisabledError):
            await make(service, clock, user, scopes)
    with pytest.raises(UserDisabledError):
        await share(service, clock, user)


async def share(service: AuthServices, clock: FixedClock, user: User) -> tuple[str, ApiKey]:
    return await service.api_keys.create_share_token(
        account_id="acc_1",
        name="investor",
        expires_at=None,
        caller=Caller("192.0.2.1", user.id),
        device=a_device(),
        now=clock.now(),
    )


async def test_share_token_then_it_reads_one_account_and_has_no_role(
    service: AuthServices, clock: FixedClock, user: User
) -> None:
    text, token = await share(service, clock, user)
    assert text.startswith("tp_share_")
    assert await resolve(service, clock, text) == ApiKeyAnswer(
        key_id=token.id,
        user_id=user.id,
        roles=(),
        scopes=("broker:read",),
        account_id="acc_1",
    )
    with pytest.raises(ApiKeyNotFoundError):
        await revoke(service, clock, user.id, token.id)
    await service.api_keys.revoke_key(
        user_id=user.id, key_id=token.id, kind="share", caller=a_caller(), now=clock.now()
    )
    with pytest.raises(ApiKeyNotFoundError):
        await resolve(service, clock, text)


async def revoke(service: AuthServices, clock: FixedClock, user_id: str, key_id: str) -> None:
    await service.api_keys.revoke_key(
        user_id=user_id, key_id=key_id, kind="live", caller=a_caller(), now=clock.now()
    )


@pytest.mark.parametrize(
    "planted",
    [
        {"scopes": "auth:manage,broker:read"},
        {"scopes": "wallet:manage"},
        {"id": "shr_AAAAAAAA"},
        {"secret_hash": "x" * 64},
        {"is_active": False},
        {"roles": "read_only", "scopes": "broker:trade"},
    ],
)
async def test_verify_when_a_key_was_planted_then_found(
    service: AuthServices,
    database: Database,
    clock: FixedClock,
    user: User,
    planted: dict[str, object],
) -> None:
    await make(service, clock, user)
    async with database.snapshot() as transaction:
        assert await check_keys(transaction, now_us=to_us(clock.now())) == []
    of_users = {name: value for name, value in planted.items() if name in users.c}
    of_users.pop("id", None)
    async with database.transaction() as transaction:
        if of_users:
            await transaction.execute(users.update().values(**of_users))
        of_keys = {name: value for name, value in planted.items() if name not in of_users}
        if of_keys:
            await transaction.execute(api_keys.update().values(**of_keys))
    async with database.snapshot() as transaction:
        found = await check_auth(transaction, now_us=to_us(clock.now()))
    assert "T12" in {each.id for each in found}
