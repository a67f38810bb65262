"""The live registry: each process tells the others that it is there, and for how long.

Processes write themselves into one hash on the bus, again every two seconds. Nothing depends on
it: with the bus down the fleet serves as before, and readers see only themselves and what they
knew.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import orjson
import structlog

from trading_api.kernel.clock import Clock, to_us
from trading_api.runtime.bus import Bus, BusUnavailableError

log = structlog.get_logger("announce")

REGISTRY_KEY = "trading:{platform}:processes"
"""Hash of instance → announcement as JSON."""

HEARTBEAT_SECONDS = 2.0
LOST_AFTER_SECONDS = 7.0
"""Three heartbeats and a little: one late one is no loss."""
FORGOTTEN_AFTER_SECONDS = 60.0

ProcessState = Literal["starting", "ready", "not_ready", "stopping", "lost", "unknown"]


@dataclass(frozen=True, slots=True)
class Announcement:
    """One process as it described itself at its last heartbeat.

    Attributes:
        instance: unique among all processes that ever lived.
        process: its name in the fleet, such as ``broker_0``; "" where nobody gave it one.
        modules: API versions by module.
        version: of the program.
        address: ``unix:<path>`` or ``host:port``; "" where the process isn't told.
        started_at_us: when it was composed, microseconds since 1970 UTC.
        heartbeat_at_us: its clock at the last heartbeat.
        state: ``lost`` after 7 s without a heartbeat; ``unknown`` while the bus is away.
    """

    instance: str
    process: str
    modules: Mapping[str, Sequence[str]]
    version: str
    address: str
    started_at_us: int
    heartbeat_at_us: int
    state: ProcessState

    @property
    def is_live(self) -> bool:
        """Tell whether the process may be counted on: anything but lost."""
        return self.state != "lost"

    def encode(self) -> bytes:
        """Return the JSON that stands in the registry."""
        return orjson.dumps(asdict(self))

    @classmethod
    def decode(cls, data: bytes) -> "Announcement":
        """Read an entry of the registry.

        Raises:
            ValueError: the bytes are no announcement.
        """
        found: Any = orjson.loads(data)
        try:
            return cls(**{name: found[name] for name in cls.__slots__})
        except (KeyError, TypeError) as error:
            raise ValueError("not an announcement") from error


class ProcessRegistry:
    """Announces this process and lists all that are announced.

    Args:
        own: this process at its start; state and heartbeat are filled in.
        find_state: tells how this process is; asked at every heartbeat.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        clock: Clock,
        own: Announcement,
        find_state: Callable[[], Awaitable[ProcessState]],
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._own = own
        self._find_state = find_state
        self._known: dict[str, Announcement] = {}

    @property
    def own(self) -> Announcement:
        """This process as it was last announced."""
        return self._own

    async def keep_announcing(self) -> None:
        """Announce for as long as the task lives; the bus may come and go."""
        while True:
            await self.announce()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def announce(self) -> None:
        """Write one heartbeat; nothing where the bus is away."""
        state = await self._find_state()
        self._own = replace(self._own, state=state, heartbeat_at_us=to_us(self._clock.now()))
        try:
            await self._bus.call("HSET", REGISTRY_KEY, self._own.instance, self._own.encode())
        except BusUnavailableError:
            log.debug("announcement_not_sent")

    async def withdraw(self) -> None:
        """Take this process out of the registry, at its stop."""
        self._own = replace(self._own, state="stopping")
        try:
            await self._bus.call("HDEL", REGISTRY_KEY, self._own.instance)
        except BusUnavailableError:
            log.debug("withdrawal_not_sent")

    async def list_processes(self) -> Sequence[Announcement]:
        """Return every announced process by name, this one always among them.

        A process that stopped without a word is ``lost`` and forgotten after a minute.
        """
        now_us = to_us(self._clock.now())
        try:
            fields = await self._bus.call("HGETALL", REGISTRY_KEY)
        except BusUnavailableError:
            found = {name: replace(each, state="unknown") for name, each in self._known.items()}
        else:
            found, forgotten = _read(fields, now_us)
            if forgotten:
                await self._forget(forgotten)
            self._known = dict(found)
        found[self._own.instance] = self._own
        return sorted(found.values(), key=lambda each: (each.process, each.instance))

    async def _forget(self, instances: Sequence[str]) -> None:
        try:
            await self._bus.call("HDEL", REGISTRY_KEY, *instances)
        except BusUnavailableError:
            log.debug("registry_not_cleaned")


def _read(fields: Any, now_us: int) -> tuple[dict[str, Announcement], list[str]]:
    """Sort entries into those to show and the instances to forget.

    Both the flat list of RESP2 and the map of RESP3 are read.
    """
    flat = (
        fields.items()
        if isinstance(fields, Mapping)
        else zip(fields[::2], fields[1::2], strict=True)
    )
    found: dict[str, Announcement] = {}
    forgotten: list[str] = []
    for name, data in flat:
        instance = name.decode() if isinstance(name, bytes) else str(name)
        try:
            announcement = Announcement.decode(data)
        except ValueError:
            forgotten.append(instance)
            continue
        silent_seconds = (now_us - announcement.heartbeat_at_us) / 1_000_000
        if silent_seconds > FORGOTTEN_AFTER_SECONDS:
            forgotten.append(instance)
        elif silent_seconds > LOST_AFTER_SECONDS:
            found[instance] = replace(announcement, state="lost")
        else:
            found[instance] = announcement
    return found, forgotten
