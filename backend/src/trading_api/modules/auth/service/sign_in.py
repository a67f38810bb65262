"""Signing in with a password, and a code where the user has a second factor."""

from datetime import datetime

from trading_api.kernel.errors import TradingError
from trading_api.modules.auth.domain import Device, Toll, User, fold_email, hash_token
from trading_api.modules.auth.domain.audit import Caller
from trading_api.modules.auth.domain.mail import MailKind
from trading_api.modules.auth.domain.tickets import LIFETIMES, Purpose, is_ticket
from trading_api.modules.auth.errors import (
    ChallengeInvalidError,
    CredentialsInvalidError,
    EmailUnverifiedError,
    LoginThrottledError,
    SecondFactorInvalidError,
    UserDisabledError,
)
from trading_api.modules.auth.ports import Verification
from trading_api.modules.auth.service.credentials import Credentials
from trading_api.modules.auth.service.desk import Challenge, Desk, SignIn
from trading_api.runtime.database import Transaction

_INVALID = "the e-mail address and password don't belong together"
_CHALLENGE = "this challenge is not accepted; log in again"


class SignInService:
    """Opens sessions for who proves to be a user."""

    def __init__(self, desk: Desk, credentials: Credentials) -> None:
        self._desk = desk
        self._credentials = credentials

    async def log_in(
        self, *, email: str, password: str, device: Device, now: datetime, code: str | None = None
    ) -> SignIn | Challenge:
        """Sign a user in with a password, opening a session on that device.

        Unknown user and wrong password take the same steps and time and give the same answer.

        Args:
            code: of the authenticator, or a recovery code; None where the user has none at hand.

        Returns:
            A challenge where the user has a second factor and no code was given.

        Raises:
            CredentialsInvalidError: they don't belong together.
            UserDisabledError: they do, but the user is switched off.
            EmailUnverifiedError: they do, but the address waits for its confirmation.
            SecondFactorInvalidError: they do, but the code is wrong or used.
            LoginThrottledError: too many failures before; the password wasn't looked at.
            PasswordPoolBusyError: too many sign-ins wait.
        """
        folded = fold_email(email)
        async with self._desk.database.transaction() as transaction:
            user = await self._desk.repository.users.find_user_by_email(transaction, folded)
            tolls = await self._credentials.charge(transaction, user, folded, device, now)
        verification = await self._credentials.verify(password, user)
        async with self._desk.database.transaction() as transaction:
            if user is None or not verification.is_correct:
                outcome: SignIn | Challenge | TradingError = CredentialsInvalidError(_INVALID)
                await self._audit_refusal(transaction, user, device, "refused", now)
            else:
                outcome = await self._go_on(
                    transaction, user, verification, tolls, device, code, now
                )
        return _handed(outcome)

    async def answer_challenge(
        self, *, challenge: str, code: str, device: Device, now: datetime
    ) -> SignIn:
        """Finish a sign-in with the second factor.

        Args:
            code: of the authenticator, or a recovery code.

        Raises:
            ChallengeInvalidError: unknown, used, expired, tried too often, or of another device.
            SecondFactorInvalidError: the code is wrong or used.
            UserDisabledError: the user was switched off meanwhile.
            LoginThrottledError: too many wrong codes before.
        """
        if not is_ticket(challenge):
            raise ChallengeInvalidError(_CHALLENGE)
        token_hash, repository = hash_token(challenge), self._desk.repository
        async with self._desk.database.transaction() as transaction:
            ticket = await repository.tickets.count_attempt(
                transaction, token_hash, purpose=Purpose.SECOND_FACTOR, now=now
            )
            if ticket is None or ticket.user_id is None or ticket.data != device.fingerprint:
                raise ChallengeInvalidError(_CHALLENGE)
            user = await repository.users.lock_user(transaction, ticket.user_id)
            if user is None or not user.is_active:
                raise UserDisabledError("this user was disabled; ask an operator")
            outcome = await self._with_code(transaction, user, device, code, now)
            if isinstance(outcome, SignIn):
                await repository.tickets.use_ticket(
                    transaction, token_hash, purpose=Purpose.SECOND_FACTOR, now=now
                )
        if isinstance(outcome, TradingError):
            raise outcome
        return outcome

    async def _go_on(
        self,
        transaction: Transaction,
        seen: User,
        verification: Verification,
        tolls: list[Toll],
        device: Device,
        code: str | None,
        now: datetime,
    ) -> SignIn | Challenge | TradingError:
        """Decide what a right password gives; what it returns is committed, errors too."""
        user = await self._desk.repository.users.lock_user(transaction, seen.id)
        if user is None or user.password_hash != seen.password_hash:
            await self._audit_refusal(transaction, seen, device, "refused", now)
            return CredentialsInvalidError(_INVALID)
        if not user.is_active:
            await self._audit_refusal(transaction, user, device, "disabled", now)
            if seen.is_active:
                return CredentialsInvalidError(_INVALID)
            return UserDisabledError("this user was disabled; ask an operator")
        if user.activated_at is None:
            await self._audit_refusal(transaction, user, device, "unverified", now)
            return EmailUnverifiedError(
                "confirm your e-mail address first; POST /api/v1/auth/email/resend sends the mail"
            )
        await self._credentials.give_back(transaction, tolls)
        factor = await self._desk.repository.second_factors.find_second_factor(transaction, user.id)
        if not factor.is_on:
            return await self._desk.open_session(
                transaction,
                user,
                device,
                method="password",
                now=now,
                password_hash=verification.upgraded_hash,
            )
        if code is not None:
            return await self._with_code(transaction, user, device, code, now)
        token = await self._desk.make_ticket(
            transaction,
            Purpose.SECOND_FACTOR,
            user_id=user.id,
            data=device.fingerprint,
            now=now,
        )
        await self._audit_refusal(transaction, user, device, "second_factor_asked", now)
        lifetime = LIFETIMES[Purpose.SECOND_FACTOR]
        return Challenge(token, int(lifetime.total_seconds()))

    async def _with_code(
        self, transaction: Transaction, user: User, device: Device, code: str, now: datetime
    ) -> SignIn | TradingError:
        try:
            tolls = await self._credentials.charge_code(transaction, user, device, now)
        except LoginThrottledError as error:
            await self._audit_refusal(transaction, user, device, "throttled", now)
            return error
        factor = await self._desk.repository.second_factors.find_second_factor(transaction, user.id)
        used = None
        if factor.is_on:
            used = await self._credentials.check_code(transaction, factor, code, now)
        if used is None:
            await self._audit_refusal(transaction, user, device, "second_factor_wrong", now)
            return SecondFactorInvalidError("this code is wrong or was used; wait for the next one")
        await self._credentials.give_back(transaction, tolls)
        if used == "recovery_code":
            left = await self._desk.repository.second_factors.count_recovery_codes(
                transaction, user.id
            )
            await self._desk.mail(
                transaction,
                MailKind.RECOVERY_CODE_USED,
                user,
                now=now,
                device=device,
                left=str(left),
            )
        return await self._desk.open_session(
            transaction, user, device, method=f"password+{used}", now=now
        )

    async def _audit_refusal(
        self,
        transaction: Transaction,
        user: User | None,
        device: Device,
        outcome: str,
        now: datetime,
    ) -> None:
        await self._desk.audit(
            transaction,
            "login",
            outcome=outcome,
            caller=Caller(device.address, None if user is None else user.id),
            now=now,
        )


def _handed(outcome: SignIn | Challenge | TradingError) -> SignIn | Challenge:
    if isinstance(outcome, TradingError):
        raise outcome
    return outcome
