"""Channels over plain lists, whose snapshots and reads a test can hold."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from joserfc import jwt
from joserfc.jwk import RSAKey
from pydantic import BaseModel, Field

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import NotFoundError
from trading_api.runtime.http import Access, RequestModel
from trading_api.runtime.identity import Principal
from trading_api.runtime.secrets import PRIVATE_KEY_FILE
from trading_api.runtime.settings import PlatformSettings
from trading_api.runtime.ws import (
    EventChannel,
    Hub,
    PriceChannel,
    Snapshot,
    StreamEvent,
)


class TokenMaker:
    """Signs access tokens with the host's key, as auth does."""

    def __init__(self, settings: PlatformSettings, clock: Clock) -> None:
        directory: Path = settings.secrets_directory
        self._key = RSAKey.import_key((directory / PRIVATE_KEY_FILE).read_bytes())
        self._clock = clock

    def token(
        self,
        user_id: str = "usr_a",
        *,
        session_id: str = "ses_a",
        scopes: Sequence[str] = ("test:read",),
        ttl_seconds: int = 900,
    ) -> str:
        now = int(self._clock.now().timestamp())
        claims = {
            "iss": "trading-api",
            "aud": "trading-api",
            "sub": user_id,
            "sid": session_id,
            "jti": f"{user_id}-{session_id}-{now}-{ttl_seconds}",
            "iat": now,
            "nbf": now,
            "exp": now + ttl_seconds,
            "roles": ["user"],
            "scopes": list(scopes),
        }
        header = {"alg": "RS256", "typ": "at+jwt", "kid": self._key.thumbprint()}
        return jwt.encode(header, claims, self._key, algorithms=["RS256"])


class Gate:
    """Lets a coroutine through at once, or when the test says so."""

    def __init__(self) -> None:
        self._is_open = asyncio.Event()
        self._is_open.set()
        self.reached = asyncio.Event()

    def shut(self) -> None:
        self.reached.clear()
        self._is_open.clear()

    def open(self) -> None:
        self._is_open.set()

    async def pass_(self) -> None:
        self.reached.set()
        await self._is_open.wait()


class TicksParams(RequestModel):
    symbols: tuple[str, ...] = Field(max_length=200)


class Tick(BaseModel):
    symbol: str
    value: int


class TicksChannel(PriceChannel[TicksParams]):
    """Numbers by symbol."""

    route: ClassVar = "ticks"
    params: ClassVar = TicksParams
    update: ClassVar = Tick
    access: ClassVar = Access.scope("test:read")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.values: dict[str, int] = {}
        self.gate = Gate()

    def feeds(self, params: TicksParams) -> Sequence[str]:
        return [f"ticks:{symbol}" for symbol in params.symbols]

    async def snapshot(self, principal: Principal | None, params: TicksParams) -> Sequence[Any]:
        found = [
            {"symbol": symbol, "value": self.values[symbol]}
            for symbol in params.symbols
            if symbol in self.values
        ]
        await self.gate.pass_()
        return found

    def tick(self, symbol: str, value: int) -> None:
        """Cache first, then publish."""
        self.values[symbol] = value
        payload = json.dumps({"symbol": symbol, "value": value}, separators=(",", ":"))
        self._hub.publish(f"ticks:{symbol}", payload.encode())


class PublicTicksChannel(TicksChannel):
    """Numbers that anybody may see."""

    route: ClassVar = "public-ticks"
    access: ClassVar = Access.public()


class AccountParams(RequestModel):
    accountId: str = Field(min_length=1)  # noqa: N815 - the wire's spelling


class Line(BaseModel):
    text: str


class Journal:
    """The stored events of accounts, as a module's table would hold them."""

    def __init__(self) -> None:
        self.owners = {"acc_1": "usr_a", "acc_2": "usr_a", "acc_9": "usr_z"}
        self.events: dict[str, list[StreamEvent]] = {name: [] for name in self.owners}
        self.epochs = dict.fromkeys(self.owners, "e1")
        self.kept_from = 1
        self.reads = 0
        self.failure: Exception | None = None
        self.read_gate = Gate()
        self.snapshot_gate = Gate()

    def append(self, account: str, route: str, text: str | None = None) -> int:
        offset = len(self.events[account]) + 1
        self.events[account].append(StreamEvent(offset, route, {"text": text or f"n{offset}"}))
        return offset

    def reset(self, account: str, epoch: str) -> None:
        self.events[account].clear()
        self.epochs[account] = epoch


class JournalChannel(EventChannel[AccountParams]):
    """Lines of one account."""

    params: ClassVar = AccountParams
    update: ClassVar = Line
    access: ClassVar = Access.scope("test:read")

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    async def authorize(self, principal: Principal | None, params: AccountParams) -> None:
        owner = self.journal.owners.get(params.accountId)
        if owner is None or principal is None or owner != principal.user_id:
            raise NotFoundError("there is no such account")

    def stream(self, principal: Principal, params: AccountParams) -> str:
        return f"test:{params.accountId}"

    async def snapshot(self, principal: Principal, params: AccountParams) -> Snapshot:
        events = list(self.journal.events[params.accountId])
        epoch = self.journal.epochs[params.accountId]
        await self.journal.snapshot_gate.pass_()
        lines = [event.payload for event in events if event.route == self.route]
        return Snapshot(lines, epoch, len(events))

    async def read(self, stream: str, *, after: int, limit: int) -> Sequence[StreamEvent]:
        self.journal.reads += 1
        if self.journal.failure is not None:
            raise self.journal.failure
        await self.journal.read_gate.pass_()
        if after + 1 < self.journal.kept_from:
            raise NotFoundError("older than what is kept")
        return self.journal.events[stream.removeprefix("test:")][after : after + limit]


class OrdersChannel(JournalChannel):
    """Orders of one account."""

    route: ClassVar = "orders"


class FillsChannel(JournalChannel):
    """Fills of one account."""

    route: ClassVar = "fills"
