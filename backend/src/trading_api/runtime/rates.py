"""How often somebody may ask: quotas shared by every process over the bus.

A quota is a GCRA bucket (generic cell rate algorithm): one number per key on the bus, the
theoretical arrival time, moved by a script on the server's own clock. A process that is asked much
takes several units at once and spends them itself, so a hot caller costs it few calls; units taken
ahead may be lost, never spent twice, so no quota is ever exceeded.

Without the bus, reading is free and the rest has a bucket in each process, at a quarter of the
rate: what a thief of passwords or money could use stays limited.
"""

import asyncio
import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import structlog

from trading_api.kernel.clock import Clock
from trading_api.runtime.bus import Bus
from trading_api.runtime.bus.bus import BusCommandError, BusUnavailableError
from trading_api.runtime.settings import PlatformSettings

log = structlog.get_logger("rates")

RateClass = Literal["login", "orders", "history", "rest"]
RATE_CLASSES: tuple[RateClass, ...] = get_args(RateClass)

KEY_PREFIX = "trading:{rate}:"
"""With a hash tag: a script's keys must lie on one node of a cluster."""

PERIOD_SECONDS = 60
WIDE_PER_MINUTE = 6_000_000
STRICT_PER_MINUTE = {"login": 30, "orders": 600, "history": 300, "rest": 1200}

ANSWER_SECONDS = 0.1
"""A bus slower than this isn't waited for; quotas are no reason to be slow."""

WITHOUT_BUS_SECONDS = 1.0
FALLBACK_DIVISOR = 4
CREDIT_SECONDS = 5.0
HOT_SECONDS = 0.5
CREDIT_MAX = 1000
BUCKETS_MAX = 20_000
BATCH_MAX = 500

