"""Builds auth of its parts."""

import asyncio
import os
from datetime import timedelta

from trading_api.contracts.auth import UserRegistered
from trading_api.modules.auth.adapters.argon2_pool import Argon2Pool, load_common_passwords
from trading_api.modules.auth.adapters.bus_announcer import BusAnnouncer
from trading_api.modules.auth.adapters.file_mailer import FileMailer
from trading_api.modules.auth.adapters.file_signer import FileSigner
from trading_api.modules.auth.adapters.oidc_provider import OidcProvider, read_clients
from trading_api.modules.auth.adapters.sealer import KeySealer
from trading_api.modules.auth.adapters.smtp_mailer import SmtpMailer
from trading_api.modules.auth.adapters.webauthn_passkeys import WebauthnPasskeys
from trading_api.modules.auth.api.cookies import Cookies
from trading_api.modules.auth.api.parts import Parts
from trading_api.modules.auth.api.v1 import internal_routes, public_routes
from trading_api.modules.auth.commands import commands
from trading_api.modules.auth.domain import (
    LoginThrottle,
    PasswordRules,
    Rate,
    SessionRules,
    fold_email,
)
from trading_api.modules.auth.ports import Mailer
from trading_api.modules.auth.repository import AuthRepository
from trading_api.modules.auth.repository.checks import AUDIT_CHECKS, SESSION_CHECKS
from trading_api.modules.auth.service import AuthPolicy, AuthServices, Desk
from trading_api.modules.auth.settings import AuthSettings
from trading_api.modules.auth.tables import leases_table, outbox_table
from trading_api.runtime.database import Lease, Leases, Outbox
from trading_api.runtime.http.cursors import Cursors
from trading_api.runtime.identity import access_token_seconds_max
from trading_api.runtime.module import (
    BackgroundTask,
    Manifest,
    Module,
    ModuleContext,
    ModuleParts,
    Proof,
)
from trading_api.runtime.revocations import BEAT_SECONDS
from trading_api.runtime.secrets import load_secret_key
from trading_api.runtime.settings import ConfigurationError, PlatformSettings, load_settings

CLEANING_SECONDS = 600.0

MAIL_POLL_SECONDS = 5.0
"""How soon a mail that another process queued is noticed; its own are noticed at once."""


class AuthModule(Module):
    """Users, sessions, tokens."""

    manifest = Manifest(
        name="auth",
        summary="users, credentials, sessions, signing keys, audit of security events",
        tags=("auth",),
        publishes=(UserRegistered,),
    )

    def build(self, context: ModuleContext) -> ModuleParts:
        """Build repository, adapters and service, and hand out what the process serves."""
        settings = load_settings(AuthSettings, context.environ)
        mistakes = settings.mistakes(is_production=context.settings.is_production)
        if mistakes:
            raise ConfigurationError(mistakes)
        database = context.require_database()
        secret_key = load_secret_key(context.settings.secrets_directory, context.environ)
        self._signer = FileSigner(
            context.settings.secrets_directory,
            clock=context.clock,
            private_key=context.settings.jwt_private_key_path,
            key_set=context.settings.key_set_path,
        )
        self._hasher = Argon2Pool(
            parallel=settings.password_parallel, queue_max=settings.password_queue_max
        )
        announcer = BusAnnouncer(bus=context.bus, identity=context.identity)
        outbox = Outbox(outbox_table, producer=context.name, ids=context.ids, clock=context.clock)
        service = AuthServices(
            Desk(
                database=database,
                repository=AuthRepository(),
                outbox=outbox,
                ids=context.ids,
                hasher=self._hasher,
                signer=self._signer,
                announcer=announcer,
                sealer=KeySealer(secret_key),
                policy=policy_of(settings, context.settings),
                random_bytes=os.urandom,
            ),
            mailer=mailer_of(settings, context.settings),
            passkeys=passkeys_of(settings, context.settings),
            providers=providers_of(settings, context),
        )

        async def beat(_lease: Lease | None) -> None:
            while True:
                notice = await service.sessions.get_revocation_beat(now=context.clock.now())
                announcer.publish(notice)
                await asyncio.sleep(BEAT_SECONDS)

        async def deliver(_lease: Lease | None) -> None:
            while True:
                if not await service.mail.deliver_due(now=context.clock.now()):
                    await service.mail.wait(seconds=MAIL_POLL_SECONDS)

        async def clean(_lease: Lease | None) -> None:
            while True:
                await service.mail.remove_old(now=context.clock.now())
                removed = await service.sessions.remove_dead(now=context.clock.now())
                await asyncio.sleep(0.1 if removed else CLEANING_SECONDS)

        return ModuleParts(
            routers={
                "v1": public_routes(
                    Parts(
                        services=service,
                        identity=context.identity,
                        cookies=Cookies(
                            access_name=context.identity.access_cookie,
                            is_secure=context.settings.uses_secure_cookies,
                        ),
                        clock=context.clock,
                        user_cursors=Cursors(secret_key, purpose="auth.users"),
                        audit_cursors=Cursors(secret_key, purpose="auth.audit"),
                    )
                )
            },
            absolute=internal_routes(service, clock=context.clock),
            tasks=(
                BackgroundTask("revocation-beat", beat),
                BackgroundTask("mail", deliver, lease="mail"),
                BackgroundTask("cleaning", clean, lease="cleaning"),
            ),
            proofs=[
                Proof(
                    "sessions",
                    SESSION_CHECKS,
                    lambda: service.administration.verify_sessions(now=context.clock.now()),
                ),
                Proof("audit", AUDIT_CHECKS, service.administration.verify_audit),
            ],
            commands=commands(service, settings=context.settings, clock=context.clock),
            outbox=outbox,
            leases=Leases(
                leases_table, database=database, clock=context.clock, owner=context.instance
            ),
        )

    async def start(self) -> None:
        """Read the signing key, so that a host without one doesn't report ready."""
        self._signer.load()

    async def stop(self) -> None:
        """End the hashing threads."""
        self._hasher.close()


