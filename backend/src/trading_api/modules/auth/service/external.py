"""Signing in by an outside provider, such as Google, over OpenID Connect."""

import base64
import hmac
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from trading_api.kernel.clock import to_us
from trading_api.modules.auth.domain import (
    Device,
    EmailAddress,
    Role,
    User,
    hash_token,
    parse_email,
)
from trading_api.modules.auth.domain.audit import Caller
from trading_api.modules.auth.domain.external import (
    BINDING_BYTES,
    ExternalUser,
    Journey,
    hash_binding,
    nonce_of,
    safe_next,
    verifier_of,
)
from trading_api.modules.auth.domain.mail import MailKind
from trading_api.modules.auth.domain.tickets import LIFETIMES, Purpose, is_ticket
from trading_api.modules.auth.errors import (
    EmailInvalidError,
    ExternalEmailError,
    ExternalProviderUnknownError,
    ExternalSignInRefusedError,
    UserDisabledError,
)
from trading_api.modules.auth.ports import IdentityProvider
from trading_api.modules.auth.service.desk import Challenge, Desk, SignIn
from trading_api.runtime.database import Transaction

TOKEN_AGE_SECONDS_MAX = 600
"""How old an ID token may be that a client got itself; remembered for that long as used."""

_ASTRAY = "this sign-in took too long, was finished before, or began elsewhere; begin again"


