"""Passkeys, with an authenticator in software (a browser's own: tests/browser)."""

import asyncio
from typing import Any

import pyotp
import pytest
import sqlalchemy as sa

from trading_api.modules.auth.adapters.webauthn_passkeys import WebauthnPasskeys
from trading_api.modules.auth.domain.audit import Caller
from trading_api.modules.auth.domain.passkeys import PER_USER_MAX, Passkey, is_copy
from trading_api.modules.auth.errors import (
    ChallengeInvalidError,
    PasskeyInvalidError,
    PasskeyNotFoundError,
    PasskeyTakenError,
    PasswordWrongError,
    SessionEndedError,
    UserDisabledError,
)
from trading_api.modules.auth.service import AuthServices, SignIn
from trading_api.modules.auth.tables import audit_entries, users
from trading_api.modules.auth.tests.authenticators import PRESENT, Authenticator
from trading_api.modules.auth.tests.builders import PASSWORD, Mails, a_device, an_email
from trading_api.runtime.database import Database
from trading_api.testkit.clocks import FixedClock


@pytest.fixture
async def ann(service: AuthServices, clock: FixedClock) -> Caller:
    return await sign_up(service, clock, "ann@example.com")


async def sign_up(service: AuthServices, clock: FixedClock, address: str) -> Caller:
    user = await service.registration.register(
        email=an_email(address), password=PASSWORD, full_name="", caller=Caller(""), now=clock.now()
    )
    found = await service.sign_in.log_in(
        email=address, password=PASSWORD, device=a_device(), now=clock.now()
    )
    assert isinstance(found, SignIn)
    return Caller("192.0.2.1", user.id, found.session.id)


async def offer(service: AuthServices, clock: FixedClock, caller: Caller) -> Any:
    return await service.passkeys.offer(
        caller=caller, password=PASSWORD, device=a_device(), now=clock.now()
    )


async def register(
    service: AuthServices, clock: FixedClock, caller: Caller, authenticator: Authenticator
) -> Passkey:
    offered = await offer(service, clock, caller)
    return await add(service, clock, caller, authenticator.create(offered))


async def add(
    service: AuthServices, clock: FixedClock, caller: Caller, credential: dict[str, Any]
) -> Passkey:
    return await service.passkeys.register(
        caller=caller,
        name="my phone",
        credential=credential,
        device=a_device(),
        now=clock.now(),
    )


async def sign_in(service: AuthServices, clock: FixedClock, credential: dict[str, Any]) -> SignIn:
    return await service.passkeys.sign_in(
        credential=credential, device=a_device("phone"), now=clock.now()
    )


async def outcomes(database: Database) -> list[str]:
    async with database.snapshot() as transaction:
        rows = await transaction.all(
            sa.select(audit_entries)
            .where(audit_entries.c.action == "login")
            .order_by(audit_entries.c.sequence)
        )
    return [row.outcome for row in rows]


async def test_passkey_when_registered_then_signs_in_and_is_listed(
    service: AuthServices, clock: FixedClock, ann: Caller
) -> None:
    phone = Authenticator()
    passkey = await register(service, clock, ann, phone)
    options = dict(await service.passkeys.ask(now=clock.now()))
    assert options["rpId"] == "localhost"
    assert options["userVerification"] == "required"
    found = await sign_in(service, clock, phone.get(options))
    assert found.user.id == ann.user_id
    [listed] = await service.passkeys.list_passkeys(user_id=str(ann.user_id))
    assert (listed.id, listed.name, listed.last_used_at) == (passkey.id, "my phone", clock.now())
    assert listed.sign_count == 1


async def test_answer_when_replayed_or_late_or_raced_then_refused(
    service: AuthServices, clock: FixedClock, ann: Caller
) -> None:
    phone = Authenticator(counts=False)
    await register(service, clock, ann, phone)
    answer = phone.get(dict(await service.passkeys.ask(now=clock.now())))
    raced = await asyncio.gather(
        *(sign_in(service, clock, answer) for _ in range(4)), return_exceptions=True
    )
    assert sum(isinstance(each, SignIn) for each in raced) == 1
    assert sum(isinstance(each, ChallengeInvalidError) for each in raced) == 3
    late = phone.get(dict(await service.passkeys.ask(now=clock.now())))
    clock.advance(300)
    with pytest.raises(ChallengeInvalidError):
        await sign_in(service, clock, late)
    with pytest.raises(ChallengeInvalidError):
        await sign_in(service, clock, phone.get({"challenge": "b3Vycw"}))


