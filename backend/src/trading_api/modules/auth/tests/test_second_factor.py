"""The second factor: codes once, recovery codes once, and no token before either."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pyotp
import pytest
import sqlalchemy as sa

from trading_api.modules.auth.adapters.sealer import KeySealer
from trading_api.modules.auth.domain import User
from trading_api.modules.auth.domain.audit import Caller
from trading_api.modules.auth.domain.mail import MailKind
from trading_api.modules.auth.domain.passwords import PasswordRules
from trading_api.modules.auth.domain.second_factor import match_totp
from trading_api.modules.auth.errors import (
    ChallengeInvalidError,
    CodeWrongError,
    LoginThrottledError,
    PasswordTooShortAloneError,
    PasswordWrongError,
    SealBrokenError,
    SecondFactorInvalidError,
    SecondFactorOffError,
    SecondFactorOnError,
    UserDisabledError,
)
from trading_api.modules.auth.service import AuthServices, Challenge, SignIn
from trading_api.modules.auth.tables import audit_entries, mails, second_factors, sessions
from trading_api.modules.auth.tests.builders import COMMON, PASSWORD, a_device, an_email
from trading_api.modules.auth.tests.conftest import MakeService
from trading_api.runtime.database import Database
from trading_api.testkit.clocks import FixedClock

HALF_MINUTE = 30


class Ann:
    """A user with an authenticator app."""

    def __init__(self, service: AuthServices, clock: FixedClock, user: User, first: SignIn) -> None:
        self.service, self.clock, self.user = service, clock, user
        self.caller = Caller("192.0.2.1", user.id, first.session.id)
        self.recovery_codes: list[str] = []
        self.secret = ""

    @classmethod
    async def sign_up(cls, service: AuthServices, clock: FixedClock) -> "Ann":
        user = await service.registration.register(
            email=an_email(), password=PASSWORD, full_name="", caller=Caller(""), now=clock.now()
        )
        first = await service.sign_in.log_in(
            email="ann@example.com", password=PASSWORD, device=a_device(), now=clock.now()
        )
        assert isinstance(first, SignIn)
        return cls(service, clock, user, first)

    def code(self, *, steps: int = 0) -> str:
        """Return what the app shows, or showed some half minutes ago."""
        return pyotp.TOTP(self.secret).at(self.clock.now() + timedelta(seconds=steps * HALF_MINUTE))

    async def enable(self, **changes: Any) -> None:
        self.secret = (await self.service.second_factor.set_up(caller=self.caller)).secret
        self.recovery_codes = await self.service.second_factor.enable(
            **{
                "caller": self.caller,
                "code": self.code(),
                "password": PASSWORD,
                "device": a_device(),
                "now": self.clock.now(),
                **changes,
            }
        )
        self.clock.advance(HALF_MINUTE)

    async def disable(self, code: str, password: str = PASSWORD) -> None:
        await self.service.second_factor.disable(
            caller=self.caller,
            code=code,
            password=password,
            device=a_device(),
            now=self.clock.now(),
        )

    async def log_in(self, code: str | None = None, device: str = "laptop") -> SignIn | Challenge:
        return await self.service.sign_in.log_in(
            email="ann@example.com",
            password=PASSWORD,
            device=a_device(device),
            now=self.clock.now(),
            code=code,
        )

    async def answer(self, challenge: str, code: str, device: str = "laptop") -> SignIn:
        return await self.service.sign_in.answer_challenge(
            challenge=challenge, code=code, device=a_device(device), now=self.clock.now()
        )


@pytest.fixture
async def ann(service: AuthServices, clock: FixedClock) -> Ann:
    return await Ann.sign_up(service, clock)


async def rows_of(database: Database, table: sa.Table) -> list[Any]:
    async with database.snapshot() as transaction:
        return list(await transaction.all(sa.select(table)))


async def asked(ann: Ann, device: str = "laptop") -> str:
    found = await ann.log_in(device=device)
    assert isinstance(found, Challenge)
    return found.token


def test_match_when_rfc_6238_vector_then_the_code_is_found() -> None:
    # RFC 6238, appendix B, SHA-1, cut to six digits.
    secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    at = datetime.fromtimestamp(59, UTC)
    assert match_totp(secret, "287082", now=at, last_step=None) == 1
    assert match_totp(secret, "287082", now=at, last_step=1) is None
    assert match_totp(secret, "287082", now=at + timedelta(seconds=30), last_step=None) == 1
    assert match_totp(secret, "287082", now=at + timedelta(seconds=60), last_step=None) is None


def test_seal_when_of_another_subject_or_key_then_stays_shut() -> None:
    sealer = KeySealer(b"one key")
    sealed = sealer.seal("secret", about="totp:a")
    assert sealer.open(sealed, about="totp:a") == "secret"
    for other, about in ((sealer, "totp:b"), (KeySealer(b"another key"), "totp:a")):
        with pytest.raises(SealBrokenError):
            other.open(sealed, about=about)
    with pytest.raises(SealBrokenError):
        sealer.open("v1.garbage", about="totp:a")


async def test_set_up_then_changes_nothing_and_says_the_same_in_this_session_alone(
    ann: Ann, database: Database
) -> None:
    first = await ann.service.second_factor.set_up(caller=ann.caller)
    again = await ann.service.second_factor.set_up(caller=ann.caller)
    elsewhere = await ann.service.second_factor.set_up(
        caller=Caller("192.0.2.1", ann.user.id, "ses_other")
    )
    assert first == again
    assert first.secret != elsewhere.secret
    assert first.uri.startswith("otpauth://totp/Trading:ann%40example.com?secret=")
    assert len(await rows_of(database, audit_entries)) == 2
    assert await rows_of(database, second_factors) == []


async def test_login_when_second_factor_is_on_then_challenge_and_no_session(
    ann: Ann, database: Database
) -> None:
    await ann.enable()
    before = len(await rows_of(database, sessions))
    found = await ann.log_in()
    assert isinstance(found, Challenge)
    assert found.expires_in_seconds == 300
    assert len(await rows_of(database, sessions)) == before
    signed_in = await ann.answer(found.token, ann.code())
    assert signed_in.user.id == ann.user.id
    with pytest.raises(ChallengeInvalidError):
        await ann.answer(found.token, ann.recovery_codes[0])


async def test_code_when_replayed_or_older_then_refused(ann: Ann) -> None:
    await ann.enable()
    code, older = ann.code(), ann.code(steps=-1)
    assert isinstance(await ann.log_in(code), SignIn)
    for each in (code, older):
        with pytest.raises(SecondFactorInvalidError):
            await ann.log_in(each)


async def test_code_when_used_by_many_at_once_then_one_gets_in(ann: Ann) -> None:
    await ann.enable()
    outcomes = await asyncio.gather(
        *(ann.log_in(ann.code()) for _ in range(4)), return_exceptions=True
    )
    assert sum(isinstance(each, SignIn) for each in outcomes) == 1


async def test_recovery_code_then_good_once_and_the_owner_is_told(
    ann: Ann, database: Database
) -> None:
    await ann.enable()
    code = ann.recovery_codes[3]
    assert isinstance(await ann.log_in(code.upper().replace("-", " ")), SignIn)
    with pytest.raises(SecondFactorInvalidError):
        await ann.log_in(code)
    status = await ann.service.second_factor.get_status(user_id=ann.user.id)
    assert (status.recovery_codes_left, status.enabled_at is not None) == (9, True)
    assert MailKind.RECOVERY_CODE_USED in [row.kind for row in await rows_of(database, mails)]


async def test_recovery_codes_when_renewed_then_the_old_ones_are_worthless(ann: Ann) -> None:
    await ann.enable()
    [new, *_] = await ann.service.second_factor.renew_recovery_codes(
        caller=ann.caller, password=PASSWORD, device=a_device(), now=ann.clock.now()
    )
    with pytest.raises(SecondFactorInvalidError):
        await ann.log_in(ann.recovery_codes[0])
    assert isinstance(await ann.log_in(new), SignIn)


async def test_challenge_when_of_another_device_or_expired_then_refused(ann: Ann) -> None:
    await ann.enable()
    challenge = await asked(ann)
    with pytest.raises(ChallengeInvalidError):
        await ann.answer(challenge, ann.code(), device="phone")
    ann.clock.advance(300)
    for each in (challenge, "tk_" + "A" * 43, "rubbish"):
        with pytest.raises(ChallengeInvalidError):
            await ann.answer(each, ann.code())


async def test_challenge_when_guessed_then_dies_and_more_challenges_do_not_help(ann: Ann) -> None:
    await ann.enable()
    challenge, wrong = await asked(ann), "000000" if ann.code() != "000000" else "111111"
    for _ in range(5):
        with pytest.raises(SecondFactorInvalidError):
            await ann.answer(challenge, wrong)
    with pytest.raises(ChallengeInvalidError):
        await ann.answer(challenge, ann.code())
    challenge = await asked(ann)
    with pytest.raises(LoginThrottledError):
        await ann.answer(challenge, ann.code())


async def test_challenge_when_user_is_disabled_meanwhile_then_refused(ann: Ann) -> None:
    await ann.enable()
    challenge = await asked(ann)
    await ann.service.users.set_user_active(
        email="ann@example.com", is_active=False, now=ann.clock.now()
    )
    with pytest.raises(UserDisabledError):
        await ann.answer(challenge, ann.code())


async def test_enable_when_code_or_password_is_wrong_then_stays_off(ann: Ann) -> None:
    with pytest.raises(CodeWrongError):
        await ann.enable(code="000000")
    with pytest.raises(PasswordWrongError):
        await ann.enable(password="something else")
    assert isinstance(await ann.log_in(), SignIn)
    await ann.enable()
    with pytest.raises(SecondFactorOnError):
        await ann.service.second_factor.set_up(caller=ann.caller)


async def test_disable_then_password_alone_and_the_next_secret_is_another(
    ann: Ann, database: Database
) -> None:
    with pytest.raises(SecondFactorOffError):
        await ann.disable("000000")
    await ann.enable()
    old = ann.secret
    for code, password, refused in (
        ("000000", PASSWORD, CodeWrongError),
        (ann.code(), "something else", PasswordWrongError),
    ):
        with pytest.raises(refused):
            await ann.disable(code, password)
    await ann.disable(ann.code())
    assert isinstance(await ann.log_in(), SignIn)
    await ann.enable()
    assert ann.secret != old
    kinds = [row.kind for row in await rows_of(database, mails)]
    assert kinds.count(MailKind.SECOND_FACTOR_ON) == 2
    assert kinds.count(MailKind.SECOND_FACTOR_OFF) == 1


async def test_short_password_when_second_factor_is_on_then_accepted_and_keeps_it_on(
    make_service: MakeService, clock: FixedClock
) -> None:
    ann = await Ann.sign_up(
        make_service(passwords=PasswordRules(length_min=15, common=COMMON)), clock
    )
    await ann.enable()
    found = await ann.service.passwords.change(
        caller=ann.caller, current=PASSWORD, new="Kq7-zebra", device=a_device(), now=clock.now()
    )
    ann.caller = Caller("192.0.2.1", ann.user.id, found.session.id)
    with pytest.raises(PasswordTooShortAloneError):
        await ann.disable(ann.code(), "Kq7-zebra")


async def test_stored_rows_hold_neither_secret_nor_codes(ann: Ann, database: Database) -> None:
    await ann.enable()
    await asked(ann)
    stored = ""
    for table in (second_factors, audit_entries, mails, *second_factors.metadata.sorted_tables):
        stored += repr(await rows_of(database, table))
    assert ann.secret not in stored
    assert not any(code in stored or code.replace("-", "") in stored for code in ann.recovery_codes)
