"""Runs a module's proofs every hour, and counts what they find for whoever is alarmed by it."""

import asyncio
from collections.abc import Sequence

import structlog
from prometheus_client import Counter, Gauge

from trading_api.kernel.clock import Clock, to_us
from trading_api.ledger.checks import NotCheckedError
from trading_api.runtime.database.leases import Lease
from trading_api.runtime.module import Proof

log = structlog.get_logger("proofs")

FIRST_SECONDS = 300.0
"""A process that has just started has better things to do."""

INTERVAL_SECONDS = 3600.0
_LOGGED_MAX = 20

VIOLATIONS = Counter(
    "invariant_violations", "broken invariants found by the hourly proofs; must stay 0", ["id"]
)
PROVEN_AT = Gauge(
    "invariant_proven_timestamp_seconds", "when the proofs of a module last ran", ["module"]
)


class Prover:
    """The background task of a module's proofs, under a lease."""

    def __init__(self, proofs: Sequence[Proof], *, module: str, clock: Clock) -> None:
        self._proofs = tuple(proofs)
        self._module = module
        self._clock = clock

    async def run(self, _lease: Lease | None) -> None:
        """Prove every hour until cancelled."""
        for proof in self._proofs:
            for id_ in proof.ids:
                # A counter that was never counted isn't scraped, and nobody would miss it.
                VIOLATIONS.labels(id_)
        await asyncio.sleep(FIRST_SECONDS)
        while True:
            await self.prove()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def prove(self) -> int:
        """Run every proof once; return how many violations were found."""
        count = 0
        for proof in self._proofs:
            try:
                found = await proof.run()
            except NotCheckedError as error:
                # Asked again in an hour.
                log.warning(
                    "invariants_not_checked",
                    module=self._module,
                    proof=proof.name,
                    ids=list(proof.ids),
                    reason=str(error),
                )
                continue
            count += len(found)
            for each in found:
                VIOLATIONS.labels(each.id).inc()
            for each in found[:_LOGGED_MAX]:
                log.error(
                    "invariant_violated",
                    module=self._module,
                    proof=proof.name,
                    id=each.id,
                    subject=each.subject,
                    what=each.message,
                )
        PROVEN_AT.labels(self._module).set(to_us(self._clock.now()) / 1_000_000)
        log.info("invariants_proven", module=self._module, violations=count)
        return count
