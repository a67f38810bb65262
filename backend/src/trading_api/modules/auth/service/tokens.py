"""What a credential is worth and how its holder gives it up (RFC 7662, RFC 7009)."""

from datetime import datetime

from trading_api.kernel.credentials import parse_credential
from trading_api.modules.auth.domain import Session, User, hash_token
from trading_api.modules.auth.domain.api_keys import ApiKey
from trading_api.modules.auth.domain.audit import Caller
from trading_api.modules.auth.domain.sessions import is_refresh_token
from trading_api.modules.auth.service.desk import Desk


class TokenService:
    """Looks up and ends what refresh tokens and keys stand for; access tokens verify themselves."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def find_refresh_token(self, *, token: str, now: datetime) -> tuple[User, Session] | None:
        """Return the session whose live refresh token this is; None for any other text."""
        if not is_refresh_token(token):
            return None
        token_hash = hash_token(token)
        # Not a snapshot: the query locks its row, which nothing that only reads may.
        async with self._desk.database.transaction() as transaction:
            session = await self._desk.repository.sessions.find_session_of_token(
                transaction, token_hash
            )
            if session is None or session.leaf_hash != token_hash:
                return None
            if session.revoked_at is not None or session.idle_expires_at <= now:
                return None
            user = await self._desk.repository.users.find_user(transaction, session.user_id)
        return None if user is None or not user.is_active else (user, session)

    async def find_key(self, *, text: str, now: datetime) -> tuple[User, ApiKey] | None:
        """Return the live API key or share token that this is; None for any other text."""
        credential = parse_credential(text)
        if credential is None:
            return None
        async with self._desk.database.snapshot() as transaction:
            key = await self._desk.repository.api_keys.find_key(transaction, credential.id)
            if key is None or key.secret_hash != credential.secret_hash or not key.is_live(now):
                return None
            user = await self._desk.repository.users.find_user(transaction, key.user_id)
        return None if user is None or not user.is_active else (user, key)

    async def revoke(
        self,
        *,
        token: str,
        session: tuple[str, str] | None,
        caller: Caller,
        now: datetime,
    ) -> None:
        """End what a credential stands for: its session, or the key itself; idempotent.

        Whoever holds it may give it up. Unknown text ends nothing and is no error.

        Args:
            session: user and session of a verified access token; None where the text isn't one.
        """
        found_key = await self.find_key(text=token, now=now)
        async with self._desk.database.transaction() as transaction:
            if found_key is not None:
                user, key = found_key
                revoked = await self._desk.revoke_keys(
                    transaction, user.id, (key.id,), reason="given_up", now=now
                )
                action, about = "api_key_revoke", f"api_key:{key.id}"
            else:
                owner = session
                if owner is None and is_refresh_token(token):
                    found = await self._desk.repository.sessions.find_session_of_token(
                        transaction, hash_token(token)
                    )
                    owner = None if found is None else (found.user_id, found.id)
                if owner is None:
                    return
                revoked = await self._desk.end_sessions(
                    transaction, owner[0], owner[1], "given_up", now=now
                )
                action, about = "session_end", f"session:{owner[1]}"
            if revoked:
                await self._desk.audit(transaction, action, caller=caller, now=now, about=about)