async def test_answer_when_not_by_the_rules_then_refused_and_audited(
    service: AuthServices, clock: FixedClock, ann: Caller, database: Database
) -> None:
    phone = Authenticator()
    await register(service, clock, ann, phone)

    async def refused(authenticator: Authenticator, **changes: Any) -> None:
        answer = authenticator.get(dict(await service.passkeys.ask(now=clock.now())))
        answer["response"] |= changes
        with pytest.raises(PasskeyInvalidError):
            await sign_in(service, clock, answer)

    elsewhere, thief, careless = Authenticator("http://evil.example"), Authenticator(), phone
    for each in (elsewhere, thief):
        each.credential_id = phone.credential_id
    elsewhere.key = phone.key
    await refused(elsewhere)
    await refused(thief)
    await refused(Authenticator())
    await refused(phone, signature="AAAA")
    careless.flags = PRESENT
    await refused(careless)
    assert await outcomes(database) == [
        "done",
        "passkey_wrong",
        "passkey_wrong",
        "passkey_unknown",
        "passkey_wrong",
        "passkey_wrong",
    ]


async def test_answer_when_the_passkey_was_copied_then_refused_and_audited(
    service: AuthServices, clock: FixedClock, ann: Caller, database: Database
) -> None:
    phone = Authenticator()
    await register(service, clock, ann, phone)
    for _ in range(3):
        await sign_in(service, clock, phone.get(dict(await service.passkeys.ask(now=clock.now()))))
    phone.signatures = 1
    with pytest.raises(PasskeyInvalidError):
        await sign_in(service, clock, phone.get(dict(await service.passkeys.ask(now=clock.now()))))
    assert (await outcomes(database))[-1] == "passkey_copied"


async def test_register_when_not_the_offers_user_or_twice_then_refused(
    service: AuthServices, clock: FixedClock, ann: Caller
) -> None:
    bob = await sign_up(service, clock, "bob@example.com")
    phone = Authenticator()
    made = phone.create(await offer(service, clock, ann))

    async def store(caller: Caller, credential: dict[str, Any]) -> Passkey:
        return await service.passkeys.register(
            caller=caller, name="", credential=credential, device=a_device(), now=clock.now()
        )

    with pytest.raises(ChallengeInvalidError):
        await store(bob, made)
    await store(ann, made)
    with pytest.raises(ChallengeInvalidError):
        await store(ann, made)
    with pytest.raises(PasskeyTakenError):
        await store(bob, phone.create(await offer(service, clock, bob)))
    with pytest.raises(PasskeyInvalidError):
        await store(
            bob, Authenticator("http://evil.example").create(await offer(service, clock, bob))
        )
    with pytest.raises(PasswordWrongError):
        await service.passkeys.offer(
            caller=ann, password="something else", device=a_device(), now=clock.now()
        )


async def test_register_when_there_are_many_then_refused(
    service: AuthServices, clock: FixedClock, ann: Caller
) -> None:
    for _ in range(PER_USER_MAX):
        await register(service, clock, ann, Authenticator())
    with pytest.raises(PasskeyTakenError):
        await offer(service, clock, ann)


async def test_remove_then_it_signs_nobody_in_and_others_cannot(
    service: AuthServices, clock: FixedClock, ann: Caller
) -> None:
    phone = Authenticator()
    passkey = await register(service, clock, ann, phone)
    bob = await sign_up(service, clock, "bob@example.com")
    for caller in (bob, Caller("", "usr_unknown")):
        with pytest.raises(PasskeyNotFoundError):
            await service.passkeys.remove(
                caller=caller, passkey_id=passkey.id, device=a_device(), now=clock.now()
            )
    await service.passkeys.remove(
        caller=ann, passkey_id=passkey.id, device=a_device(), now=clock.now()
    )
    with pytest.raises(PasskeyInvalidError):
        await sign_in(service, clock, phone.get(dict(await service.passkeys.ask(now=clock.now()))))


