"""Passkeys: registering them, and signing in with one instead of a password."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from trading_api.kernel.errors import TradingError
from trading_api.modules.auth.domain import Device, hash_token
from trading_api.modules.auth.domain.audit import Caller
from trading_api.modules.auth.domain.mail import MailKind
from trading_api.modules.auth.domain.passkeys import PER_USER_MAX, Passkey, is_copy
from trading_api.modules.auth.domain.tickets import Purpose, is_ticket
from trading_api.modules.auth.errors import (
    ChallengeInvalidError,
    PasskeyInvalidError,
    PasskeyNotFoundError,
    PasskeyTakenError,
    UserDisabledError,
)
from trading_api.modules.auth.ports import PasskeyChecker
from trading_api.modules.auth.service.credentials import Credentials
from trading_api.modules.auth.service.desk import Desk, SignIn, found
from trading_api.runtime.database import Transaction

_CHALLENGE = "this challenge is not accepted; begin again"
_REFUSED = "this passkey is not accepted"


class PasskeyService:
    """Registers, lists and removes passkeys, and signs in with them."""

    def __init__(self, desk: Desk, credentials: Credentials, checker: PasskeyChecker) -> None:
        self._desk = desk
        self._credentials = credentials
        self._checker = checker

    async def offer(
        self, *, caller: Caller, password: str | None, device: Device, now: datetime
    ) -> Mapping[str, Any]:
        """Return what the browser needs to make a passkey; good for a few minutes.

        Raises:
            PasskeyTakenError: the user has as many as are allowed.
            PasswordWrongError, SessionNotFreshError, LoginThrottledError: see ``prove``.
        """
        user = await self._credentials.prove(
            caller=caller, password=password, device=device, now=now
        )
        async with self._desk.database.transaction() as transaction:
            known = await self._desk.repository.passkeys.list_passkeys(transaction, user.id)
            _ensure_room(len(known))
            challenge = await self._desk.make_ticket(
                transaction, Purpose.PASSKEY_REGISTER, user_id=user.id, data="", now=now
            )
            await self._desk.audit(
                transaction, "passkey_offer", caller=caller, now=now, about=f"user:{user.id}"
            )
        return self._checker.registration_options(
            user_id=user.id,
            email=user.email.address,
            full_name=user.full_name,
            challenge=challenge,
            known=[each.credential_id for each in known],
        )

    async def register(
        self,
        *,
        caller: Caller,
        name: str,
        credential: Mapping[str, Any],
        device: Device,
        now: datetime,
    ) -> Passkey:
        """Store a passkey that the browser made from ``offer``.

        Raises:
            ChallengeInvalidError: not made from an offer to this user, or too late.
            PasskeyInvalidError: it breaks a rule of WebAuthn.
            PasskeyTakenError: it is registered already, or there are too many.
            UserDisabledError, SessionEndedError: see ``lock_acting``.
        """
        challenge, repository = self._checker.challenge_of(credential), self._desk.repository
        if not is_ticket(challenge):
            raise ChallengeInvalidError(_CHALLENGE)
        made = self._checker.check_registration(credential, challenge=challenge)
        async with self._desk.database.transaction() as transaction:
            ticket = await repository.tickets.use_ticket(
                transaction, hash_token(challenge), purpose=Purpose.PASSKEY_REGISTER, now=now
            )
            if ticket is None or ticket.user_id is None or ticket.user_id != caller.user_id:
                raise ChallengeInvalidError(_CHALLENGE)
            user = await self._desk.lock_acting(transaction, caller, now)
            _ensure_room(len(await repository.passkeys.list_passkeys(transaction, user.id)))
            passkey = Passkey(
                id=self._desk.ids.new("psk"),
                user_id=user.id,
                credential_id=made.credential_id,
                public_key=made.public_key,
                sign_count=made.sign_count,
                name=name,
                is_backed_up=made.is_backed_up,
                created_at=now,
                last_used_at=None,
            )
            if not await repository.passkeys.add_passkey(transaction, passkey):
                raise PasskeyTakenError("this passkey is registered already")
            await self._desk.mail(
                transaction, MailKind.PASSKEY_ADDED, user, now=now, device=device, name=name
            )
            await self._desk.audit(
                transaction,
                "passkey_add",
                caller=caller,
                now=now,
                about=f"passkey:{passkey.id}",
                after=passkey,
            )
        return passkey

    async def list_passkeys(self, *, user_id: str) -> list[Passkey]:
        """Return a user's passkeys, oldest first."""
        async with self._desk.database.snapshot() as transaction:
            return await self._desk.repository.passkeys.list_passkeys(transaction, user_id)

    async def remove(
        self, *, caller: Caller, passkey_id: str, device: Device, now: datetime
    ) -> None:
        """Remove a passkey of the caller.

        Raises:
            PasskeyNotFoundError: the caller has no such passkey.
        """
        assert caller.user_id is not None
        async with self._desk.database.transaction() as transaction:
            removed = await self._desk.repository.passkeys.remove_passkey(
                transaction, user_id=caller.user_id, passkey_id=passkey_id
            )
            if removed is None:
                raise PasskeyNotFoundError(
                    "there is no such passkey; see GET /api/v1/auth/passkeys"
                )
            user = found(await self._desk.repository.users.find_user(transaction, caller.user_id))
            await self._desk.mail(
                transaction,
                MailKind.PASSKEY_REMOVED,
                user,
                now=now,
                device=device,
                name=removed.name,
            )
            await self._desk.audit(
                transaction,
                "passkey_remove",
                caller=caller,
                now=now,
                about=f"passkey:{passkey_id}",
                before=removed,
            )

    async def ask(self, *, now: datetime) -> Mapping[str, Any]:
        """Return what the browser needs to sign in with any passkey of ours."""
        async with self._desk.database.transaction() as transaction:
            challenge = await self._desk.make_ticket(
                transaction, Purpose.PASSKEY_SIGN_IN, user_id=None, data="", now=now
            )
        return self._checker.sign_in_options(challenge=challenge)

    async def sign_in(
        self, *, credential: Mapping[str, Any], device: Device, now: datetime
    ) -> SignIn:
        """Sign in with a passkey; it stands for password and second factor both.

        Raises:
            ChallengeInvalidError: unknown, used or expired.
            PasskeyInvalidError: unknown, or the signature is wrong, or it was copied.
            UserDisabledError: its user is switched off.
        """
        challenge = self._checker.challenge_of(credential)
        if not is_ticket(challenge):
            raise ChallengeInvalidError(_CHALLENGE)
        async with self._desk.database.transaction() as transaction:
            ticket = await self._desk.repository.tickets.use_ticket(
                transaction, hash_token(challenge), purpose=Purpose.PASSKEY_SIGN_IN, now=now
            )
            if ticket is None:
                raise ChallengeInvalidError(_CHALLENGE)
            outcome = await self._judge(transaction, credential, challenge, device, now)
        if isinstance(outcome, TradingError):
            raise outcome
        return outcome

    async def _judge(
        self,
        transaction: Transaction,
        credential: Mapping[str, Any],
        challenge: str,
        device: Device,
        now: datetime,
    ) -> SignIn | TradingError:
        """Decide about a signature; what it returns is committed, errors too."""
        repository = self._desk.repository
        credential_id = self._checker.credential_id_of(credential)
        passkey = await repository.passkeys.find_passkey(transaction, credential_id)
        if passkey is None:
            await self._refuse(transaction, None, device, "passkey_unknown", now)
            return PasskeyInvalidError(_REFUSED)
        try:
            use = self._checker.check_sign_in(
                credential, challenge=challenge, public_key=passkey.public_key
            )
        except PasskeyInvalidError as error:
            await self._refuse(transaction, passkey, device, "passkey_wrong", now)
            return error
        if is_copy(stored_count=passkey.sign_count, new_count=use.sign_count):
            await self._refuse(transaction, passkey, device, "passkey_copied", now)
            return PasskeyInvalidError(_REFUSED)
        user = found(await repository.users.lock_user(transaction, passkey.user_id))
        if not user.is_active or user.activated_at is None:
            await self._refuse(transaction, passkey, device, "disabled", now)
            return UserDisabledError("this user was disabled; ask an operator")
        await repository.passkeys.record_use(
            transaction, passkey.id, sign_count=use.sign_count, now=now
        )
        await self._desk.free_account(transaction, user)
        return await self._desk.open_session(
            transaction, user, device, method=f"passkey {passkey.id}", now=now
        )

    async def _refuse(
        self,
        transaction: Transaction,
        passkey: Passkey | None,
        device: Device,
        outcome: str,
        now: datetime,
    ) -> None:
        await self._desk.audit(
            transaction,
            "login",
            outcome=outcome,
            caller=Caller(device.address, None if passkey is None else passkey.user_id),
            now=now,
            about=None if passkey is None else f"passkey:{passkey.id}",
        )


def _ensure_room(count: int) -> None:
    if count >= PER_USER_MAX:
        raise PasskeyTakenError(f"{PER_USER_MAX} passkeys are enough; remove one first")
