"""The hourly proof: what it finds is counted by id, and nothing is counted while all holds."""

from prometheus_client import REGISTRY

from trading_api.ledger.checks import NotCheckedError, Violation
from trading_api.manager.proofs import prove_one
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


async def test_proof_when_it_cant_be_told_then_the_others_are_made_and_nothing_is_counted(clock):
    async def ask() -> list[Violation]:
        raise NotCheckedError("nobody answers")

    async def run() -> list[Violation]:
        return [Violation("X4", "a", "b")]

    asking, running = Proof("asking", ("X3",), ask), Proof("running", ("X4",), run)
    assert await Prover([asking, running], module="x", clock=clock).prove() == 1
    assert (counted("X3"), counted("X4")) == (None, 1)
    told = await prove_one("x", asking)
    assert (told.violations, told.not_checked) == ((), "nobody answers")
    assert told.to_dict()["not_checked"] == "nobody answers"
    assert (await prove_one("x", running)).not_checked is None
