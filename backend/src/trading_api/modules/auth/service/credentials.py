"""Checking passwords and codes: what an attempt costs, and what it proves."""

from datetime import datetime, timedelta

from trading_api.modules.auth.domain import Device, Toll, User, normalize_password
from trading_api.modules.auth.domain.audit import Caller
from trading_api.modules.auth.domain.passwords import LENGTH_MAX
from trading_api.modules.auth.domain.second_factor import (
    SecondFactor,
    hash_recovery_code,
    is_totp,
    match_totp,
    plain_code,
)
from trading_api.modules.auth.errors import (
    LoginThrottledError,
    PasswordWrongError,
    SessionNotFreshError,
    UserDisabledError,
)
from trading_api.modules.auth.ports import Verification
from trading_api.modules.auth.service.desk import Desk, found
from trading_api.runtime.database import Transaction

LINK_REFUSED = "this link is not accepted: used, expired or replaced; ask for another"

FRESH = timedelta(minutes=10)
"""Who has no password proves who is asking by a session that began at most so long ago."""


class Credentials:
    """Steps that use cases take to see whether somebody is who they say."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def charge(
        self,
        transaction: Transaction,
        user: User | None,
        folded: str,
        device: Device,
        now: datetime,
    ) -> list[Toll]:
        """Charge an attempt with a password; ``give_back`` when it succeeds.

        Raises:
            LoginThrottledError: there were too many.
        """
        tolls = self._desk.policy.throttle.tolls(
            folded_email=folded,
            address=device.address,
            known_device=await self._known_device(transaction, user, device),
        )
        await self._take(transaction, tolls, now)
        return tolls

    async def charge_code(
        self, transaction: Transaction, user: User, device: Device, now: datetime
    ) -> list[Toll]:
        """Charge an attempt with a code; ``give_back`` when it succeeds.

        Raises:
            LoginThrottledError: there were too many.
        """
        tolls = self._desk.policy.throttle.code_tolls(
            user_id=user.id, known_device=await self._known_device(transaction, user, device)
        )
        await self._take(transaction, tolls, now)
        return tolls

    async def give_back(self, transaction: Transaction, tolls: list[Toll]) -> None:
        """Return what a successful attempt was charged."""
        for toll in tolls:
            await self._desk.repository.throttles.give_back(transaction, toll)

    async def verify(self, password: str, user: User | None) -> Verification:
        """Compare a password; nobody's takes as long as somebody's."""
        normalized = normalize_password(password)
        stored = None if user is None else user.password_hash
        if len(normalized) > LENGTH_MAX:
            # No accepted password is that long; hash something short in its place.
            normalized, stored = "", None
        return await self._desk.hasher.verify(normalized, stored)

    async def prove(
        self, *, caller: Caller, password: str | None, device: Device, now: datetime
    ) -> User:
        """Have a signed-in user prove again who is asking, before credentials change.

        Returns:
            The user as of before; the caller's transaction compares the password hash.

        Raises:
            PasswordWrongError: not the user's password, or none was given.
            UserDisabledError: the user was switched off.
            SessionNotFreshError: the user has none, and signed in too long ago.
            LoginThrottledError: too many wrong ones before.
        """
        assert caller.user_id is not None
        async with self._desk.database.transaction() as transaction:
            user = found(await self._desk.repository.users.find_user(transaction, caller.user_id))
            if not user.is_active:
                raise UserDisabledError("this user was disabled; ask an operator")
            if user.password_hash is None:
                sessions = await self._desk.repository.sessions.list_live_sessions(
                    transaction, user.id, now=now
                )
                if any(
                    each.id == caller.session_id and now - each.created_at <= FRESH
                    for each in sessions
                ):
                    return user
                raise SessionNotFreshError("sign in again; this needs a sign-in of just now")
            if password is None:
                raise PasswordWrongError("this needs your password once more")
            tolls = await self.charge(transaction, user, user.email.folded, device, now)
        verification = await self.verify(password, user)
        if not verification.is_correct:
            raise PasswordWrongError("that isn't your password")
        async with self._desk.database.transaction() as transaction:
            await self.give_back(transaction, tolls)
        return user

    async def check_code(
        self, transaction: Transaction, factor: SecondFactor, typed: str, now: datetime
    ) -> str | None:
        """Use a code up; return what it was, ``totp`` or ``recovery_code``, or None."""
        code = plain_code(typed)
        repository = self._desk.repository.second_factors
        if is_totp(code):
            step = match_totp(self.secret_of(factor), code, now=now, last_step=factor.last_step)
            if step is None or not await repository.use_step(transaction, factor.user_id, step):
                return None
            return "totp"
        digest = hash_recovery_code(factor.user_id, code)
        if await repository.use_recovery_code(transaction, factor.user_id, digest, now=now):
            return "recovery_code"
        return None

    def secret_of(self, factor: SecondFactor) -> str:
        """Return the secret of a second factor that is on."""
        assert factor.sealed_secret is not None
        return self._desk.sealer.open(factor.sealed_secret, about=seal_subject(factor.user_id))

    async def _known_device(
        self, transaction: Transaction, user: User | None, device: Device
    ) -> str | None:
        known = (
            user is not None
            and device.has_cookie
            and await self._desk.repository.sessions.has_device(
                transaction, user.id, device.fingerprint
            )
        )
        return device.fingerprint if known else None

    async def _take(self, transaction: Transaction, tolls: list[Toll], now: datetime) -> None:
        for toll in tolls:
            wait = await self._desk.repository.throttles.take(transaction, toll, now=now)
            if wait:
                raise LoginThrottledError(
                    "too many failed attempts; wait, then try again",
                    retry_after_seconds=-(-wait // timedelta(seconds=1)),
                )


def seal_subject(user_id: str) -> str:
    """Return what a user's secret is sealed for."""
    return f"totp:{user_id}"
