"""Mails: queued with the change, sent after it, by file or by a real SMTP server."""

import asyncio
import email
import email.policy
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from trading_api.modules.auth.adapters.file_mailer import FileMailer
from trading_api.modules.auth.adapters.smtp_mailer import Security, SmtpMailer
from trading_api.modules.auth.domain.audit import Caller
from trading_api.modules.auth.domain.mail import ATTEMPTS_MAX, Mail, MailKind, Message, compose
from trading_api.modules.auth.domain.tickets import LIFETIMES, Purpose
from trading_api.modules.auth.errors import (
    CredentialsInvalidError,
    EmailUnverifiedError,
    LoginThrottledError,
    MailTokenInvalidError,
    PasswordRefusedError,
    PasswordWrongError,
    SessionEndedError,
)
from trading_api.modules.auth.ports import MailError
from trading_api.modules.auth.service import AuthServices, SignIn
from trading_api.modules.auth.tables import audit_entries, outbox_table, tickets, users
from trading_api.modules.auth.tables import mails as mails_table
from trading_api.modules.auth.tests.builders import (
    PASSWORD,
    Announcements,
    Mails,
    PlainHasher,
    a_device,
    an_email,
)
from trading_api.modules.auth.tests.conftest import MakeService
from trading_api.runtime.database import Database
from trading_api.testkit.clocks import FixedClock

NEW = "another battery staple"


@pytest.fixture
def service(make_service: MakeService) -> AuthServices:
    return make_service(confirms_email=True)


async def apply(service: AuthServices, clock: FixedClock, password: str = PASSWORD) -> None:
    await service.registration.apply(
        email=an_email(), password=password, full_name="", caller=Caller(""), now=clock.now()
    )


async def log_in(service: AuthServices, clock: FixedClock, password: str = PASSWORD) -> SignIn:
    found = await service.sign_in.log_in(
        email="ann@example.com", password=password, device=a_device(), now=clock.now()
    )
    assert isinstance(found, SignIn)
    return found


async def confirm(
    service: AuthServices, clock: FixedClock, token: str, password: str = PASSWORD
) -> None:
    await service.registration.confirm_email(
        token=token, password=password, device=a_device(), now=clock.now()
    )


async def deliver(service: AuthServices, clock: FixedClock) -> int:
    return await service.mail.deliver_due(now=clock.now())


async def sign_up(service: AuthServices, clock: FixedClock, sent: Mails) -> None:
    await apply(service, clock)
    await deliver(service, clock)
    await confirm(service, clock, sent.token())


async def forget(
    service: AuthServices, clock: FixedClock, address: str = "ann@example.com"
) -> None:
    await service.passwords.ask_for_reset(email=an_email(address), now=clock.now())


async def reset(service: AuthServices, clock: FixedClock, token: str, new: str = NEW) -> None:
    await service.passwords.reset(token=token, new=new, device=a_device(), now=clock.now())


async def rows_of(database: Database, table: sa.Table) -> list[Any]:
    async with database.snapshot() as transaction:
        return list(await transaction.all(sa.select(table)))


async def test_register_when_confirmed_by_mail_then_user_exists_for_others_only_from_then_on(
    service: AuthServices, clock: FixedClock, mails: Mails, database: Database
) -> None:
    await apply(service, clock)
    with pytest.raises(EmailUnverifiedError):
        await log_in(service, clock)
    with pytest.raises(CredentialsInvalidError):
        await log_in(service, clock, "something else")
    assert await rows_of(database, outbox_table) == []
    assert await deliver(service, clock) == 1
    assert mails.sent[0].recipient == "ann@example.com"
    await confirm(service, clock, mails.token())
    assert (await log_in(service, clock)).user.email_verified_at == clock.now()
    assert [row.type for row in await rows_of(database, outbox_table)] == ["auth.user.registered"]
    with pytest.raises(MailTokenInvalidError):
        await confirm(service, clock, mails.token())


async def test_register_when_address_is_taken_then_same_answer_and_the_owner_is_told(
    service: AuthServices, clock: FixedClock, mails: Mails, database: Database
) -> None:
    await sign_up(service, clock, mails)
    await apply(service, clock, NEW)
    await deliver(service, clock)
    assert mails.sent[-1].subject == "You have an account already"
    with pytest.raises(CredentialsInvalidError):
        await log_in(service, clock, NEW)
    assert len(await rows_of(database, users)) == 1


