"""The hourly proof: what it finds is counted by id, and nothing is counted while all holds."""

from prometheus_client import REGISTRY

from trading_api.ledger.checks import Violation
from trading_api.runtime.module import Proof
from trading_api.runtime.proofs import Prover


def counted(id_: str) -> float | None:
    return REGISTRY.get_sample_value("invariant_violations_total", {"id": id_})


async def test_prover_when_run_then_violations_are_counted_by_id(clock):
    found: list[Violation] = []

    async def run() -> list[Violation]:
        return found

    prover = Prover([Proof("x", ("X1", "X2"), run)], module="x", clock=clock)
    assert await prover.prove() == 0
    assert counted("X1") in (None, 0)
    found += [Violation("X1", "a", "b"), Violation("X1", "c", "d")]
    assert await prover.prove() == 2
    assert counted("X1") == 2
    at = REGISTRY.get_sample_value("invariant_proven_timestamp_seconds", {"module": "x"})
    assert at == clock.now().timestamp()
