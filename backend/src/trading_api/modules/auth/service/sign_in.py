"""Signing in with a password."""

from dataclasses import replace
from datetime import datetime, timedelta

from trading_api.modules.auth.domain import (
    Device,
    Toll,
    User,
    fold_email,
    new_refresh_token,
    normalize_password,
)
from trading_api.modules.auth.domain.audit import Caller
from trading_api.modules.auth.domain.passwords import LENGTH_MAX
from trading_api.modules.auth.domain.sessions import TOKEN_BYTES
from trading_api.modules.auth.errors import (
    CredentialsInvalidError,
    LoginThrottledError,
    UserDisabledError,
)
from trading_api.modules.auth.ports import Verification
from trading_api.modules.auth.service.desk import Desk, SignIn
from trading_api.runtime.database import Transaction

_INVALID = "the e-mail address and password don't belong together"


class SignInService:
    """Opens sessions for who proves to be a user."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def log_in(self, *, email: str, password: str, device: Device, now: datetime) -> SignIn:
        """Sign a user in with a password, opening a session on that device.

        Unknown user and wrong password take the same steps and time and give the same answer.

        Raises:
            CredentialsInvalidError: they don't belong together.
            UserDisabledError: they do, but the user is switched off.
            LoginThrottledError: too many failures before; the password wasn't looked at.
            PasswordPoolBusyError: too many sign-ins wait.
        """
        folded = fold_email(email)
        async with self._desk.database.transaction() as transaction:
            user = await self._desk.repository.users.find_user_by_email(transaction, folded)
            tolls = await self._charge(transaction, user, folded, device, now)
        verification = await self._verify(password, user)
        async with self._desk.database.transaction() as transaction:
            if user is None or not verification.is_correct:
                await self._desk.audit(
                    transaction,
                    "login",
                    outcome="refused",
                    caller=Caller(device.address, None if user is None else user.id),
                    now=now,
                )
                signed_in = None
            else:
                signed_in = await self._open_session(
                    transaction, user, verification, tolls, device, now
                )
        if signed_in is None:
            if user is not None and verification.is_correct and not user.is_active:
                raise UserDisabledError("this user was disabled; ask an operator")
            raise CredentialsInvalidError(_INVALID)
        return signed_in

    async def _charge(
        self,
        transaction: Transaction,
        user: User | None,
        folded: str,
        device: Device,
        now: datetime,
    ) -> list[Toll]:
        known = (
            user is not None
            and device.has_cookie
            and await self._desk.repository.sessions.has_device(
                transaction, user.id, device.fingerprint
            )
        )
        tolls = self._desk.policy.throttle.tolls(
            folded_email=folded,
            address=device.address,
            known_device=device.fingerprint if known else None,
        )
        for toll in tolls:
            wait = await self._desk.repository.throttles.take(transaction, toll, now=now)
            if wait:
                raise LoginThrottledError(
                    "too many failed sign-ins; wait, then try again",
                    retry_after_seconds=-(-wait // timedelta(seconds=1)),
                )
        return tolls

    async def _verify(self, password: str, user: User | None) -> Verification:
        normalized = normalize_password(password)
        stored = None if user is None else user.password_hash
        if len(normalized) > LENGTH_MAX:
            # No accepted password is that long; hash something short in its place.
            normalized, stored = "", None
        return await self._desk.hasher.verify(normalized, stored)

    async def _open_session(
        self,
        transaction: Transaction,
        user: User,
        verification: Verification,
        tolls: list[Toll],
        device: Device,
        now: datetime,
    ) -> SignIn | None:
        is_allowed = user.is_active and await self._desk.repository.users.record_login(
            transaction, user, now=now, password_hash=verification.upgraded_hash
        )
        session, token = None, ""
        if is_allowed:
            token = new_refresh_token(self._desk.random_bytes(TOKEN_BYTES))
            session = self._desk.new_session(user, device, token, now)
            await self._desk.repository.sessions.add_session(transaction, session)
            for toll in tolls:
                await self._desk.repository.throttles.give_back(transaction, toll)
        await self._desk.audit(
            transaction,
            "login",
            outcome="done" if session is not None else "disabled",
            caller=Caller(device.address, user.id, None if session is None else session.id),
            now=now,
            about=None if session is None else f"session:{session.id}",
            after=session,
        )
        if session is None:
            return None
        return self._desk.hand_out(replace(user, last_login_at=now), session, token, now)