async def test_sign_in_when_user_is_disabled_then_refused(
    service: AuthServices, clock: FixedClock, ann: Caller
) -> None:
    phone = Authenticator()
    await register(service, clock, ann, phone)
    offered = await offer(service, clock, ann)
    await service.users.set_user_active(email="ann@example.com", is_active=False, now=clock.now())
    with pytest.raises(UserDisabledError):
        await sign_in(service, clock, phone.get(dict(await service.passkeys.ask(now=clock.now()))))
    with pytest.raises(UserDisabledError):
        await offer(service, clock, ann)
    with pytest.raises(UserDisabledError):
        await add(service, clock, ann, Authenticator().create(offered))
    await service.users.set_user_active(email="ann@example.com", is_active=True, now=clock.now())
    with pytest.raises(SessionEndedError):
        await add(service, clock, ann, Authenticator().create(offered))


@pytest.mark.parametrize("is_confirmed", [True, False])
async def test_reset_when_it_confirms_the_address_then_passkeys_and_second_factor_go(
    service: AuthServices,
    clock: FixedClock,
    ann: Caller,
    mails: Mails,
    database: Database,
    is_confirmed: bool,
) -> None:
    """Who registered with a stranger's address keeps no way in once the owner comes."""
    if is_confirmed:
        async with database.transaction() as transaction:
            await transaction.execute(users.update().values(email_verified_at_us=1))
    phone = Authenticator()
    await register(service, clock, ann, phone)
    offered = await offer(service, clock, ann)
    secret = (await service.second_factor.set_up(caller=ann)).secret
    code = pyotp.TOTP(secret).at(clock.now())
    await service.second_factor.enable(
        caller=ann, code=code, password=PASSWORD, device=a_device(), now=clock.now()
    )
    await service.passwords.ask_for_reset(email=an_email(), now=clock.now())
    await service.mail.deliver_due(now=clock.now())
    await service.passwords.reset(
        token=mails.token(), new="another battery staple", device=a_device(), now=clock.now()
    )
    answer = phone.get(dict(await service.passkeys.ask(now=clock.now())))
    status = await service.second_factor.get_status(user_id=ann.user_id or "")
    assert (status.enabled_at is not None) == is_confirmed
    if is_confirmed:
        assert (await sign_in(service, clock, answer)).user.id == ann.user_id
    else:
        with pytest.raises(PasskeyInvalidError):
            await sign_in(service, clock, answer)
    with pytest.raises(ChallengeInvalidError):
        await add(service, clock, ann, Authenticator().create(offered))


@pytest.mark.parametrize(
    "credential", [{}, {"response": 1}, {"response": {"clientDataJSON": "###"}}, {"id": 7}]
)
def test_answer_when_garbage_then_no_challenge(credential: dict[str, Any]) -> None:
    checker = WebauthnPasskeys(site="http://localhost", name="", origins=(), any_port=True)
    assert checker.challenge_of(credential) == ""
    with pytest.raises(PasskeyInvalidError):
        checker.check_registration(credential, challenge="tk")


def test_origins_then_only_below_the_own_host() -> None:
    checker = WebauthnPasskeys(
        site="https://trading.test/",
        name="",
        origins=["https://app.trading.test", "https://eviltrading.test", "https://evil.test"],
        any_port=False,
    )
    assert checker._origins == ["https://trading.test", "https://app.trading.test"]


@pytest.mark.parametrize(
    ("stored", "new", "copied"),
    [(0, 0, False), (0, 1, False), (3, 4, False), (3, 3, True), (3, 0, True), (1, 0, True)],
)
def test_copy_is_betrayed_by_its_counter(stored: int, new: int, *, copied: bool) -> None:
    assert is_copy(stored_count=stored, new_count=new) is copied