class ExternalService:
    """Sends people to a provider and takes them back.

    Args:
        providers: whom an operator configured.
    """

    def __init__(self, desk: Desk, providers: Sequence[IdentityProvider]) -> None:
        self._desk = desk
        self._providers = {each.name: each for each in providers}

    @property
    def names(self) -> list[str]:
        """The configured providers."""
        return sorted(self._providers)

    async def begin(
        self, *, provider: str, next_path: str | None, now: datetime
    ) -> tuple[str, str]:
        """Return where to send a browser, and the secret that binds it to this journey.

        Raises:
            ExternalProviderUnknownError: no such provider.
            ExternalSignInRefusedError: the journey would end outside our own site.
            UnavailableError: the provider can't be asked.
        """
        at = self._provider(provider)
        path = safe_next(next_path)
        if path is None:
            raise ExternalSignInRefusedError("`next` is a path on this site, such as /trade")
        secret = self._desk.random_bytes(BINDING_BYTES)
        binding = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
        journey = Journey(provider, hash_binding(binding), path)
        async with self._desk.database.transaction() as transaction:
            state = await self._desk.make_ticket(
                transaction,
                Purpose.EXTERNAL_SIGN_IN,
                user_id=None,
                data=journey.to_text(),
                now=now,
            )
        url = await at.authorization_url(
            redirect_uri=self._redirect_uri(provider),
            state=state,
            nonce=nonce_of(binding, state),
            verifier=verifier_of(binding, state),
        )
        return url, binding

    async def finish(
        self,
        *,
        provider: str,
        state: str,
        code: str | None,
        issuer: str | None,
        binding: str | None,
        device: Device,
        now: datetime,
    ) -> tuple[SignIn | Challenge, str]:
        """Take a browser back, once; return the sign-in and the path that it began for.

        Args:
            code: None where the provider answered with an error.
            issuer: what the answer says of whom it comes from (RFC 9207).
            binding: what ``begin`` gave the browser.

        Raises:
            ExternalProviderUnknownError: no such provider.
            ExternalSignInRefusedError: another browser began it, or it isn't as it was begun.
            ExternalEmailError: the address can't be connected with a user.
            UserDisabledError: the user is switched off.
            UnavailableError: the provider doesn't answer.
        """
        at = self._provider(provider)
        if not is_ticket(state):
            raise ExternalSignInRefusedError(_ASTRAY)
        async with self._desk.database.transaction() as transaction:
            ticket = await self._desk.repository.tickets.use_ticket(
                transaction, hash_token(state), purpose=Purpose.EXTERNAL_SIGN_IN, now=now
            )
        if ticket is None or binding is None:
            raise ExternalSignInRefusedError(_ASTRAY)
        journey = Journey.of_text(ticket.data)
        is_bound = hmac.compare_digest(journey.binding_hash, hash_binding(binding))
        if not is_bound or journey.provider != provider:
            raise ExternalSignInRefusedError(_ASTRAY)
        if code is None:
            raise ExternalSignInRefusedError("the provider did not sign you in")
        external = await at.exchange(
            code=code,
            issuer=issuer,
            redirect_uri=self._redirect_uri(provider),
            verifier=verifier_of(binding, state),
            nonce=nonce_of(binding, state),
        )
        return await self._sign_in(external, provider, device, now), journey.next_path

    async def sign_in_with_token(
        self, *, provider: str, token: str, device: Device, now: datetime
    ) -> SignIn | Challenge:
        """Sign in with an ID token that a client got from the provider itself; good once.

        Raises:
            ExternalProviderUnknownError: no such provider.
            ExternalSignInRefusedError: forged, for another client, older than ten minutes, or used.
            ExternalEmailError: the address can't be connected with a user.
            UserDisabledError: the user is switched off.
            UnavailableError: the provider's keys can't be had.
        """
        external = await self._provider(provider).verify_id_token(
            token, nonce=None, age_seconds_max=TOKEN_AGE_SECONDS_MAX
        )
        async with self._desk.database.transaction() as transaction:
            is_new = await self._desk.repository.external.use_token(
                transaction,
                hash_token(token),
                lifetime=timedelta(seconds=2 * TOKEN_AGE_SECONDS_MAX),
                now=now,
            )
        if not is_new:
            raise ExternalSignInRefusedError("this token was used before; sign in again")
        return await self._sign_in(external, provider, device, now)

    def _provider(self, name: str) -> IdentityProvider:
        found = self._providers.get(name)
        if found is None:
            raise ExternalProviderUnknownError("no such sign-in provider is configured here")
        return found

    def _redirect_uri(self, provider: str) -> str:
        site = self._desk.policy.site.rstrip("/")
        return f"{site}/api/v1/auth/oauth/{provider}/callback"

    async def _sign_in(
        self, external: ExternalUser, provider: str, device: Device, now: datetime
    ) -> SignIn | Challenge:
        async with self._desk.database.transaction() as transaction:
            user = await self._connected(transaction, external, provider, device, now)
            if not user.is_active:
                raise UserDisabledError("this user was disabled; ask an operator")
            factor = await self._desk.repository.second_factors.find_second_factor(
                transaction, user.id
            )
            if factor.is_on:
                # Whoever takes over the provider's account still lacks this.
                purpose = Purpose.SECOND_FACTOR
                token = await self._desk.make_ticket(
                    transaction, purpose, user_id=user.id, data=device.fingerprint, now=now
                )
                return Challenge(token, int(LIFETIMES[purpose].total_seconds()))
            return await self._desk.open_session(
                transaction, user, device, method=f"oidc:{provider}", now=now
            )

    async def _connected(
        self,
        transaction: Transaction,
        external: ExternalUser,
        provider: str,
        device: Device,
        now: datetime,
    ) -> User:
        """Return the user who is connected with somebody at a provider, made if need be; locked.

        A user with that address is connected only when both sides vouch for the address: the
        provider, and a confirmation of ours. Otherwise whoever registered with a stranger's
        address would share the stranger's account. A new connection is audited, and told to whom
        was there before.
        """
        repository = self._desk.repository
        user_id = await repository.external.find_user_id(transaction, external)
        if user_id is not None:
            known = await repository.users.lock_user(transaction, user_id)
            assert known is not None, "users are never removed"
            return known
        user, is_new = await self._add_or_find(transaction, _email(external), external, now)
        if user.email_verified_at is None:
            if user.activated_at is not None:
                raise ExternalEmailError(
                    "a user with this e-mail address exists and hasn't confirmed it; log in with "
                    "the password and confirm it first"
                )
            # A registration that nobody confirmed: its password may be anybody's.
            await repository.users.update_user(
                transaction, user.id, email_verified_at_us=to_us(now), password_hash=None
            )
            user = replace(user, email_verified_at=now, password_hash=None)
        user = await self._desk.activate(transaction, user, now=now)
        await repository.external.connect(transaction, external, user.id, now=now)
        if not is_new:
            await self._desk.mail(
                transaction,
                MailKind.PROVIDER_CONNECTED,
                user,
                now=now,
                device=device,
                provider=provider,
            )
        await self._desk.audit(
            transaction,
            "provider_connect",
            caller=Caller(device.address, user.id),
            now=now,
            about=f"user:{user.id}",
            detail=f"{provider}: {external.subject[:100]}",
        )
        return user

    async def _add_or_find(
        self,
        transaction: Transaction,
        email: EmailAddress,
        external: ExternalUser,
        now: datetime,
    ) -> tuple[User, bool]:
        """Return the user with that address, locked, and whether it was made just now."""
        users = self._desk.repository.users
        new = User(
            id=self._desk.ids.new("usr"),
            email=email,
            full_name=external.full_name[:200],
            picture=external.picture,
            password_hash=None,
            roles=frozenset({Role.USER}),
            is_active=True,
            created_at=now,
            last_login_at=None,
        )
        if await users.add_user(transaction, new):
            return new, True
        there = await users.find_user_by_email(transaction, email.folded)
        assert there is not None, "its address is taken"
        locked = await users.lock_user(transaction, there.id)
        assert locked is not None
        return locked, False


def _email(external: ExternalUser) -> EmailAddress:
    """Return the address that a provider vouches for, by our rules.

    Raises:
        ExternalEmailError: it vouches for none.
    """
    try:
        if external.is_email_verified:
            return parse_email(external.email or "")
    except EmailInvalidError:
        pass
    raise ExternalEmailError("the provider doesn't vouch for your e-mail address")
