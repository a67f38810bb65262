"""Switching the second factor on and off."""

from dataclasses import dataclass
from datetime import datetime

from trading_api.modules.auth.domain import Device, User, normalize_password
from trading_api.modules.auth.domain.audit import Caller
from trading_api.modules.auth.domain.mail import MailKind
from trading_api.modules.auth.domain.second_factor import (
    SECRET_BYTES,
    SecondFactor,
    hash_recovery_code,
    make_secret,
    match_totp,
    new_recovery_codes,
    otpauth_uri,
    plain_code,
)
from trading_api.modules.auth.errors import (
    CodeWrongError,
    PasswordTooShortAloneError,
    PasswordWrongError,
    SecondFactorOffError,
    SecondFactorOnError,
)
from trading_api.modules.auth.service.credentials import Credentials, seal_subject
from trading_api.modules.auth.service.desk import Desk, found
from trading_api.runtime.database import Transaction

_CODE_WRONG = "that isn't the code your authenticator shows now; is its clock right?"


@dataclass(frozen=True, slots=True)
class SetUp:
    """What an authenticator app needs.

    Attributes:
        uri: ``otpauth://…``, as QR codes carry it.
    """

    secret: str
    uri: str


@dataclass(frozen=True, slots=True)
class SecondFactorStatus:
    """What a user has.

    Attributes:
        enabled_at: None while it is off.
    """

    enabled_at: datetime | None
    recovery_codes_left: int
    passkeys: int


