"""Ended sessions told to every process: this one directly, the others over the bus."""

from collections.abc import Sequence
from datetime import datetime

from trading_api.contracts.auth import REVOCATION_CHANNEL, RevocationNotice, RevokedSession
from trading_api.kernel.clock import to_us
from trading_api.runtime.bus import Bus
from trading_api.runtime.identity import Identity


class BusAnnouncer:
    """Announces revocations, and beats so that listeners know when they missed one."""

    def __init__(self, *, bus: Bus, identity: Identity) -> None:
        self._bus = bus
        self._identity = identity

    def announce(
        self, session_ids: Sequence[str], *, revoked_at: datetime, until: datetime
    ) -> None:
        """Refuse the sessions here at once, and publish them."""
        until_seconds = int(until.timestamp()) + 1
        for session_id in session_ids:
            self._identity.revoke(session_id, until_seconds=until_seconds)
        revoked_at_us = to_us(revoked_at)
        self.publish(
            RevocationNotice(
                as_of_us=revoked_at_us,
                latest_at_us=revoked_at_us,
                revoked=tuple(
                    RevokedSession(session_id=each, until_seconds=until_seconds)
                    for each in session_ids
                ),
            )
        )

    def publish(self, notice: RevocationNotice) -> None:
        """Publish a notice; lost where the bus is down, and then listeners ask."""
        self._bus.publish(REVOCATION_CHANNEL, notice.model_dump_json().encode())
