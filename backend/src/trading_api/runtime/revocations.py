"""Ended sessions reach every process: over the bus at once, by asking auth where the bus fails.

Auth announces each ended session and beats every second with the instant of the last one. A
process that hears of a later one than it knows, or hears nothing, or has no bus, asks auth.
So a logout is in force everywhere within seconds, bus up or down.
"""

import asyncio

import structlog
from pydantic import ValidationError

from trading_api.contracts.auth import (
    REVOCATION_CHANNEL,
    REVOCATIONS_PATH,
    RevocationNotice,
)
from trading_api.kernel.errors import UnavailableError
from trading_api.runtime.bus import Bus
from trading_api.runtime.database import Lease
from trading_api.runtime.identity import Identity
from trading_api.runtime.module import BackgroundTask
from trading_api.runtime.peers import Peers

log = structlog.get_logger("revocations")

BEAT_SECONDS = 1.0
SILENCE_SECONDS = 2.5
"""Two beats may be late before the bus counts as lost."""

ASK_SECONDS = 2.0
"""While the bus is down; with a silence it stays within 5 s."""

ASK_ANYWAY_SECONDS = 30.0


class RevocationWatch:
    """Keeps one process's ``Identity`` up to date about ended sessions."""

    def __init__(self, *, identity: Identity, bus: Bus, peers: Peers) -> None:
        self._identity = identity
        self._clock = identity.clock
        self._bus = bus
        self._auth = peers.client("auth")
        self._heard_at: float | None = None
        self._asked_at: float | None = None
        self._known: RevocationNotice | None = None
        self._heard_latest_us = 0
        self._is_answered = True

    async def run(self, _lease: Lease | None = None) -> None:
        """Listen and ask until cancelled."""
        subscription = self._bus.subscribe(REVOCATION_CHANNEL, self.hear)
        try:
            while True:
                await self.ask_if_needed()
                await asyncio.sleep(BEAT_SECONDS)
        finally:
            subscription.close()

    def hear(self, _channel: str, payload: bytes) -> None:
        """Take a notice from the bus; what can't be read is dropped, since the bus is no truth."""
        try:
            notice = RevocationNotice.model_validate_json(payload)
        except ValidationError:
            log.warning("revocation_notice_unreadable", size=len(payload))
            return
        self._heard_at = self._clock.monotonic()
        self._heard_latest_us = max(self._heard_latest_us, notice.latest_at_us)
        self._apply(notice)

    async def ask_if_needed(self) -> bool:
        """Ask auth where the bus doesn't tell enough; return whether it answered."""
        now = self._clock.monotonic()
        if self._asked_at is not None:
            waited = now - self._asked_at
            is_deaf = (
                not self._bus.is_up
                or self._heard_at is None
                or now - self._heard_at > SILENCE_SECONDS
            )
            if self._is_behind():
                patience = BEAT_SECONDS
            elif is_deaf:
                patience = ASK_SECONDS
            else:
                patience = ASK_ANYWAY_SECONDS
            if waited < patience:
                return False
        self._asked_at = now
        return await self._ask()

    def _is_behind(self) -> bool:
        return self._known is None or self._heard_latest_us > self._known.latest_at_us

    async def _ask(self) -> bool:
        since = 0 if self._known is None else self._known.as_of_us
        try:
            response = await self._auth.get(REVOCATIONS_PATH, params={"since": since})
            if response.status_code != 200:
                raise UnavailableError(f"auth answered {response.status_code}")
            notice = RevocationNotice.model_validate_json(response.content)
        except (UnavailableError, ValidationError) as error:
            if self._is_answered:
                log.warning("revocations_not_answered", reason=str(error))
            self._is_answered = False
            return False
        if not self._is_answered:
            log.info("revocations_answered")
        self._is_answered = True
        self._apply(notice)
        self._known = notice
        return True

    def _apply(self, notice: RevocationNotice) -> None:
        for each in notice.revoked:
            self._identity.revoke(each.session_id, until_seconds=each.until_seconds)


def watch_revocations(identity: Identity, bus: Bus, peers: Peers) -> BackgroundTask:
    """Return the task that every process runs besides those of its modules."""
    watch = RevocationWatch(identity=identity, bus=bus, peers=peers)
    return BackgroundTask("revocations", watch.run)