class SecondFactorService:
    """Shows, switches on and switches off a user's second factor."""

    def __init__(self, desk: Desk, credentials: Credentials, *, issuer: str) -> None:
        self._desk = desk
        self._credentials = credentials
        self._issuer = issuer

    async def get_status(self, *, user_id: str) -> SecondFactorStatus:
        """Return whether it is on, and how many recovery codes are left."""
        repository = self._desk.repository
        async with self._desk.database.snapshot() as transaction:
            factor = await repository.second_factors.find_second_factor(transaction, user_id)
            left = await repository.second_factors.count_recovery_codes(transaction, user_id)
            passkeys = await repository.passkeys.list_passkeys(transaction, user_id)
        return SecondFactorStatus(factor.enabled_at, left, len(passkeys))

    async def set_up(self, *, caller: Caller) -> SetUp:
        """Return the secret that ``enable`` would switch on for this session.

        It changes nothing: the secret follows from the session, and is stored when it is enabled.

        Raises:
            SecondFactorOnError: it is on already.
        """
        assert caller.user_id is not None
        async with self._desk.database.snapshot() as transaction:
            user = found(await self._desk.repository.users.find_user(transaction, caller.user_id))
            factor = await self._desk.repository.second_factors.find_second_factor(
                transaction, user.id
            )
        _ensure_off(factor)
        secret = self._offered_secret(caller, factor)
        return SetUp(secret, otpauth_uri(secret, email=user.email.address, issuer=self._issuer))

    async def enable(
        self,
        *,
        caller: Caller,
        code: str,
        password: str | None,
        device: Device,
        now: datetime,
    ) -> list[str]:
        """Switch it on with a code of the secret that ``set_up`` gave this session.

        Returns:
            Recovery codes, shown once.

        Raises:
            SecondFactorOnError: it is on already.
            CodeWrongError: the authenticator shows another code.
            PasswordWrongError, SessionNotFreshError, LoginThrottledError: see ``prove``.
        """
        user = await self._credentials.prove(
            caller=caller, password=password, device=device, now=now
        )
        codes = new_recovery_codes(self._desk.random_bytes)
        async with self._desk.database.transaction() as transaction:
            user = await self._lock(transaction, user)
            factor = await self._desk.repository.second_factors.find_second_factor(
                transaction, user.id
            )
            _ensure_off(factor)
            secret = self._offered_secret(caller, factor)
            step = match_totp(secret, plain_code(code), now=now, last_step=None)
            if step is None:
                raise CodeWrongError(_CODE_WRONG)
            await self._desk.repository.second_factors.switch_on(
                transaction,
                SecondFactor(
                    user_id=user.id,
                    sealed_secret=self._desk.sealer.seal(secret, about=seal_subject(user.id)),
                    enabled_at=now,
                    last_step=step,
                    generation=factor.generation,
                ),
                code_hashes=[hash_recovery_code(user.id, each) for each in codes],
            )
            await self._desk.mail(
                transaction, MailKind.SECOND_FACTOR_ON, user, now=now, device=device
            )
            await self._audit(transaction, "second_factor_on", user, caller, now)
        return codes

    async def disable(
        self,
        *,
        caller: Caller,
        code: str,
        password: str | None,
        device: Device,
        now: datetime,
    ) -> None:
        """Switch it off, with a code or a recovery code.

        Raises:
            SecondFactorOffError: it is off already.
            CodeWrongError: not a good code.
            PasswordTooShortAloneError: choose a longer password first.
            PasswordWrongError, SessionNotFreshError, LoginThrottledError: see ``prove``.
        """
        user = await self._credentials.prove(
            caller=caller, password=password, device=device, now=now
        )
        is_short = password is not None and self._desk.policy.passwords.is_short(
            normalize_password(password)
        )
        if user.password_hash is not None and (user.has_short_password or is_short):
            raise PasswordTooShortAloneError(
                f"choose a password of at least {self._desk.policy.passwords.length_min} "
                "characters first"
            )
        wrong = False
        async with self._desk.database.transaction() as transaction:
            user = await self._lock(transaction, user)
            factor = await self._desk.repository.second_factors.find_second_factor(
                transaction, user.id
            )
            if not factor.is_on:
                raise SecondFactorOffError("there is no second factor to switch off")
            tolls = await self._credentials.charge_code(transaction, user, device, now)
            if await self._credentials.check_code(transaction, factor, code, now) is None:
                wrong = True
            else:
                await self._credentials.give_back(transaction, tolls)
                await self._desk.repository.second_factors.switch_off(transaction, user.id)
                await self._desk.mail(
                    transaction, MailKind.SECOND_FACTOR_OFF, user, now=now, device=device
                )
                await self._audit(transaction, "second_factor_off", user, caller, now)
        if wrong:
            raise CodeWrongError(_CODE_WRONG)

    async def renew_recovery_codes(
        self, *, caller: Caller, password: str | None, device: Device, now: datetime
    ) -> list[str]:
        """Replace the recovery codes; return the new ones, shown once.

        Raises:
            SecondFactorOffError: there is no second factor.
            PasswordWrongError, SessionNotFreshError, LoginThrottledError: see ``prove``.
        """
        user = await self._credentials.prove(
            caller=caller, password=password, device=device, now=now
        )
        codes = new_recovery_codes(self._desk.random_bytes)
        async with self._desk.database.transaction() as transaction:
            user = await self._lock(transaction, user)
            factor = await self._desk.repository.second_factors.find_second_factor(
                transaction, user.id
            )
            if not factor.is_on:
                raise SecondFactorOffError("switch the second factor on first")
            await self._desk.repository.second_factors.replace_recovery_codes(
                transaction, user.id, [hash_recovery_code(user.id, each) for each in codes]
            )
            await self._audit(transaction, "recovery_codes_renew", user, caller, now)
        return codes

    def _offered_secret(self, caller: Caller, factor: SecondFactor) -> str:
        label = f"totp:{caller.user_id}:{caller.session_id}:{factor.generation}"
        return make_secret(self._desk.sealer.derive(label, SECRET_BYTES))

    async def _lock(self, transaction: Transaction, proven: User) -> User:
        """Return the user locked, as long as what was proven still holds."""
        user = found(await self._desk.repository.users.lock_user(transaction, proven.id))
        if user.password_hash != proven.password_hash:
            raise PasswordWrongError("the password was changed meanwhile")
        return user

    async def _audit(
        self, transaction: Transaction, action: str, user: User, caller: Caller, now: datetime
    ) -> None:
        await self._desk.audit(transaction, action, caller=caller, now=now, about=f"user:{user.id}")


def _ensure_off(factor: SecondFactor) -> None:
    if factor.is_on:
        raise SecondFactorOnError("there is a second factor already; switch it off first")
