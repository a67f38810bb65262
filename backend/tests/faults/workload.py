"""A small workload that remembers what it was told, and the proof that all of it came true.

Clients here do what a client should: a write carries a key, and where its outcome is unknown it
is sent again with the same key until it is known.
"""

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from types import TracebackType
from typing import Any, Literal
from uuid import uuid4

import httpx
from tests.journeys.conftest import PASSWORD, Person, sign_up
from websockets.exceptions import InvalidHandshake

from trading_api.testkit.bus import eventually
from trading_api.testkit.fleet import Fleet
from trading_api.testkit.ws import SocketClosedError, network_socket

BUY, SELL, LIMIT, MARKET = 1, -1, 1, 2
FILLED, WORKING = 2, 6
SYMBOL = "DEMO:AAPL"
DEPOSIT = Decimal("1.01")

PACE_SECONDS = 0.04
"""Between two calls of one worker; four workers make about 80 calls a second."""

ORDERS_MISSED = 3
"""A socket that was cut stays away for that many orders."""

REFRESH_GRACE_SECONDS = 10
"""So long may a lost answer to a refresh be asked for again; from the contract of auth."""

HEAL_SECONDS = 60.0
"""Longer than a process takes to come back on a busy host."""

Outcome = Literal["done", "refused", "unknown"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request and what came of it; times are monotonic seconds."""

    module: str
    name: str
    began: float
    ended: float
    outcome: Outcome
    said: str

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(slots=True)
class Write:
    """One write, sent until its outcome was known.

    Attributes:
        effect: id of what it made.
        unknown: how many answers were lost.
    """

    key: str
    body: Mapping[str, Any]
    effect: str = ""
    unknown: int = 0


@dataclass(slots=True)
class Journal:
    """Every call of every trader, in the order in which they ended."""

    calls: list[Call] = field(default_factory=list)
    in_flight: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    faults: list[str] = field(default_factory=list)
    """Answers that no fault excuses: a 500, or an error that isn't a problem."""

    def of(self, *modules: str, since: float = 0.0, until: float = float("inf")) -> list[Call]:
        """Return the calls to some modules that began and ended within a span."""
        return [
            call
            for call in self.calls
            if call.module in modules and since <= call.began and call.ended <= until
        ]

    def count(self, *modules: str, since: float = 0.0) -> int:
        """Count the calls to some modules that began since and were answered well."""
        return sum(call.outcome == "done" for call in self.of(*modules, since=since))


class Trader:
    """Somebody who trades, funds, reads and refreshes all at once, and watches the orders.

    Use as a context; the workers run inside. ``settle`` ends them, ``prove`` checks everything.
    """

    def __init__(self, fleet: Fleet, journal: Journal) -> None:
        self._fleet = fleet
        self._journal = journal
        self._stack = AsyncExitStack()
        self._is_stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._numbers = itertools.count(1)
        self.person: Person
        self.account = ""
        self.orders: list[Write] = []
        self.deposits: list[Write] = []
        self.socket: OrdersSocket

    async def __aenter__(self) -> "Trader":
        self.person = await self._stack.enter_async_context(sign_up(self._fleet))
        self._device = await self._stack.enter_async_context(self._fleet.client())
        await self._log_in()
        self.account = (await self.person.get("/api/v1/broker/accounts"))[0]["id"]
        quote = await self.person.client.post("/api/v1/datafeed/quotes", json={"symbols": [SYMBOL]})
        self._far = str(
            (Decimal(str(quote.json()[0]["v"]["ask"])) * Decimal("0.75")).quantize(Decimal("0.01"))
        )
        self._opening = Decimal((await self.person.get("/api/v1/wallet"))["balance_usd"])
        self.socket = OrdersSocket(self.person, self.account, self._count_orders)
        self._start(self.socket.run())
        await eventually(lambda: self.socket.connections == 1, within_seconds=HEAL_SECONDS)
        for work in (self._trade, self._fund, self._read, self._refresh):
            self._start(self._repeat(work))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    def ensure_working(self) -> None:
        """Raise what a worker died of."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def settle(self) -> None:
        """Begin nothing more, and wait until the outcome of everything begun is known."""
        await eventually(lambda: self.socket.is_open, within_seconds=HEAL_SECONDS)
        self._is_stopping = True
        workers = self._tasks[1:]
        async with asyncio.timeout(HEAL_SECONDS):
            await asyncio.gather(*workers)
        newest = await self._repeat_newest_writes()
        events = await self._all_events()
        last = max(each["sequence"] for each in events if each["type"] == "order")
        await eventually(
            lambda: self._tasks[0].done() or self.socket.offset >= last, within_seconds=20
        )
        self.socket.is_stopping = True
        self.ensure_working()
        assert newest

    # What is to be true

    async def prove(self) -> None:
        """Check that what was acknowledged is there, once, and nothing else is."""
        await self._prove_orders()
        await self._prove_deposits()
        await self._prove_events()

    async def _prove_orders(self) -> None:
        orders = {each["id"]: each for each in await self._all("/api/v1/broker/orders/history")}
        orders |= {each["id"]: each for each in await self.person.get("/api/v1/broker/orders")}
        by_key = defaultdict(list)
        for order in orders.values():
            by_key[order["clientOrderId"]].append(order["id"])
        assert by_key == {each.key: [each.effect] for each in self.orders}
        executions = await self._all("/api/v1/broker/executions")
        fills = [each["orderId"] for each in executions]
        wanted = {"market": FILLED, "limit": WORKING}
        kinds = {each.effect: each.key.partition("-")[0] for each in self.orders}
        for order_id, order in orders.items():
            assert order["status"] == wanted[kinds[order_id]], order
        filled = sorted(order_id for order_id, kind in kinds.items() if kind == "market")
        assert sorted(fills) == filled, "each market order fills once"
        held = sum(each.body["side"] for each in self.orders if each.key.startswith("market"))
        positions = await self.person.get("/api/v1/broker/positions")
        assert sum(each["qty"] * each["side"] for each in positions) == held

    async def _prove_deposits(self) -> None:
        lines = await self._all("/api/v1/wallet/transactions")
        by_key = defaultdict(list)
        for line in lines:
            by_key[line["description"]].append(line["entry_id"])
        by_key.pop("", None)
        assert by_key == {each.key: [each.effect] for each in self.deposits}
        balance = Decimal((await self.person.get("/api/v1/wallet"))["balance_usd"])
        assert balance == self._opening + DEPOSIT * len(self.deposits)
        assert sorted(line["sequence"] for line in lines) == list(range(1, len(lines) + 1))

    async def _prove_events(self) -> None:
        events = await self._all_events()
        assert [each["sequence"] for each in events] == list(range(1, len(events) + 1))
        told = [
            (each["sequence"], each["order"])
            for each in events
            if each["type"] == "order" and each["sequence"] > self.socket.began_at
        ]
        assert [offset for offset, _ in self.socket.seen] == [offset for offset, _ in told]
        assert self.socket.seen == told

    async def _repeat_newest_writes(self) -> int:
        """Send the newest writes once more: acknowledged or not, they have had their effect."""
        again = 0
        for write in self.orders[-5:]:
            answer = await self._post_order(write)
            assert answer is not None
            assert answer["orderId"] == write.effect
            again += 1
        for write in self.deposits[-5:]:
            answer = await self._post_deposit(write)
            assert answer is not None
            assert answer["entry_id"] == write.effect
            again += 1
        return again

    async def _all_events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        path = f"/api/v1/broker/accounts/{self.account}/events"
        while True:
            since = found[-1]["sequence"] if found else 0
            page = await self.person.get(path, since=since, limit=1000)
            found += page
            if len(page) < 1000:
                return found

    async def _all(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            answer = await self.person.client.get(path, params={"limit": "500", **cursor})
            assert answer.status_code == 200, answer.text
            found += answer.json()
            if "X-Next-Cursor" not in answer.headers:
                return found
            cursor = {"cursor": answer.headers["X-Next-Cursor"]}

    def _count_orders(self) -> int:
        return sum(each.effect != "" for each in self.orders)

    # The workers

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _repeat(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while not self._is_stopping:
            await work()
            await asyncio.sleep(PACE_SECONDS)

    async def _trade(self) -> None:
        number = next(self._numbers)
        body: dict[str, Any] = {"symbol": SYMBOL, "qty": 1, "side": BUY if number % 3 else SELL}
        if number % 4:
            write = Write(f"market-{uuid4().hex}", {**body, "type": MARKET})
        else:
            body |= {"type": LIMIT, "side": BUY, "limitPrice": self._far}
            write = Write(f"limit-{uuid4().hex}", body)
        self.orders.append(write)
        answer = await self._until_known(write, self._post_order)
        write.effect = answer["orderId"]

    async def _fund(self) -> None:
        key = uuid4().hex
        body = {"amount": str(DEPOSIT), "currency": "USD", "description": key}
        write = Write(key, body)
        self.deposits.append(write)
        answer = await self._until_known(write, self._post_deposit)
        write.effect = answer["entry_id"]

    async def _read(self) -> None:
        client = self.person.client
        for module, path in (
            ("auth", "/api/v1/auth/me"),
            ("broker", "/api/v1/broker/positions"),
            ("wallet", "/api/v1/wallet"),
            ("gateway", "/api/v1/versions"),
            ("datafeed", "/api/v1/datafeed/search?user_input=AAPL"),
        ):
            await self._call(client, module, path, "GET", path)
            await asyncio.sleep(PACE_SECONDS)

    async def _refresh(self) -> None:
        body = {"refresh_token": self._refresh_token}
        first = time.monotonic()
        while True:
            # This caller keeps its token itself; a cookie, even of an answer that broke off,
            # would be a second sign-in beside it.
            self._device.cookies.clear()
            call, answer = await self._call(
                self._device, "auth", "refresh", "POST", "/api/v1/auth/refresh-token", json=body
            )
            if call.outcome == "done":
                self._take_refresh_token(answer)
                break
            late = time.monotonic() - first > REFRESH_GRACE_SECONDS * 0.8
            assert call.outcome == "unknown" or late, call
            if call.outcome == "refused":
                # The parent was presented again too late: by the contract that ends the family.
                await self._log_in()
                break
            await asyncio.sleep(PACE_SECONDS)
        await asyncio.sleep(PACE_SECONDS * 5)

    async def _log_in(self) -> None:
        login = await self._device.post(
            "/api/v1/auth/login", json={"email": self.person.email, "password": PASSWORD}
        )
        assert login.status_code == 200, login.text
        self._take_refresh_token(login.json())

    def _take_refresh_token(self, tokens: Mapping[str, Any]) -> None:
        self._refresh_token = str(tokens["refresh_token"])

    async def _post_order(self, write: Write) -> dict[str, Any] | None:
        body = {**write.body, "clientOrderId": write.key}
        return await self._write(write, "broker", "order", "/api/v1/broker/orders", body, {})

    async def _post_deposit(self, write: Write) -> dict[str, Any] | None:
        headers = {"Idempotency-Key": write.key}
        path = "/api/v1/wallet/deposit"
        return await self._write(write, "wallet", "deposit", path, dict(write.body), headers)

    async def _write(
        self,
        write: Write,
        module: str,
        name: str,
        path: str,
        body: dict[str, Any],
        headers: dict[str, str],
    ) -> dict[str, Any] | None:
        call, answer = await self._call(
            self.person.client, module, name, "POST", path, json=body, headers=headers
        )
        assert call.outcome != "refused", call
        if call.outcome == "unknown":
            write.unknown += 1
            return None
        return dict(answer)

    async def _until_known(
        self, write: Write, post: Callable[[Write], Coroutine[Any, Any, dict[str, Any] | None]]
    ) -> dict[str, Any]:
        while True:
            answer = await post(write)
            if answer is not None:
                return answer
            await asyncio.sleep(PACE_SECONDS)

    async def _call(
        self, client: httpx.AsyncClient, module: str, name: str, method: str, path: str, **sent: Any
    ) -> tuple[Call, Any]:
        began = time.monotonic()
        self._journal.in_flight[module] += 1
        answer: httpx.Response | None = None
        try:
            answer = await client.request(method, path, **sent)
            outcome, said = _judge(answer)
        except httpx.TransportError as error:
            outcome, said = "unknown", repr(error)
        finally:
            self._journal.in_flight[module] -= 1
        if answer is not None and not _is_decent(answer):
            self._journal.faults.append(f"{method} {path}: {answer.status_code} {answer.text}")
        call = Call(module, name, began, time.monotonic(), outcome, said)
        self._journal.calls.append(call)
        return call, answer.json() if answer is not None and outcome == "done" else None


class OrdersSocket:
    """The channel ``orders`` of one account, taken up again where it broke off.

    It comes back only after some orders were acknowledged, so that there is something to catch up.

    Args:
        count_orders: tells how many were acknowledged so far.

    Attributes:
        seen: offset and order of every update, over all connections.
        began_at: offset of the snapshot that the first connection got.
        connections: how many there were.
        is_open: whether the last one is still subscribed.
    """

    def __init__(self, person: Person, account: str, count_orders: Callable[[], int]) -> None:
        self._person = person
        self._account = account
        self._count_orders = count_orders
        self._returns_at = 0
        self.is_open = False
        self.is_stopping = False
        self.seen: list[tuple[int, dict[str, Any]]] = []
        self.began_at = 0
        self.offset = 0
        self.connections = 0
        self._epoch = ""

    async def run(self) -> None:
        """Follow until stopped; a hole, a repeat or a lost place fails."""
        while not self.is_stopping:
            before = self.connections
            try:
                if self._count_orders() >= self._returns_at:
                    await self._follow()
            except (SocketClosedError, InvalidHandshake, OSError, EOFError):
                self.is_open = False
                if self.connections > before:
                    self._returns_at = self._count_orders() + ORDERS_MISSED
            await asyncio.sleep(PACE_SECONDS)

    async def _follow(self) -> None:
        url = f"{self._person.fleet.ws_url}/api/v1/broker/ws"
        token = self._person.token
        async with network_socket(url, token=token, open_timeout=10, proxy=None) as socket:
            recover = {"epoch": self._epoch, "offset": self.offset} if self._epoch else None
            params = {"accountId": self._account}
            answer = await socket.subscribe("orders", params, recover=recover)
            if answer.get("status") != "ok":
                raise SocketClosedError(0, f"not subscribed: {answer}")
            if recover is None:
                self._epoch, self.began_at = answer["epoch"], answer["offset"]
                self.offset = self.began_at
            else:
                assert answer["recovered"] is True, answer
                assert answer["epoch"] == self._epoch, answer
                assert answer["offset"] == self.offset, answer
            self.connections += 1
            self.is_open = True
            while not self.is_stopping:
                payload = (await socket.next())["payload"]
                if payload.get("snapshot"):
                    assert recover is None, "a resumed stream needs no snapshot"
                    continue
                assert payload["previous_offset"] == self.offset, "a hole"
                self.offset = payload["offset"]
                self.seen.append((self.offset, payload["payload"]))


def _judge(answer: httpx.Response) -> tuple[Outcome, str]:
    said = f"{answer.status_code} {answer.text[:300]}"
    if answer.is_success:
        return "done", said
    return ("unknown" if answer.status_code >= 500 else "refused"), said


def _is_decent(answer: httpx.Response) -> bool:
    if answer.is_success:
        return True
    kind = answer.headers.get("content-type", "")
    return answer.status_code != 500 and kind.startswith("application/problem+json")
