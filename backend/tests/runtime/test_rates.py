"""Quotas: never exceeded, shared by processes, cheap for hot callers, there without the bus."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest

from trading_api.kernel.clock import SystemClock
from trading_api.runtime.bus import Bus
from trading_api.runtime.http import Access, ModuleRouter
from trading_api.runtime.rates import (
    FALLBACK_DIVISOR,
    STRICT_PER_MINUTE,
    WIDE_PER_MINUTE,
    Rate,
    RateClass,
    RateLimiter,
    Verdict,
    rates_of,
)
from trading_api.runtime.settings import PlatformSettings, load_settings
from trading_api.testkit.bus import BusServer, started_bus
from trading_api.testkit.clocks import FixedClock
from trading_api.testkit.http import access_token, client_of


def a_limiter(bus: Bus, clock: FixedClock | None = None, **limits: int) -> RateLimiter:
    names: tuple[RateClass, ...] = ("login", "orders", "history", "rest")
    rates = {name: Rate(name, limits.get(name, 100), is_exact=name == "login") for name in names}
    return RateLimiter(bus=bus, clock=clock or SystemClock(), rates=rates)


async def take(limiter: RateLimiter, who: str = "user:a", rate: RateClass = "rest") -> Verdict:
    verdict = await limiter.take(who, rate, is_guarded=True)
    assert verdict is not None
    return verdict


async def test_take_when_a_full_bucket_is_asked_for_at_once_then_exactly_its_units_are_granted(
    bus: Bus,
) -> None:
    limiter = a_limiter(bus, login=7)
    verdicts = [await take(limiter, rate="login") for _ in range(9)]
    assert [each.is_allowed for each in verdicts] == [True] * 7 + [False] * 2
    assert [each.remaining for each in verdicts[:7]] == [6, 5, 4, 3, 2, 1, 0]
    assert 1 <= verdicts[-1].wait_seconds <= 60 // 7 + 1
    assert (await take(limiter, who="user:b", rate="login")).is_allowed


async def test_take_when_many_processes_ask_at_once_then_the_quota_is_never_exceeded(
    bus: Bus, shared_bus_server: BusServer
) -> None:
    other = await started_bus(shared_bus_server)
    limiters = [a_limiter(each, rest=200) for each in (bus, other, bus)]
    verdicts = await asyncio.gather(*(take(limiters[i % 3]) for i in range(600)))
    # One unit may come back while they ask; units taken ahead may be lost.
    assert 150 <= sum(each.is_allowed for each in verdicts) <= 201
    await other.stop()


async def test_take_when_a_caller_is_hot_then_the_bus_is_asked_ever_less(bus: Bus) -> None:
    limiter, calls = a_limiter(bus, rest=100_000), 0
    ask = limiter._evaluate

    async def counted(keys: Sequence[str], numbers: Sequence[int]) -> list[int]:
        nonlocal calls
        calls += 1
        return await ask(keys, numbers)

    limiter._evaluate = counted  # type: ignore[method-assign]
    for _ in range(1000):
        assert (await take(limiter)).is_allowed
    assert calls <= 12


async def test_take_at_hand_when_units_were_taken_ahead_then_only_those_are_spent(bus: Bus) -> None:
    limiter, at_hand, asked = a_limiter(bus, rest=100), 0, 0
    while True:
        if limiter.has_at_hand("user:a", "rest"):
            verdict = limiter.take_at_hand("user:a", "rest")
            at_hand += 1
        else:
            verdict = await take(limiter)
            if not verdict.is_allowed:
                break
            asked += 1
        assert verdict is not None and verdict.is_allowed
    assert at_hand >= 60 and 100 <= at_hand + asked <= 101
    assert not limiter.has_at_hand("user:a", "rest")


async def test_take_at_hand_when_the_bus_is_away_then_free(tmp_path: Path) -> None:
    limiter = a_limiter(Bus(f"unix://{tmp_path}/nobody.sock"))
    assert limiter.has_at_hand("user:a", "rest")
    assert limiter.take_at_hand("user:a", "rest") is None


async def test_take_when_units_come_back_then_it_is_allowed_again_by_the_server_s_clock(
    bus: Bus, clock: FixedClock
) -> None:
    limiter = a_limiter(bus, clock, login=6000)
    key = "trading:{rate}:login:user:a"
    await bus.call("SET", key, "9999999999999999", "PX", 60_000)
    refused = await take(limiter, rate="login")
    assert not refused.is_allowed
    await bus.call("DEL", key)
    assert not (await take(limiter, rate="login")).is_allowed, "known to be blocked until then"
    clock.advance(refused.wait_seconds + 1)
    assert (await take(limiter, rate="login")).is_allowed


async def test_take_when_the_server_forgot_the_script_then_it_is_sent_again(bus: Bus) -> None:
    limiter = a_limiter(bus)
    await bus.call("SCRIPT", "FLUSH")
    assert (await take(limiter, rate="login")).remaining == 99
    assert (await take(limiter, rate="login")).remaining == 98


async def test_take_when_the_bus_is_away_then_reads_are_free_and_the_rest_gets_a_quarter(
    tmp_path: Path, clock: FixedClock
) -> None:
    limiter = a_limiter(Bus(f"unix://{tmp_path}/nobody.sock"), clock, orders=40)
    assert await limiter.take("user:a", "rest", is_guarded=False) is None
    verdicts = [await take(limiter, rate="orders") for _ in range(12)]
    assert sum(each.is_allowed for each in verdicts) == 40 // FALLBACK_DIVISOR
    wait = verdicts[-1].wait_seconds
    assert wait == 60 * FALLBACK_DIVISOR // 40
    clock.advance(wait)
    assert (await take(limiter, rate="orders")).is_allowed
    assert not (await take(limiter, rate="orders")).is_allowed


async def test_take_when_the_bus_hangs_then_nobody_waits_for_it_twice(
    bus_server: BusServer,
) -> None:
    bus = await started_bus(bus_server)
    limiter = a_limiter(bus, orders=400)
    await take(limiter, rate="orders")
    bus_server.freeze()
    try:
        started = asyncio.get_running_loop().time()
        for who in ("user:x", "user:y", "user:z"):
            await take(limiter, who=who, rate="orders")
        assert asyncio.get_running_loop().time() - started < 0.5
    finally:
        bus_server.thaw()
        await bus.stop()


async def test_rates_when_in_production_then_strict_and_when_in_tests_then_wide(
    environ: dict[str, str],
) -> None:
    wide = rates_of(load_settings(PlatformSettings, environ))
    strict = rates_of(
        load_settings(
            PlatformSettings,
            environ | {"ENVIRONMENT": "production", "RATE_ORDERS_PER_MINUTE": "77"},
        )
    )
    assert {each.limit for each in wide.values()} == {WIDE_PER_MINUTE}
    limits = {name: rate.limit for name, rate in strict.items()}
    assert limits == {**STRICT_PER_MINUTE, "orders": 77}


def a_router() -> ModuleRouter:
    router = ModuleRouter()

    @router.get("/open", access=Access.public())
    async def get_open() -> dict[str, str]:
        return {"is": "open"}

    @router.get("/mine", access=Access.user())
    async def get_mine() -> dict[str, str]:
        return {"is": "mine"}

    @router.post("/orders", access=Access.scope("broker:trade"))
    async def place_order() -> dict[str, str]:
        return {"is": "placed"}

    return router


@pytest.fixture
def ask(
    bus: Bus, settings: PlatformSettings, clock: FixedClock
) -> Callable[..., httpx.AsyncClient]:
    limiter = a_limiter(bus, rest=3, orders=2)

    def made(address: str = "203.0.113.7", user_id: str | None = None) -> httpx.AsyncClient:
        token = None
        if user_id is not None:
            token = access_token(settings, clock, user_id=user_id, scopes=["broker:trade"])
        return client_of(
            a_router(),
            prefix="/api/v1/x",
            settings=settings,
            clock=clock,
            token=token,
            limiter=limiter,
            address=address,
        )

    return made


async def test_request_when_the_quota_is_used_up_then_429_as_the_draft_has_it(
    ask: Callable[..., httpx.AsyncClient],
) -> None:
    async with ask() as client:
        answers = [await client.get("/open") for _ in range(4)]
    assert [each.status_code for each in answers] == [200, 200, 200, 429]
    assert answers[0].headers["ratelimit-policy"] == '"rest";q=3;w=60'
    assert answers[0].headers["ratelimit"] == '"rest";r=2;t=20'
    refused = answers[-1]
    wait = int(refused.headers["retry-after"])
    assert refused.headers["ratelimit"] == f'"rest";r=0;t={wait}'
    assert 15 <= wait <= 20
    problem = refused.json()
    assert refused.headers["content-type"] == "application/problem+json"
    assert problem["type"].endswith("http-problem-types#quota-exceeded")
    assert problem["code"] == "platform.rate.limited"
    assert problem["context"] == {"policy": "rest", "limit": 3, "period_seconds": 60}


async def test_request_when_the_same_client_is_spelled_otherwise_then_the_count_is_the_same(
    ask: Callable[..., httpx.AsyncClient],
) -> None:
    async with ask() as client:
        answers = [
            await client.get("/open"),
            await client.get("/open/"),
            await client.get("/open", headers={"X-Forwarded-For": "198.51.100.9"}),
            await client.get("/open?again=1", headers={"X-Real-IP": "198.51.100.9"}),
        ]
    assert [each.status_code for each in answers] == [200, 200, 200, 429]


async def test_request_when_signed_in_then_the_user_is_charged_wherever_it_comes_from(
    ask: Callable[..., httpx.AsyncClient],
) -> None:
    codes = []
    for address in ("203.0.113.1", "203.0.113.2", "203.0.113.3"):
        async with ask(address, user_id="usr_a") as client:
            codes.append((await client.post("/orders")).status_code)
            codes.append((await client.get("/mine")).status_code)
    assert codes == [200, 200, 200, 200, 429, 200]
    async with ask("203.0.113.1", user_id="usr_b") as client:
        assert (await client.post("/orders")).status_code == 200


async def test_request_when_tokens_are_guessed_then_the_guesser_s_address_is_charged(
    ask: Callable[..., httpx.AsyncClient],
) -> None:
    async with ask() as client:
        client.headers["Authorization"] = "Bearer guess"
        codes = [(await client.get("/mine")).status_code for _ in range(4)]
    assert codes == [401, 401, 401, 429]