# KEYS[i] with ARGV[3i-2..3i]: microseconds per unit, units of a full bucket, units wanted.
# Answers per key: units granted, units left, microseconds to a full bucket or to the next unit.
_SCRIPT = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local answer = {}
for i = 1, #KEYS do
  local interval, burst = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1])
  local tat = math.max(tonumber(redis.call('GET', KEYS[i]) or now), now)
  local free = math.floor((interval * burst - (tat - now)) / interval)
  local granted = math.max(0, math.min(tonumber(ARGV[3 * i]), free))
  local wait
  if granted > 0 then
    tat = tat + granted * interval
    wait = tat - now
    redis.call('SET', KEYS[i], string.format('%.0f', tat), 'PX', math.ceil(wait / 1000))
  else
    wait = tat + interval - interval * burst - now
  end
  answer[#answer + 1] = granted
  answer[#answer + 1] = math.max(0, free - granted)
  answer[#answer + 1] = wait
end
return answer
"""
_SCRIPT_HASH = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in a period, all at once if need be.

    Attributes:
        name: of the policy, as answers name it.
        limit: units in a period, and at once.
        is_exact: never take units ahead; for what is worth a call to the bus each time.
    """

    name: RateClass
    limit: int
    period_seconds: int = PERIOD_SECONDS
    is_exact: bool = False

    @property
    def interval_us(self) -> int:
        """Microseconds in which one unit comes back."""
        return max(1, self.period_seconds * 1_000_000 // self.limit)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a quota says to one request.

    Attributes:
        remaining: units left after it.
        wait_seconds: when allowed, until the quota is whole again; else until one is free.
    """

    is_allowed: bool
    rate: Rate
    remaining: int
    wait_seconds: int


class _Bucket:
    """What this process knows of one key."""

    __slots__ = (
        "asked_at",
        "block",
        "blocked_until",
        "credit",
        "full_at",
        "good_until",
        "key",
        "rate",
        "remaining",
        "waiting",
    )  # fmt: skip

    def __init__(self, key: str, rate: Rate) -> None:
        self.key = key
        self.rate = rate
        self.credit = 0
        self.good_until = -math.inf
        self.blocked_until = -math.inf
        self.full_at = 0.0
        self.remaining = rate.limit
        self.block = 1
        self.asked_at = -math.inf
        self.waiting: list[asyncio.Future[Verdict | None]] = []


def rates_of(settings: PlatformSettings) -> dict[RateClass, Rate]:
    """Return the quota of each class: as set, else strict in production and wide elsewhere."""
    chosen: dict[RateClass, int | None] = {
        "login": settings.rate_login_per_minute,
        "orders": settings.rate_orders_per_minute,
        "history": settings.rate_history_per_minute,
        "rest": settings.rate_rest_per_minute,
    }
    usual = STRICT_PER_MINUTE if settings.is_production else {}
    return {
        name: Rate(
            name,
            usual.get(name, WIDE_PER_MINUTE) if limit is None else limit,
            is_exact=name == "login",
        )
        for name, limit in chosen.items()
    }


class RateLimiter:
    """Charges quotas for one process.

    Args:
        rates: the quota of each class.
    """

    def __init__(self, *, bus: Bus, clock: Clock, rates: dict[RateClass, Rate]) -> None:
        self.rates = rates
        self._bus = bus
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._queue: list[_Bucket] = []
        self._worker: asyncio.Task[None] | None = None
        self._without_bus_until = -math.inf
        self._local = LocalRates(clock)

    async def take(self, who: str, rate_class: RateClass, *, is_guarded: bool) -> Verdict | None:
        """Charge one unit of a class to somebody; None where the bus is away and it is free.

        Args:
            who: such as ``user:usr_…`` or ``address:203.0.113.7``.
            is_guarded: limited without the bus too, in this process at a quarter of the rate.
        """
        rate = self.rates[rate_class]
        key = f"{KEY_PREFIX}{rate_class}:{who}"
        now = self._clock.monotonic()
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(key, rate)
            if len(self._buckets) > BUCKETS_MAX:
                self._buckets.popitem(last=False)
        if bucket.credit > 0 and now < bucket.good_until:
            bucket.credit -= 1
            wait = max(0, math.ceil(bucket.full_at - now))
            return Verdict(True, rate, bucket.remaining + bucket.credit, wait)
        if now < bucket.blocked_until:
            return Verdict(False, rate, 0, math.ceil(bucket.blocked_until - now))
        verdict: Verdict | None = None
        if self._bus.is_up and now >= self._without_bus_until:
            verdict = await self._ask(bucket)
        if verdict is None and is_guarded:
            return self._local.take(key, rate)
        return verdict

    def has_at_hand(self, who: str, rate_class: RateClass) -> bool:
        """Tell whether ``take_at_hand`` can charge one unit; where not, ``take`` has to tell.

        Only for what isn't limited without the bus.
        """
        bucket = self._buckets.get(f"{KEY_PREFIX}{rate_class}:{who}")
        now = self._clock.monotonic()
        if bucket is not None:
            if bucket.credit > 0 and now < bucket.good_until:
                return True
            if now < bucket.blocked_until:
                return False
        return not self._bus.is_up or now < self._without_bus_until

    def take_at_hand(self, who: str, rate_class: RateClass) -> Verdict | None:
        """Charge one unit that this process has taken already, without waiting for anything.

        Call it where ``has_at_hand`` said so, and nothing was awaited since.

        Returns:
            What the quota says of it, None where it is free.
        """
        bucket = self._buckets.get(f"{KEY_PREFIX}{rate_class}:{who}")
        now = self._clock.monotonic()
        if bucket is None or bucket.credit <= 0 or now >= bucket.good_until:
            return None
        bucket.credit -= 1
        wait = max(0, math.ceil(bucket.full_at - now))
        return Verdict(True, bucket.rate, bucket.remaining + bucket.credit, wait)

    def _ask(self, bucket: _Bucket) -> asyncio.Future[Verdict | None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Verdict | None] = loop.create_future()
        if not bucket.waiting:
            self._queue.append(bucket)
        bucket.waiting.append(future)
        if self._worker is None:
            self._worker = loop.create_task(self._work(), name="rates")
        return future

    async def _work(self) -> None:
        """Ask the bus in batches, one at a time, until nobody waits."""
        try:
            while self._queue:
                batch, self._queue = self._queue[:BATCH_MAX], self._queue[BATCH_MAX:]
                waiting = [each.waiting for each in batch]
                for each in batch:
                    each.waiting = []
                try:
                    await self._ask_for(batch, waiting)
                finally:
                    # Whatever happened, nobody waits for ever.
                    for future in (future for each in waiting for future in each):
                        if not future.done():
                            future.set_result(None)
        finally:
            self._worker = None

    async def _ask_for(
        self, batch: Sequence[_Bucket], waiting: Sequence[list[asyncio.Future[Verdict | None]]]
    ) -> None:
        now = self._clock.monotonic()
        keys, numbers = [], []
        for bucket, futures in zip(batch, waiting, strict=True):
            is_hot = now - bucket.asked_at < HOT_SECONDS and not bucket.rate.is_exact
            most = min(CREDIT_MAX, max(1, bucket.rate.limit // 20))
            bucket.block = min(bucket.block * 2, most) if is_hot else 1
            bucket.asked_at = now
            wanted = max(len(futures), bucket.block)
            keys.append(bucket.key)
            numbers += [bucket.rate.interval_us, bucket.rate.limit, wanted]
        try:
            answer = await self._evaluate(keys, numbers)
        except BusUnavailableError:
            self._without_bus_until = self._clock.monotonic() + WITHOUT_BUS_SECONDS
            return
        except BusCommandError as error:
            log.error("rate_script_refused", reason=str(error))
            self._without_bus_until = self._clock.monotonic() + WITHOUT_BUS_SECONDS
            return
        now = self._clock.monotonic()
        for index, (bucket, futures) in enumerate(zip(batch, waiting, strict=True)):
            granted, remaining, wait_us = answer[3 * index : 3 * index + 3]
            wait = wait_us / 1_000_000
            bucket.credit = max(0, granted - len(futures))
            bucket.remaining, bucket.good_until = remaining, now + CREDIT_SECONDS
            if granted:
                bucket.full_at = now + wait
            if granted < len(futures):
                step = bucket.rate.interval_us / 1_000_000
                bucket.blocked_until = now + (step if granted else wait)
            for position, future in enumerate(futures):
                if future.done():
                    continue
                if position < granted:
                    left = remaining + bucket.credit
                    verdict = Verdict(True, bucket.rate, left, math.ceil(bucket.full_at - now))
                else:
                    seconds = max(1, math.ceil(bucket.blocked_until - now))
                    verdict = Verdict(False, bucket.rate, 0, seconds)
                future.set_result(verdict)

    async def _evaluate(self, keys: Sequence[str], numbers: Sequence[int]) -> list[int]:
        rest: tuple[str | int, ...] = (len(keys), *keys, *numbers)
        try:
            answer: list[int] = await self._bus.call(
                "EVALSHA", _SCRIPT_HASH, *rest, timeout_seconds=ANSWER_SECONDS
            )
        except BusCommandError as error:
            # A server that was started anew doesn't know the script yet.
            if not str(error).startswith(("NOSCRIPT", "No matching script")):
                raise
            answer = await self._bus.call("EVAL", _SCRIPT, *rest, timeout_seconds=ANSWER_SECONDS)
        return answer


class LocalRates:
    """Buckets of one process, at a quarter of the rate, for as long as the bus is away."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._arrivals: OrderedDict[str, float] = OrderedDict()

    def take(self, key: str, rate: Rate) -> Verdict:
        """Charge one unit."""
        now = self._clock.monotonic()
        limit = max(1, rate.limit // FALLBACK_DIVISOR)
        interval = rate.period_seconds / limit
        slower = Rate(rate.name, limit, rate.period_seconds, rate.is_exact)
        arrival = max(self._arrivals.pop(key, now), now)
        after = arrival + interval
        # A microsecond of slack: sums of intervals aren't exact.
        if after - now > rate.period_seconds + 1e-6:
            self._arrivals[key] = arrival
            wait = after - now - rate.period_seconds
            return Verdict(False, slower, 0, max(1, math.ceil(wait)))
        self._arrivals[key] = after
        if len(self._arrivals) > BUCKETS_MAX:
            self._arrivals.popitem(last=False)
        remaining = int((rate.period_seconds - (after - now)) / interval + 1e-6)
        return Verdict(True, slower, remaining, math.ceil(after - now))