async def test_register_when_prepared_by_somebody_else_then_their_password_never_works(
    service: AuthServices, clock: FixedClock, mails: Mails
) -> None:
    await apply(service, clock, "chosen by a stranger")
    await deliver(service, clock)
    strangers_mail = mails.token()
    await apply(service, clock)
    await deliver(service, clock)
    with pytest.raises(MailTokenInvalidError):
        await confirm(service, clock, strangers_mail)
    await confirm(service, clock, mails.token())
    await log_in(service, clock)
    with pytest.raises(CredentialsInvalidError):
        await log_in(service, clock, "chosen by a stranger")


async def test_confirm_when_a_stranger_registered_later_then_their_password_stays_useless(
    service: AuthServices, clock: FixedClock, mails: Mails, database: Database
) -> None:
    """Whoever reads the mail doesn't know the stranger's password; who knows it has no mail."""
    await apply(service, clock)
    await deliver(service, clock)
    await apply(service, clock, "chosen by a stranger")
    await deliver(service, clock)
    newest = mails.token()
    before = await rows_of(database, users)
    with pytest.raises(CredentialsInvalidError):
        await confirm(service, clock, newest)
    assert await rows_of(database, users) == before
    assert await rows_of(database, outbox_table) == []
    with pytest.raises(EmailUnverifiedError):
        await log_in(service, clock, "chosen by a stranger")
    await forget(service, clock)
    await deliver(service, clock)
    await reset(service, clock, mails.token())
    await log_in(service, clock, NEW)
    with pytest.raises(CredentialsInvalidError):
        await log_in(service, clock, "chosen by a stranger")


async def test_confirm_when_password_is_wrong_then_charged_and_the_mail_stays_good(
    service: AuthServices, clock: FixedClock, mails: Mails, database: Database
) -> None:
    await apply(service, clock)
    await deliver(service, clock)
    for _ in range(5):
        with pytest.raises(CredentialsInvalidError):
            await confirm(service, clock, mails.token(), "something else")
    with pytest.raises(LoginThrottledError):
        await confirm(service, clock, mails.token())
    refused = [row for row in await rows_of(database, audit_entries) if row.outcome == "refused"]
    assert {row.action for row in refused} == {"email_verify"} and len(refused) == 5
    clock.advance(60)
    await confirm(service, clock, mails.token())
    await log_in(service, clock)


async def test_confirm_when_registered_anew_meanwhile_then_refused(
    service: AuthServices, clock: FixedClock, mails: Mails, hasher: PlainHasher
) -> None:
    await apply(service, clock)
    await deliver(service, clock)

    async def register_anew() -> None:
        hasher.meanwhile = None
        await apply(service, clock, "chosen by a stranger")

    hasher.meanwhile = register_anew
    with pytest.raises(MailTokenInvalidError):
        await confirm(service, clock, mails.token())


async def test_ask_when_nobody_has_the_address_then_same_work_and_no_mail(
    service: AuthServices, clock: FixedClock, mails: Mails, database: Database
) -> None:
    await forget(service, clock, "nobody@example.com")
    await service.registration.ask_for_confirmation(
        email=an_email("nobody@example.com"), now=clock.now()
    )
    assert await deliver(service, clock) == 2
    assert mails.sent == []
    assert {row.outcome for row in await rows_of(database, mails_table)} == {"dropped"}


async def test_ask_when_repeated_then_an_address_gets_a_few_mails(
    service: AuthServices, clock: FixedClock, mails: Mails
) -> None:
    await sign_up(service, clock, mails)
    for _ in range(5):
        await forget(service, clock)
    await deliver(service, clock)
    assert [each.subject for each in mails.sent].count("Reset your password") == 2


