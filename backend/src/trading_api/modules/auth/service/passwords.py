"""Changing a password, and setting a new one where it is forgotten."""

from dataclasses import replace
from datetime import datetime

from trading_api.kernel.clock import to_us
from trading_api.modules.auth.domain import (
    Device,
    EmailAddress,
    User,
    hash_token,
    normalize_password,
)
from trading_api.modules.auth.domain.audit import HOST, Caller
from trading_api.modules.auth.domain.mail import MailKind
from trading_api.modules.auth.domain.tickets import Purpose, is_ticket
from trading_api.modules.auth.errors import MailTokenInvalidError, PasswordWrongError
from trading_api.modules.auth.service.credentials import LINK_REFUSED, Credentials
from trading_api.modules.auth.service.desk import Desk, SignIn, found
from trading_api.runtime.database import Transaction


class PasswordService:
    """Sets passwords; each new one ends every session."""

    def __init__(self, desk: Desk, credentials: Credentials) -> None:
        self._desk = desk
        self._credentials = credentials

    async def change(
        self,
        *,
        caller: Caller,
        current: str | None,
        new: str,
        device: Device,
        now: datetime,
    ) -> SignIn:
        """Change a password; every session ends, and this device gets a new one.

        Raises:
            PasswordRefusedError: the new one breaks a rule.
            PasswordWrongError, SessionNotFreshError, LoginThrottledError: see ``prove``.
            PasswordPoolBusyError: too many sign-ins wait.
        """
        proven = await self._credentials.prove(
            caller=caller, password=current, device=device, now=now
        )
        password_hash, is_short = await self._hash(proven, new)
        async with self._desk.database.transaction() as transaction:
            user = found(await self._desk.repository.users.lock_user(transaction, proven.id))
            if user.password_hash != proven.password_hash or not user.is_active:
                raise PasswordWrongError("the password was changed meanwhile")
            changed = await self._set(transaction, user, password_hash, is_short, device, now)
            return await self._desk.open_session(
                transaction,
                changed,
                device,
                action="password_change",
                method="password",
                now=now,
            )

    async def ask_for_reset(self, *, email: EmailAddress, now: datetime) -> None:
        """Have a mail sent with which a new password can be set.

        Whether a user has that address shows neither in the answer nor in the work.
        """
        async with self._desk.database.transaction() as transaction:
            await self._desk.mail(transaction, MailKind.PASSWORD_RESET, email, now=now)

    async def reset(self, *, token: str, new: str, device: Device, now: datetime) -> None:
        """Set a new password with the token of the mail; sessions, API keys and share tokens end.

        A second factor stays on: who can read the mails alone doesn't get in. Where nobody had
        confirmed the address before, it and passkeys go too: somebody else may have registered
        with the address and set them.

        Raises:
            MailTokenInvalidError: unknown, used or expired.
            PasswordRefusedError: the new one breaks a rule; the token stays good.
            PasswordPoolBusyError: too many sign-ins wait.
        """
        if not is_ticket(token):
            raise MailTokenInvalidError(LINK_REFUSED)
        digest, repository = hash_token(token), self._desk.repository
        async with self._desk.database.snapshot() as transaction:
            ticket = await repository.tickets.find_ticket(
                transaction, digest, purpose=Purpose.PASSWORD_RESET, now=now
            )
            seen = (
                None
                if ticket is None or ticket.user_id is None
                else await repository.users.find_user(transaction, ticket.user_id)
            )
        if seen is None:
            raise MailTokenInvalidError(LINK_REFUSED)
        is_first = seen.email_verified_at is None
        password_hash, is_short = await self._hash(seen, new, keeps_factor=not is_first)
        async with self._desk.database.transaction() as transaction:
            used = await repository.tickets.use_ticket(
                transaction, digest, purpose=Purpose.PASSWORD_RESET, now=now
            )
            if used is None:
                raise MailTokenInvalidError(LINK_REFUSED)
            user = found(await repository.users.lock_user(transaction, seen.id))
            # Who reads the address's mails has confirmed it by that.
            await repository.users.update_user(
                transaction, user.id, email_verified_at_us=to_us(user.email_verified_at or now)
            )
            active = await self._desk.activate(
                transaction,
                replace(user, email_verified_at=user.email_verified_at or now),
                now=now,
            )
            count = await self._revoke_keys(transaction, user.id, "password_reset", now)
            ended = [f"{count} API keys and share tokens"]
            if is_first:
                count = await repository.passkeys.remove_passkeys(transaction, user.id)
                await repository.second_factors.switch_off(transaction, user.id)
                ended.append(f"{count} passkeys and any second factor")
            changed = await self._set(
                transaction,
                active,
                password_hash,
                is_short,
                device,
                now,
                also=f" So ended: {', '.join(ended)}.",
            )
            await self._desk.audit(
                transaction,
                "password_reset",
                caller=Caller(device.address, user.id),
                now=now,
                about=f"user:{user.id}",
                detail=f"ended: {', '.join(ended)}",
                before=user,
                after=changed,
            )

    async def set_by_operator(self, *, email: str, new: str, now: datetime) -> User:
        """Set a user's password at the host; sessions, API keys and share tokens end.

        Raises:
            UserNotFoundError: there is none with that address.
            PasswordRefusedError: it breaks a rule.
        """
        async with self._desk.database.transaction() as transaction:
            seen = await self._desk.lock_by_email(transaction, email)
        password_hash, is_short = await self._hash(seen, new)
        device = Device.of(address="host", user_agent="operator", hints=(), cookie="")
        async with self._desk.database.transaction() as transaction:
            user = await self._desk.lock_by_email(transaction, email)
            count = await self._revoke_keys(transaction, user.id, "password_set", now)
            changed = await self._set(transaction, user, password_hash, is_short, device, now)
            await self._desk.audit(
                transaction,
                "password_set",
                caller=HOST,
                now=now,
                about=f"user:{user.id}",
                detail=f"ended: {count} API keys and share tokens",
                before=user,
                after=changed,
            )
        return changed

    async def _revoke_keys(
        self, transaction: Transaction, user_id: str, reason: str, now: datetime
    ) -> int:
        """End a user's API keys and share tokens; return how many."""
        live = await self._desk.repository.api_keys.list_live_keys(
            transaction, user_id, kinds=("live", "share"), now=now
        )
        revoked = await self._desk.revoke_keys(
            transaction, user_id, [each.id for each in live], reason=reason, now=now
        )
        return len(revoked)

    async def _hash(self, user: User, new: str, *, keeps_factor: bool = True) -> tuple[str, bool]:
        """Return the hash of an accepted password and whether it needs the second factor.

        Args:
            keeps_factor: whether a second factor that is on stays on.
        """
        rules = self._desk.policy.passwords
        async with self._desk.database.snapshot() as transaction:
            factor = await self._desk.repository.second_factors.find_second_factor(
                transaction, user.id
            )
        address = user.email.address
        normalized = rules.accept(
            new,
            about=(address, address.partition("@")[0], user.full_name),
            has_second_factor=factor.is_on and keeps_factor,
        )
        is_short = rules.is_short(normalize_password(normalized))
        return await self._desk.hasher.hash(normalized), is_short

    async def _set(
        self,
        transaction: Transaction,
        user: User,
        password_hash: str,
        is_short: bool,
        device: Device,
        now: datetime,
        *,
        also: str = "",
    ) -> User:
        """Store a password hash, end every session, void tickets, free the account, and tell.

        Args:
            also: what the mail tells besides.
        """
        if is_short:
            factor = await self._desk.repository.second_factors.find_second_factor(
                transaction, user.id
            )
            if not factor.is_on:
                raise PasswordWrongError("the second factor was switched off meanwhile")
        await self._desk.repository.users.update_user(
            transaction, user.id, password_hash=password_hash, has_short_password=is_short
        )
        await self._desk.repository.tickets.void_tickets(
            transaction,
            user.id,
            Purpose.PASSWORD_RESET,
            Purpose.SECOND_FACTOR,
            Purpose.PASSKEY_REGISTER,
        )
        await self._desk.free_account(transaction, user)
        await self._desk.end_sessions(transaction, user.id, None, "password_changed", now=now)
        await self._desk.mail(
            transaction, MailKind.PASSWORD_CHANGED, user, now=now, device=device, also=also
        )
        return replace(user, password_hash=password_hash, has_short_password=is_short)
