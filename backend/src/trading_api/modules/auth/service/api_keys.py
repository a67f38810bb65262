"""API keys for programs, and share tokens that show one trading account to a guest."""

import hmac
from datetime import datetime, timedelta

from trading_api.contracts.auth import ApiKeyAnswer, ApiKeyQuestion
from trading_api.kernel.credentials import new_credential
from trading_api.kernel.errors import FieldError
from trading_api.modules.auth.domain import Device
from trading_api.modules.auth.domain.api_keys import (
    KEYS_MAX,
    SHARED_SCOPE,
    ApiKey,
    ApiKeyKind,
    grantable_scopes,
    needs_proof,
)
from trading_api.modules.auth.domain.audit import Caller
from trading_api.modules.auth.domain.mail import MailKind
from trading_api.modules.auth.domain.users import User, scopes_of
from trading_api.modules.auth.errors import (
    ApiKeyLimitError,
    ApiKeyNotFoundError,
    ApiKeyRefusedError,
    ApiKeyScopeError,
    PasswordWrongError,
)
from trading_api.modules.auth.service.credentials import Credentials
from trading_api.modules.auth.service.desk import Desk
from trading_api.runtime.database import Transaction

_USE_NOTED = timedelta(minutes=1)


class ApiKeyService:
    """Makes, lists, revokes and resolves keys."""

    def __init__(self, desk: Desk, credentials: Credentials) -> None:
        self._desk = desk
        self._credentials = credentials

    async def create_key(
        self,
        *,
        name: str,
        scopes: frozenset[str],
        expires_at: datetime | None,
        ip_allow: tuple[str, ...],
        password: str | None,
        caller: Caller,
        device: Device,
        now: datetime,
    ) -> tuple[str, ApiKey]:
        """Make an API key; return its text, which is shown this once, and the key.

        The owner is told by mail.

        Args:
            password: the owner's once more, where the key may do more than read.

        Raises:
            PasswordWrongError, SessionNotFreshError, LoginThrottledError: see ``prove``.
            UserDisabledError, SessionEndedError: see ``lock_acting``.
            ApiKeyScopeError: the user may not give one of the scopes, or gives none.
            ApiKeyLimitError: the user has as many as anybody may have.
            ApiKeyRefusedError: it would have expired already.
        """
        proven = None
        if needs_proof(scopes):
            proven = await self._credentials.prove(
                caller=caller, password=password, device=device, now=now
            )
        return await self._create(
            "live",
            proven=proven,
            name=name,
            scopes=scopes,
            account_id=None,
            expires_at=expires_at,
            ip_allow=ip_allow,
            caller=caller,
            device=device,
            now=now,
        )

    async def create_share_token(
        self,
        *,
        account_id: str,
        name: str,
        expires_at: datetime | None,
        caller: Caller,
        device: Device,
        now: datetime,
    ) -> tuple[str, ApiKey]:
        """Make a token that shows one trading account; return its text, shown this once, and it.

        Whether the account is the user's, the broker says at each use: a token for somebody else's
        shows nothing. The owner is told by mail.

        Raises:
            UserDisabledError, SessionEndedError: see ``lock_acting``.
            ApiKeyScopeError: the user may not read accounts.
            ApiKeyLimitError: the user has as many as anybody may have.
            ApiKeyRefusedError: it would have expired already.
        """
        return await self._create(
            "share",
            proven=None,
            name=name,
            scopes=frozenset({SHARED_SCOPE}),
            account_id=account_id,
            expires_at=expires_at,
            ip_allow=(),
            caller=caller,
            device=device,
            now=now,
        )

    async def list_keys(self, *, user_id: str, kind: ApiKeyKind, now: datetime) -> list[ApiKey]:
        """Return a user's live keys of a kind, newest first."""
        async with self._desk.database.snapshot() as transaction:
            return await self._desk.repository.api_keys.list_live_keys(
                transaction, user_id, kinds=(kind,), now=now
            )

    async def revoke_key(
        self, *, user_id: str, key_id: str, kind: ApiKeyKind, caller: Caller, now: datetime
    ) -> None:
        """Revoke a key for ever; refused everywhere within seconds.

        Raises:
            ApiKeyNotFoundError: this user has no such live key.
        """
        prefix = "key_" if kind == "live" else "shr_"
        revoked: list[str] = []
        if key_id.startswith(prefix):
            async with self._desk.database.transaction() as transaction:
                revoked = await self._desk.revoke_keys(
                    transaction, user_id, (key_id,), reason="revoked", now=now
                )
                if revoked:
                    await self._desk.audit(
                        transaction,
                        "api_key_revoke",
                        caller=caller,
                        now=now,
                        about=f"api_key:{key_id}",
                    )
        if not revoked:
            raise ApiKeyNotFoundError("there is no such key; it may have been revoked before")

    async def resolve(self, *, question: ApiKeyQuestion, now: datetime) -> ApiKeyAnswer:
        """Return whom a key stands for at this moment; notes its use once a minute.

        Raises:
            ApiKeyNotFoundError: unknown, revoked, expired, or its owner is switched off; which of
                them isn't told.
        """
        async with self._desk.database.snapshot() as transaction:
            key = await self._desk.repository.api_keys.find_key(transaction, question.key_id)
            user = None
            if key is not None:
                user = await self._desk.repository.users.find_user(transaction, key.user_id)
        # Compared even where there is none: the time tells nothing.
        stored = "" if key is None else key.secret_hash
        is_right = hmac.compare_digest(stored.encode(), question.secret_hash.encode())
        if key is None or user is None or not (is_right and key.is_live(now) and user.is_active):
            raise ApiKeyNotFoundError("there is no such key")
        if key.last_used_at is None or now - key.last_used_at >= _USE_NOTED:
            async with self._desk.database.transaction() as transaction:
                await self._desk.repository.api_keys.note_use(transaction, key.id, now=now)
        return _answer(key, user)

    async def _create(
        self,
        kind: ApiKeyKind,
        *,
        proven: User | None,
        name: str,
        scopes: frozenset[str],
        account_id: str | None,
        expires_at: datetime | None,
        ip_allow: tuple[str, ...],
        caller: Caller,
        device: Device,
        now: datetime,
    ) -> tuple[str, ApiKey]:
        if expires_at is not None and expires_at <= now:
            message = "this is in the past"
            raise ApiKeyRefusedError(
                message, errors=[FieldError("expires_at", "in_the_past", message)]
            )
        async with self._desk.database.transaction() as transaction:
            # The lock makes the count true.
            user = await self._desk.lock_acting(transaction, caller, now)
            if proven is not None and proven.password_hash != user.password_hash:
                raise PasswordWrongError("the password was changed meanwhile")
            excess = scopes - grantable_scopes(user)
            if excess or not scopes:
                message = (
                    f"you can't give {', '.join(sorted(excess))}" if excess else "name a scope"
                )
                raise ApiKeyScopeError(
                    message, errors=[FieldError("scopes", "beyond_the_owner", message)]
                )
            live = await self._desk.repository.api_keys.list_live_keys(
                transaction, user.id, kinds=("live", "share"), now=now
            )
            if len(live) >= KEYS_MAX:
                raise ApiKeyLimitError(f"revoke one first: there may be {KEYS_MAX}", limit=KEYS_MAX)
            while True:
                text, credential = new_credential(kind, self._desk.random_bytes)
                key = ApiKey(
                    id=credential.id,
                    kind=kind,
                    user_id=user.id,
                    name=name,
                    secret_hash=credential.secret_hash,
                    scopes=scopes,
                    account_id=account_id,
                    ip_allow=ip_allow,
                    created_at=now,
                    expires_at=expires_at,
                    last_used_at=None,
                    revoked_at=None,
                    revoked_reason=None,
                )
                if await self._desk.repository.api_keys.add_key(transaction, key):
                    break
            await self._tell(transaction, user, key, device, now)
            await self._desk.audit(
                transaction,
                "api_key_create",
                caller=caller,
                now=now,
                about=f"api_key:{key.id}",
                detail=" ".join(sorted(scopes)),
                after=key,
            )
        return text, key

    async def _tell(
        self, transaction: Transaction, owner: User, key: ApiKey, device: Device, now: datetime
    ) -> None:
        if key.account_id is None:
            kind, about = MailKind.API_KEY_ADDED, {"scopes": ", ".join(sorted(key.scopes))}
        else:
            kind, about = MailKind.SHARE_TOKEN_ADDED, {"account": key.account_id}
        await self._desk.mail(
            transaction, kind, owner, now=now, device=device, name=key.name, **about
        )


def _answer(key: ApiKey, user: User) -> ApiKeyAnswer:
    return ApiKeyAnswer(
        key_id=key.id,
        user_id=key.user_id,
        # A guest has none of the owner's roles.
        roles=() if key.account_id is not None else tuple(sorted(user.roles)),
        scopes=tuple(sorted(key.scopes & scopes_of(user.roles))),
        account_id=key.account_id,
        expires_at_seconds=None if key.expires_at is None else int(key.expires_at.timestamp()),
        ip_allow=key.ip_allow,
    )