async def test_reset_then_old_password_and_all_sessions_are_dead_and_the_owner_is_told(
    service: AuthServices,
    clock: FixedClock,
    mails: Mails,
    announcements: Announcements,
    database: Database,
) -> None:
    await sign_up(service, clock, mails)
    first = await log_in(service, clock)
    caller = Caller("192.0.2.1", first.user.id, first.session.id)
    options: dict[str, Any] = {"caller": caller, "device": a_device(), "now": clock.now()}
    _, key = await service.api_keys.create_key(
        name="bot",
        scopes=frozenset({"broker:trade"}),
        expires_at=None,
        ip_allow=(),
        password=PASSWORD,
        **options,
    )
    _, shared = await service.api_keys.create_share_token(
        account_id="acc_1", name="guest", expires_at=None, **options
    )
    await deliver(service, clock)
    await forget(service, clock)
    await deliver(service, clock)
    token = mails.token()
    assert token not in repr([await rows_of(database, table) for table in (tickets, mails_table)])
    with pytest.raises(PasswordRefusedError):
        await reset(service, clock, token, "short")
    await reset(service, clock, token)
    assert sorted(announcements.ended) == sorted([first.session.id, key.id, shared.id])
    with pytest.raises(SessionEndedError):
        await service.sessions.refresh(
            refresh_token=first.refresh_token, device=a_device(), now=clock.now()
        )
    with pytest.raises(CredentialsInvalidError):
        await log_in(service, clock)
    await log_in(service, clock, NEW)
    for each in (token, "tk_" + "A" * 43, "rubbish"):
        with pytest.raises(MailTokenInvalidError):
            await reset(service, clock, each, "yet another battery")
    await deliver(service, clock)
    assert mails.sent[-1].subject == "Your password was changed"
    assert "signed out. So ended: 2 API keys and share tokens.\n" in mails.sent[-1].text
    [entry] = [
        each for each in await rows_of(database, audit_entries) if each.action == "password_reset"
    ]
    assert entry.detail == "ended: 2 API keys and share tokens"


async def test_reset_when_raced_or_late_then_one_at_most(
    service: AuthServices, clock: FixedClock, mails: Mails
) -> None:
    await sign_up(service, clock, mails)
    await forget(service, clock)
    await deliver(service, clock)
    outcomes = await asyncio.gather(
        *(reset(service, clock, mails.token(), f"{NEW} {number}") for number in range(3)),
        return_exceptions=True,
    )
    assert sum(each is None for each in outcomes) == 1
    await forget(service, clock)
    await deliver(service, clock)
    clock.advance(LIFETIMES[Purpose.PASSWORD_RESET].total_seconds())
    with pytest.raises(MailTokenInvalidError):
        await reset(service, clock, mails.token())


async def test_change_then_every_session_ends_and_this_device_goes_on(
    service: AuthServices, clock: FixedClock, mails: Mails, announcements: Announcements
) -> None:
    await sign_up(service, clock, mails)
    first, other = await log_in(service, clock), await log_in(service, clock)
    caller = Caller("192.0.2.1", first.user.id, first.session.id)
    with pytest.raises(PasswordWrongError):
        await service.passwords.change(
            caller=caller, current=NEW, new=NEW, device=a_device(), now=clock.now()
        )
    found = await service.passwords.change(
        caller=caller, current=PASSWORD, new=NEW, device=a_device(), now=clock.now()
    )
    assert sorted(announcements.ended) == sorted([first.session.id, other.session.id])
    again = await service.sessions.refresh(
        refresh_token=found.refresh_token, device=a_device(), now=clock.now()
    )
    assert again.session.id == found.session.id


async def test_operator_when_sets_password_then_it_works(
    service: AuthServices, clock: FixedClock, mails: Mails, database: Database
) -> None:
    await sign_up(service, clock, mails)
    await service.passwords.set_by_operator(email="ANN@example.com", new=NEW, now=clock.now())
    await log_in(service, clock, NEW)
    assert "password_set" in [row.action for row in await rows_of(database, audit_entries)]


async def test_new_device_when_signed_in_from_then_told_but_not_of_the_first_or_a_known_one(
    service: AuthServices, clock: FixedClock, mails: Mails
) -> None:
    await sign_up(service, clock, mails)
    for device in ("laptop", "laptop", "phone", "phone"):
        await service.sign_in.log_in(
            email="ann@example.com", password=PASSWORD, device=a_device(device), now=clock.now()
        )
    await deliver(service, clock)
    assert [each.subject for each in mails.sent[1:]] == ["New sign-in to your account"]
    assert "device: phone" in mails.sent[1].text


