"""Connecting users with people whom a provider names, on both databases."""

from dataclasses import dataclass, replace

import pytest
import sqlalchemy as sa

from trading_api.modules.auth.domain import parse_email
from trading_api.modules.auth.domain.external import ExternalUser
from trading_api.modules.auth.errors import (
    CredentialsInvalidError,
    EmailUnverifiedError,
    ExternalEmailError,
    ExternalSignInRefusedError,
    UserDisabledError,
)
from trading_api.modules.auth.ports import IdentityProvider
from trading_api.modules.auth.service import AuthServices, Challenge, SignIn
from trading_api.modules.auth.service.external import ExternalService
from trading_api.modules.auth.tables import audit_entries
from trading_api.modules.auth.tests.builders import (
    PASSWORD,
    Mails,
    a_caller,
    a_device,
    an_email,
)
from trading_api.modules.auth.tests.conftest import MakeService
from trading_api.modules.auth.tests.test_second_factor import Ann
from trading_api.runtime.database import Database
from trading_api.testkit.clocks import FixedClock

ANN = ExternalUser("https://provider.test", "ann", "Ann@Example.com", True, "Ann Ternal", None)


@dataclass
class Vouching:
    """A provider that names whomever it is told to."""

    names: ExternalUser = ANN
    name: str = "google"

    async def authorization_url(self, **asked: str) -> str:
        return f"https://provider.test/authorize?state={asked['state']}"

    async def exchange(self, **answered: object) -> ExternalUser:
        return self.names

    async def verify_id_token(self, token: str, **options: object) -> ExternalUser:
        return self.names


@pytest.fixture
def provider() -> Vouching:
    return Vouching()


class Door:
    """Signs in by the provider, with a new token each time."""

    def __init__(self, service: AuthServices, provider: Vouching, clock: FixedClock) -> None:
        vouching: IdentityProvider = provider
        self._service = ExternalService(service.external._desk, [vouching])
        self._clock = clock
        self._count = 0

    async def enter(self, token: str | None = None) -> SignIn | Challenge:
        self._count += 1
        return await self._service.sign_in_with_token(
            provider="google",
            token=token or f"token {self._count}",
            device=a_device(),
            now=self._clock.now(),
        )

    async def journey(self, *, seconds: int) -> SignIn | Challenge:
        url, binding = await self._service.begin(
            provider="google", next_path=None, now=self._clock.now()
        )
        self._clock.advance(seconds)
        found, _ = await self._service.finish(
            provider="google",
            state=url.partition("state=")[2],
            code="code",
            issuer=None,
            binding=binding,
            device=a_device(),
            now=self._clock.now(),
        )
        return found


@pytest.fixture
def door(service: AuthServices, provider: Vouching, clock: FixedClock) -> Door:
    return Door(service, provider, clock)


async def test_enter_when_nobody_is_connected_then_a_user_is_made_and_stays_the_same(
    door: Door, provider: Vouching
) -> None:
    first = await door.enter()
    assert isinstance(first, SignIn)
    assert (first.user.email.address, first.user.email.folded) == (
        "Ann@example.com",
        "ann@example.com",
    )
    assert first.user.email_verified_at is not None and first.user.password_hash is None
    # Whoever has been connected stays so, whatever becomes of the address.
    provider.names = replace(ANN, email="new@example.com", is_email_verified=False)
    again = await door.enter()
    assert isinstance(again, SignIn) and again.user.id == first.user.id


async def test_enter_when_it_is_another_subject_then_another_user(
    door: Door, provider: Vouching
) -> None:
    first = await door.enter()
    provider.names = replace(ANN, subject="bob", email="bob@example.com")
    second = await door.enter()
    assert isinstance(first, SignIn) and isinstance(second, SignIn)
    assert first.user.id != second.user.id
    provider.names = replace(ANN, issuer="https://other.test", email="eve@example.com")
    third = await door.enter()
    assert isinstance(third, SignIn) and third.user.id not in (first.user.id, second.user.id)


async def test_enter_when_the_token_comes_again_then_refused(door: Door) -> None:
    await door.enter("token")
    with pytest.raises(ExternalSignInRefusedError):
        await door.enter("token")


@pytest.mark.parametrize(
    "names",
    [
        replace(ANN, is_email_verified=False),
        replace(ANN, email=None),
        replace(ANN, email=""),
        replace(ANN, email="ann at example.com"),
        replace(ANN, email="ann@example.com\r\nBcc: eve@example.com"),
    ],
)
async def test_enter_when_the_provider_does_not_vouch_then_refused(
    door: Door, provider: Vouching, names: ExternalUser
) -> None:
    provider.names = names
    with pytest.raises(ExternalEmailError):
        await door.enter()


