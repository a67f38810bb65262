"""How somebody becomes a user."""

from dataclasses import replace
from datetime import datetime

from trading_api.contracts.auth import UserRegistered
from trading_api.modules.auth.domain import EmailAddress, Role, User
from trading_api.modules.auth.domain.audit import Caller
from trading_api.modules.auth.errors import EmailTakenError
from trading_api.modules.auth.service.desk import Desk
from trading_api.runtime.database import Transaction


class RegistrationService:
    """Makes users."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def register(
        self,
        *,
        email: EmailAddress,
        password: str,
        full_name: str,
        caller: Caller,
        now: datetime,
        roles: frozenset[Role] = frozenset({Role.USER}),
    ) -> User:
        """Make a user and publish ``auth.user.registered``.

        Raises:
            PasswordRefusedError: the password breaks a rule.
            EmailTakenError: a user has that address.
            PasswordPoolBusyError: too many sign-ins wait.
        """
        normalized = self._desk.policy.passwords.accept(
            password, about=(email.address, email.address.partition("@")[0], full_name)
        )
        password_hash = await self._desk.hasher.hash(normalized)
        user = User(
            id=self._desk.ids.new("usr"),
            email=email,
            full_name=full_name,
            picture=None,
            password_hash=password_hash,
            roles=roles,
            is_active=True,
            created_at=now,
            last_login_at=None,
        )
        async with self._desk.database.transaction() as transaction:
            if await self._becomes_admin(transaction, email):
                user = replace(user, roles=roles | {Role.ADMIN})
            if not await self._desk.repository.users.add_user(transaction, user):
                raise EmailTakenError("a user with this e-mail address exists; log in instead")
            await self._desk.outbox.add(
                transaction,
                UserRegistered(user_id=user.id, email=email.address, full_name=full_name),
                key=user.id,
                key_sequence=1,
                occurred_at=now,
            )
            await self._desk.audit(
                transaction,
                "user_register",
                caller=caller,
                now=now,
                about=f"user:{user.id}",
                detail=",".join(sorted(user.roles)),
                after=user,
            )
        return user

    async def _becomes_admin(self, transaction: Transaction, email: EmailAddress) -> bool:
        return (
            self._desk.policy.admin_email == email.folded
            and not await self._desk.repository.users.has_admin(transaction)
        )