async def test_delivery_when_server_is_away_then_tried_again_later_and_at_last_given_up(
    service: AuthServices, clock: FixedClock, mails: Mails, database: Database
) -> None:
    await apply(service, clock)
    mails.refusal = MailError("away", is_final=False)
    assert await deliver(service, clock) == 1
    assert await deliver(service, clock) == 0
    mails.refusal = None
    clock.advance(10)
    assert await deliver(service, clock) == 1
    await confirm(service, clock, mails.token())
    await log_in(service, clock)
    await service.sign_in.log_in(
        email="ann@example.com", password=PASSWORD, device=a_device("phone"), now=clock.now()
    )
    mails.refusal = MailError("away", is_final=False)
    for _ in range(ATTEMPTS_MAX):
        assert await deliver(service, clock) == 1
        clock.advance(3600)
    assert await deliver(service, clock) == 0
    outcomes = [row.outcome for row in await rows_of(database, mails_table)]
    assert outcomes == ["sent", "failed"]


async def test_delivery_when_one_mail_is_broken_then_the_others_go_and_it_is_given_up(
    service: AuthServices, clock: FixedClock, mails: Mails, database: Database
) -> None:
    for planted in ("passkey_added", "of_a_newer_release"):
        await apply(service, clock)
        async with database.transaction() as transaction:
            await transaction.execute(
                mails_table.update()
                .where(mails_table.c.kind == "email_verify")
                .values(kind=planted, data="{}")
            )
    await forget(service, clock)
    for attempts in range(ATTEMPTS_MAX):
        assert await deliver(service, clock) == (2 if attempts == 0 else 1)
        clock.advance(3600)
    assert [each.subject for each in mails.sent] == ["Reset your password"]
    assert await deliver(service, clock) == 0
    outcomes = [row.outcome for row in await rows_of(database, mails_table)]
    assert set(outcomes) == {"failed", None, "sent"}
    [entry] = [
        each for each in await rows_of(database, audit_entries) if each.action == "mail_send"
    ]
    assert (entry.outcome, entry.detail) == ("failed", "passkey_added after 12 attempts")


async def test_delivery_when_refused_for_good_or_too_late_then_not_tried_again(
    service: AuthServices, clock: FixedClock, mails: Mails, database: Database
) -> None:
    await apply(service, clock)
    mails.refusal = MailError("no such mailbox", is_final=True)
    await deliver(service, clock)
    await service.registration.ask_for_confirmation(email=an_email(), now=clock.now())
    clock.advance(31 * 60)
    mails.refusal = None
    assert await deliver(service, clock) == 1
    assert mails.sent == []
    assert [row.outcome for row in await rows_of(database, mails_table)] == ["failed", "dropped"]


async def test_wait_when_a_mail_is_queued_then_returns_at_once(
    service: AuthServices, clock: FixedClock
) -> None:
    waiting = asyncio.ensure_future(service.mail.wait(seconds=60))
    await asyncio.sleep(0)
    await apply(service, clock)
    await asyncio.wait_for(waiting, 5)


@pytest.mark.parametrize("kind", list(MailKind))
def test_compose_then_every_mail_has_subject_text_and_link(
    kind: MailKind, clock: FixedClock
) -> None:
    data = {
        "at": "now",
        "left": "3",
        "name": "{site} my key",
        "scopes": "x:y",
        "account": "acc_1",
        "provider": "p",
    }
    mail = Mail("mail_1", kind, "ann@example.com", data, clock.now())
    message = compose(mail, site="https://trading.test", token="tk_x")
    assert "https://trading.test/" in message.text
    assert message.subject
    assert ("tk_x" in message.text) == (kind in (MailKind.EMAIL_VERIFY, MailKind.PASSWORD_RESET))


def test_retries_then_ever_longer_up_to_an_hour(clock: FixedClock) -> None:
    waits = []
    for attempts in range(ATTEMPTS_MAX):
        mail = Mail("mail_1", MailKind.NEW_DEVICE, "", {}, clock.now(), attempts)
        until = mail.next_try(clock.now())
        waits.append(None if until is None else until - clock.now())
    assert waits[:3] == [timedelta(seconds=10), timedelta(seconds=20), timedelta(seconds=40)]
    assert waits[-3:] == [timedelta(hours=1), timedelta(hours=1), None]


