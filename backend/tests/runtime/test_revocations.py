"""Ended sessions reach a process whatever the bus does."""

import asyncio
from typing import Any

import pytest

from trading_api.contracts.auth import REVOCATION_CHANNEL, RevocationNotice, RevokedSession
from trading_api.kernel.clock import SystemClock
from trading_api.runtime.bus import Bus
from trading_api.runtime.identity import Identity, ServiceTokens
from trading_api.runtime.peers import Peers
from trading_api.runtime.revocations import RevocationWatch, watch_revocations
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.clocks import START, FixedClock

END = int(START.timestamp()) + 600


def a_notice(*sessions: str, latest: int = 0, as_of: int = 0) -> RevocationNotice:
    revoked = tuple(RevokedSession(session_id=each, until_seconds=END) for each in sessions)
    return RevocationNotice(as_of_us=as_of, latest_at_us=latest, revoked=revoked)


class Auth:
    """Auth's internal route; keeps what it was asked."""

    def __init__(self) -> None:
        self.notice = a_notice()
        self.status = 200
        self.asked: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["query_string"].decode())
        body = self.notice.model_dump_json().encode()
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": body})


class SilentBus(Bus):
    """A bus whose state the test sets; it carries nothing by itself."""

    up = True

    @property
    def is_up(self) -> bool:
        return self.up


class Scene:
    def __init__(self, settings: PlatformSettings, clock: FixedClock) -> None:
        self.clock = clock
        self.identity = Identity(settings=settings, clock=clock)
        self.bus = SilentBus(settings.bus_url())
        self.auth = Auth()
        tokens = ServiceTokens(settings=settings, module="broker", clock=clock)
        self.peers = Peers(settings=settings, tokens=tokens)
        self.watch = RevocationWatch(identity=self.identity, bus=self.bus, peers=self.peers)

    def start_auth(self) -> None:
        self.peers.add_local(("auth",), self.auth)

    def tell(self, notice: RevocationNotice) -> None:
        self.watch.hear(REVOCATION_CHANNEL, notice.model_dump_json().encode())


@pytest.fixture
async def scene(settings: PlatformSettings, clock: FixedClock) -> Any:
    made = Scene(settings, clock)
    made.start_auth()
    yield made
    await made.peers.close()


async def test_watch_when_it_starts_then_asks_for_all(scene: Scene) -> None:
    scene.auth.notice = a_notice("ses_one", latest=5, as_of=7)
    assert await scene.watch.ask_if_needed()
    assert scene.identity.is_revoked("ses_one")
    assert scene.auth.asked == ["since=0"]


async def test_watch_when_bus_tells_then_in_force_at_once(scene: Scene) -> None:
    scene.tell(a_notice("ses_one", latest=5))
    assert scene.identity.is_revoked("ses_one")


async def test_watch_when_beats_tell_nothing_new_then_auth_is_left_alone(scene: Scene) -> None:
    scene.auth.notice = a_notice(latest=5, as_of=7)
    await scene.watch.ask_if_needed()
    for _ in range(25):
        scene.tell(a_notice(latest=5))
        scene.clock.advance(1)
        await scene.watch.ask_if_needed()
    assert len(scene.auth.asked) == 1
    for _ in range(5):
        scene.tell(a_notice(latest=5))
        scene.clock.advance(1)
        await scene.watch.ask_if_needed()
    assert len(scene.auth.asked) == 2


async def test_watch_when_a_notice_was_lost_then_the_next_beat_betrays_it(scene: Scene) -> None:
    scene.auth.notice = a_notice(latest=5, as_of=7)
    await scene.watch.ask_if_needed()
    scene.auth.notice = a_notice("ses_lost", latest=9, as_of=11)
    scene.clock.advance(1)
    scene.tell(a_notice(latest=9))
    assert await scene.watch.ask_if_needed()
    assert scene.identity.is_revoked("ses_lost")
    assert scene.auth.asked[-1] == "since=7"


async def test_watch_when_only_the_later_of_two_notices_came_then_the_first_is_fetched(
    scene: Scene,
) -> None:
    await scene.watch.ask_if_needed()
    scene.auth.notice = a_notice("ses_lost", "ses_two", latest=9, as_of=11)
    scene.clock.advance(1)
    scene.tell(a_notice("ses_two", latest=9))
    await scene.watch.ask_if_needed()
    assert scene.identity.is_revoked("ses_lost")


@pytest.mark.parametrize("is_up", [False, True])
async def test_watch_when_bus_is_down_or_silent_then_asks_within_five_seconds(
    scene: Scene, is_up: bool
) -> None:
    scene.auth.notice = a_notice(latest=5, as_of=7)
    await scene.watch.ask_if_needed()
    scene.tell(a_notice(latest=5))
    scene.bus.up = is_up
    scene.auth.notice = a_notice("ses_one", latest=9, as_of=11)
    seconds = 0
    while not scene.identity.is_revoked("ses_one"):
        scene.clock.advance(1)
        seconds += 1
        await scene.watch.ask_if_needed()
        assert seconds <= 4
    asked = len(scene.auth.asked)
    for _ in range(10):
        scene.clock.advance(1)
        await scene.watch.ask_if_needed()
    assert len(scene.auth.asked) - asked == 5


@pytest.mark.parametrize("status", [403, 500, 503])
async def test_watch_when_auth_fails_then_goes_on_and_catches_up(scene: Scene, status: int) -> None:
    scene.auth.status = status
    for _ in range(3):
        assert not await scene.watch.ask_if_needed()
        scene.clock.advance(1)
    scene.auth.status = 200
    scene.auth.notice = a_notice("ses_one", latest=9)
    assert await scene.watch.ask_if_needed()
    assert scene.identity.is_revoked("ses_one")


async def test_watch_when_auth_is_not_there_then_goes_on(
    settings: PlatformSettings, clock: FixedClock
) -> None:
    scene = Scene(settings, clock)
    assert not await scene.watch.ask_if_needed()
    scene.start_auth()
    clock.advance(1)
    assert await scene.watch.ask_if_needed()
    await scene.peers.close()


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"latest_at_us": "x"}', b"\xff"])
async def test_watch_when_notice_is_unreadable_then_dropped(scene: Scene, payload: bytes) -> None:
    scene.watch.hear(REVOCATION_CHANNEL, payload)
    assert await scene.watch.ask_if_needed()


async def test_watch_when_run_on_a_real_bus_then_hears(
    bus: Bus, settings: PlatformSettings
) -> None:
    clock = SystemClock()
    identity = Identity(settings=settings, clock=clock)
    ended = asyncio.Event()
    identity.on_revoke(lambda _session_id: ended.set())
    tokens = ServiceTokens(settings=settings, module="broker", clock=clock)
    peers = Peers(settings=settings, tokens=tokens)
    peers.add_local(("auth",), Auth())
    task = asyncio.ensure_future(watch_revocations(identity, bus, peers).run(None))
    notice = a_notice("ses_one", latest=5).model_dump_json().encode()
    try:
        async with asyncio.timeout(10):
            while not ended.is_set():
                bus.publish(REVOCATION_CHANNEL, notice)
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await peers.close()
    assert identity.is_revoked("ses_one")