def providers_of(settings: AuthSettings, context: ModuleContext) -> list[OidcProvider]:
    """Return the outside providers that an operator configured.

    Raises:
        ConfigurationError: one of them is incomplete, or asked without TLS.
    """
    is_production = context.settings.is_production
    try:
        clients = read_clients(
            context.environ,
            google_id=settings.google_client_id,
            google_secret=settings.google_client_secret.get_secret_value(),
            is_production=is_production,
        )
    except ValueError as error:
        raise ConfigurationError([str(error)]) from error
    return [
        OidcProvider(
            each,
            allows_loopback=not is_production,
            unix_seconds=lambda: context.clock.now().timestamp(),
        )
        for each in clients
    ]


def mailer_of(settings: AuthSettings, platform: PlatformSettings) -> Mailer:
    """Return who takes mails: the SMTP server, or a folder where none is configured."""
    if not settings.smtp_host:
        return FileMailer(platform.trading_local_dir / "mail", sender=settings.mail_from)
    return SmtpMailer(
        host=settings.smtp_host,
        port=settings.smtp_port,
        security=settings.smtp_security,
        username=settings.smtp_username or None,
        password=settings.smtp_password.get_secret_value() or None,
        sender=settings.mail_from,
    )


def passkeys_of(settings: AuthSettings, platform: PlatformSettings) -> WebauthnPasskeys:
    """Return who speaks WebAuthn for our site."""
    return WebauthnPasskeys(
        site=settings.site_url,
        name=settings.site_name,
        origins=sorted(platform.allowed_origins),
        any_port=not platform.is_production,
    )


def policy_of(settings: AuthSettings, platform: PlatformSettings) -> AuthPolicy:
    """Return what the operator decided, by these settings."""
    length_min = settings.password_length_min or (15 if platform.is_production else 8)
    return AuthPolicy(
        issuer=platform.jwt_issuer,
        token_lifetime_max=timedelta(seconds=access_token_seconds_max(platform)),
        sessions=SessionRules(
            access_lifetime=timedelta(minutes=settings.access_token_expire_minutes),
            lifetime=timedelta(days=settings.session_days),
            idle=timedelta(days=settings.session_idle_days),
            grace=timedelta(seconds=settings.refresh_grace_seconds),
        ),
        passwords=PasswordRules(length_min=length_min, common=load_common_passwords()),
        throttle=LoginThrottle(
            account=Rate(
                settings.login_account_burst,
                timedelta(seconds=settings.login_account_interval_seconds),
            ),
            address=Rate(
                settings.login_address_burst or (30 if platform.is_production else 100),
                timedelta(
                    seconds=settings.login_address_interval_seconds
                    or (30 if platform.is_production else 3)
                ),
            ),
            code=Rate(settings.code_burst, timedelta(seconds=settings.code_interval_seconds)),
            mail=Rate(settings.mail_burst, timedelta(seconds=settings.mail_interval_seconds)),
        ),
        # In production an address that nobody confirmed proves nothing.
        admin_email="" if platform.is_production else fold_email(settings.admin_email),
        confirms_email=(
            platform.is_production if settings.confirm_email is None else settings.confirm_email
        ),
        site=settings.site_url,
        name=settings.site_name,
    )