MESSAGE = Message("mail_1", "ann@example.com", "Käse\u200b?", "grüß dich\n.\nbye\n")


async def test_file_mailer_then_one_private_file_per_mail(tmp_path: Path) -> None:
    mailer = FileMailer(tmp_path / "mail", sender="no-reply@trading.test")
    await mailer.send(MESSAGE)
    await mailer.send(MESSAGE)
    [path] = (tmp_path / "mail").iterdir()
    assert path.stat().st_mode & 0o077 == 0
    read = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert (read["To"], read["Message-ID"]) == ("ann@example.com", "<mail_1@trading.test>")
    assert read.get_content() == MESSAGE.text


@dataclass
class Inbox:
    """A real SMTP server's handler that keeps what came."""

    answer: str = "250 OK"
    came: list[Envelope] = field(default_factory=list)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        self.came.append(envelope)
        return self.answer

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: Any
    ) -> str:
        if address.startswith("nobody"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"


def check_login(_server: SMTP, _session: Session, _envelope: Envelope, _way: str, data: Any):
    is_right = isinstance(data, LoginPassword) and data.password == b"sesame"
    return AuthResult(success=is_right)


@asynccontextmanager
async def smtp_server(inbox: Inbox, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    def protocol() -> SMTP:
        return SMTP(
            inbox,
            tls_context=tls,
            require_starttls=tls is not None,
            authenticator=check_login,
            auth_require_tls=False,
            loop=asyncio.get_running_loop(),
        )

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def mailer_to(
    port: int,
    *,
    password: str | None = None,
    security: Security = "none",
    tls: ssl.SSLContext | None = None,
) -> SmtpMailer:
    return SmtpMailer(
        host="localhost",
        port=port,
        security=security,
        username=None if password is None else "us",
        password=password,
        sender="no-reply@trading.test",
        timeout_seconds=5,
        tls=tls,
    )


async def test_smtp_then_the_server_gets_the_mail_whole() -> None:
    inbox = Inbox()
    async with smtp_server(inbox) as port:
        await mailer_to(port, password="sesame").send(MESSAGE)
    [envelope] = inbox.came
    assert envelope.mail_from == "no-reply@trading.test"
    assert envelope.rcpt_tos == ["ann@example.com"]
    assert isinstance(envelope.content, bytes)
    read = email.message_from_bytes(envelope.content, policy=email.policy.default)
    assert read["Subject"] == MESSAGE.subject
    assert read.get_content().replace("\r\n", "\n") == MESSAGE.text


@pytest.mark.parametrize(
    ("inbox", "recipient", "password", "is_final"),
    [
        (Inbox(), "nobody@example.com", None, True),
        (Inbox("554 spam"), "ann@example.com", None, True),
        (Inbox("451 later"), "ann@example.com", None, False),
        (Inbox(), "ann@example.com", "wrong", False),
    ],
    ids=["no mailbox", "refused", "later", "login"],
)
async def test_smtp_when_refused_then_told_whether_for_good(
    inbox: Inbox, recipient: str, password: str | None, *, is_final: bool
) -> None:
    async with smtp_server(inbox) as port:
        with pytest.raises(MailError) as refused:
            await mailer_to(port, password=password).send(
                Message("mail_1", recipient, "subject", "text")
            )
    assert refused.value.is_final is is_final


async def test_smtp_when_nobody_listens_then_not_for_good() -> None:
    async with smtp_server(Inbox()) as port:
        pass
    with pytest.raises(MailError) as refused:
        await mailer_to(port).send(MESSAGE)
    assert not refused.value.is_final


async def test_smtp_when_starttls_then_encrypted_and_a_strange_certificate_is_refused(
    tls_pair: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, client = tls_pair
    inbox = Inbox()
    async with smtp_server(inbox, server) as port:
        await mailer_to(port, security="starttls", tls=client).send(MESSAGE)
        with pytest.raises(MailError):
            await mailer_to(port, security="starttls").send(MESSAGE)
    assert len(inbox.came) == 1


@pytest.fixture
def tls_pair(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for localhost, and a client's that trusts it."""
    from datetime import UTC, datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
        .not_valid_after(datetime.now(UTC) + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    client = ssl.create_default_context(cafile=str(path))
    return server, client
