"""Parts of auth for tests."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from trading_api.modules.auth.adapters.argon2_pool import load_common_passwords
from trading_api.modules.auth.domain import (
    Device,
    EmailAddress,
    LoginThrottle,
    PasswordRules,
    Rate,
    SessionRules,
    fold_email,
)
from trading_api.modules.auth.domain.audit import Caller
from trading_api.modules.auth.domain.mail import Message
from trading_api.modules.auth.ports import MailError, Verification
from trading_api.modules.auth.service import AuthPolicy

PASSWORD = "correct horse battery"
COMMON = load_common_passwords()


class PlainHasher:
    """Compares without Argon2's cost; counts, so that tests see that work was done."""

    def __init__(self) -> None:
        self.compared: list[str | None] = []
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def hash(self, password: str) -> str:
        return f"plain:{password}"

    async def verify(self, password: str, password_hash: str | None) -> Verification:
        self.compared.append(password_hash)
        if self.meanwhile is not None:
            await self.meanwhile()
        if password_hash == f"old:{password}":
            return Verification(is_correct=True, upgraded_hash=f"plain:{password}")
        return Verification(password_hash == f"plain:{password}", None)


class PlainSigner:
    """Keeps the claims of each token."""

    def __init__(self) -> None:
        self.claims: list[Mapping[str, Any]] = []

    def sign(self, claims: Mapping[str, Any]) -> str:
        self.claims.append(claims)
        return f"token-{len(self.claims)}"

    def public_keys(self) -> Mapping[str, Any]:
        return {"keys": []}


@dataclass
class Announcements:
    """Keeps what was announced."""

    ended: list[str] = field(default_factory=list)

    def announce(
        self, session_ids: Sequence[str], *, revoked_at: datetime, until: datetime
    ) -> None:
        assert until > revoked_at
        self.ended += session_ids


@dataclass
class Mails:
    """Keeps what was sent; refuses while ``refusal`` is set."""

    sent: list[Message] = field(default_factory=list)
    refusal: MailError | None = None

    async def send(self, message: Message) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.sent.append(message)

    def token(self) -> str:
        """Return the token of the newest mail."""
        found = re.search(r"tk_[A-Za-z0-9_-]{43}", self.sent[-1].text)
        assert found is not None, self.sent[-1].text
        return found[0]


def a_policy(**changes: Any) -> AuthPolicy:
    policy: dict[str, Any] = {
        "issuer": "trading-api",
        "token_lifetime_max": timedelta(minutes=10),
        "sessions": SessionRules(
            access_lifetime=timedelta(minutes=5),
            lifetime=timedelta(days=30),
            idle=timedelta(days=7),
            grace=timedelta(seconds=10),
        ),
        "passwords": PasswordRules(length_min=8, common=COMMON),
        "throttle": LoginThrottle(
            account=Rate(5, timedelta(seconds=30)),
            address=Rate(20, timedelta(seconds=1)),
            code=Rate(5, timedelta(seconds=300)),
            mail=Rate(3, timedelta(seconds=1200)),
        ),
        "admin_email": "",
        "confirms_email": False,
        "site": "http://localhost:8000",
        "name": "Trading",
    }
    return AuthPolicy(**{**policy, **changes})


def an_email(address: str = "ann@example.com") -> EmailAddress:
    return EmailAddress(address, fold_email(address))


def a_device(name: str = "laptop", *, address: str = "192.0.2.1", cookie: str = "") -> Device:
    return Device.of(address=address, user_agent=name, hints=(), cookie=cookie)


def a_caller(address: str = "192.0.2.1") -> Caller:
    return Caller(address)