async def test_enter_when_a_user_never_confirmed_the_address_then_not_connected(
    door: Door, service: AuthServices, clock: FixedClock
) -> None:
    await service.registration.register(
        email=an_email(), password=PASSWORD, full_name="", caller=a_caller(), now=clock.now()
    )
    with pytest.raises(ExternalEmailError):
        await door.enter()


async def test_enter_when_a_registration_waits_then_its_password_is_good_for_nothing(
    make_service: MakeService, provider: Vouching, clock: FixedClock
) -> None:
    """Who registered with a stranger's address before has no way into the stranger's account."""
    service = make_service(confirms_email=True)
    await service.registration.apply(
        email=an_email(), password=PASSWORD, full_name="", caller=a_caller(), now=clock.now()
    )
    with pytest.raises(EmailUnverifiedError):
        await log_in(service, clock)
    found = await Door(service, provider, clock).enter()
    assert isinstance(found, SignIn) and found.user.activated_at == clock.now()
    with pytest.raises(CredentialsInvalidError):
        await log_in(service, clock)


async def test_enter_when_a_user_is_connected_then_found_by_our_form_told_and_audited(
    make_service: MakeService,
    provider: Vouching,
    clock: FixedClock,
    mails: Mails,
    database: Database,
) -> None:
    service = make_service(confirms_email=True)
    written = "ann@xn--bcher-kva.example"
    await service.registration.apply(
        email=parse_email(written),
        password=PASSWORD,
        full_name="",
        caller=a_caller(),
        now=clock.now(),
    )
    await service.mail.deliver_due(now=clock.now())
    ann = await service.registration.confirm_email(
        token=mails.token(), password=PASSWORD, device=a_device(), now=clock.now()
    )
    door = Door(service, provider, clock)
    provider.names = replace(ANN, email=written)
    for _ in range(2):
        found = await door.enter()
        assert isinstance(found, SignIn) and found.user.id == ann.id
    provider.names = replace(ANN, subject="bob", email="bob@example.com")
    await door.enter()
    await service.mail.deliver_due(now=clock.now())
    told = [each.recipient for each in mails.sent if "provider google" in each.text]
    assert told == [ann.email.address] == ["ann@bücher.example"]
    async with database.snapshot() as transaction:
        rows = await transaction.all(
            sa.select(audit_entries.c.actor_id, audit_entries.c.detail)
            .where(audit_entries.c.action == "provider_connect")
            .order_by(audit_entries.c.sequence)
        )
    assert [row.detail for row in rows] == ["google: ann", "google: bob"]
    assert rows[0].actor_id == ann.id


async def test_enter_when_disabled_then_refused(
    door: Door, service: AuthServices, clock: FixedClock
) -> None:
    await door.enter()
    await service.users.set_user_active(email="ann@example.com", is_active=False, now=clock.now())
    with pytest.raises(UserDisabledError):
        await door.enter()


async def test_enter_when_there_is_a_second_factor_then_it_is_asked_for(
    make_service: MakeService, provider: Vouching, clock: FixedClock
) -> None:
    service = make_service()
    door = Door(service, provider, clock)
    ann = await Ann.sign_up(service, clock)
    await confirm(service, ann, clock)
    assert isinstance(await door.enter(), SignIn)
    await ann.enable()
    found = await door.enter()
    assert isinstance(found, Challenge)
    clock.advance(60)
    opened = await service.sign_in.answer_challenge(
        challenge=found.token, code=ann.code(), device=a_device(), now=clock.now()
    )
    assert opened.user.id == ann.user.id


@pytest.mark.parametrize(("seconds", "is_accepted"), [(599, True), (600, False)])
async def test_journey_when_it_takes_ten_minutes_then_refused(
    door: Door, seconds: int, is_accepted: bool
) -> None:
    if is_accepted:
        assert isinstance(await door.journey(seconds=seconds), SignIn)
        return
    with pytest.raises(ExternalSignInRefusedError):
        await door.journey(seconds=seconds)


async def log_in(service: AuthServices, clock: FixedClock) -> None:
    await service.sign_in.log_in(
        email="ann@example.com", password=PASSWORD, device=a_device(), now=clock.now()
    )


async def confirm(service: AuthServices, ann: Ann, clock: FixedClock) -> None:
    """Confirm the address as the mail's link does."""
    desk = service.external._desk
    async with desk.database.transaction() as transaction:
        await desk.repository.users.update_user(
            transaction, ann.user.id, email_verified_at_us=int(clock.now().timestamp() * 1e6)
        )
