"""Runs every module's proofs from scratch over its database, whether or not the fleet runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trading_api.ledger.checks import NotCheckedError
from trading_api.manager.backup import close, compose
from trading_api.manager.surroundings import Surroundings
from trading_api.runtime.module import Proof


@dataclass(frozen=True, slots=True)
class Proven:
    """What one proof found.

    Attributes:
        ids: the invariants it proves.
        violations: with `id`, `subject` and `message`; empty where everything holds.
        not_checked: why nothing could be told; None where it was proven.
    """

    module: str
    proof: str
    ids: tuple[str, ...]
    violations: tuple[Any, ...]
    seconds: float
    not_checked: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {
            "module": self.module,
            "proof": self.proof,
            "proves": list(self.ids),
            "seconds": round(self.seconds, 3),
            "violations": [
                {"id": each.id, "subject": each.subject, "message": each.message}
                for each in self.violations
            ],
            "not_checked": self.not_checked,
        }


async def prove(modules: Sequence[str], around: Surroundings) -> list[Proven]:
    """Prove modules one after the other, each on a snapshot of its database.

    Raises:
        ConfigurationError: a module's settings are wrong.
    """
    process = compose(modules, around)
    found: list[Proven] = []
    try:
        for name, hosted in process.hosted.items():
            for proof in hosted.parts.proofs:
                found.append(await prove_one(name, proof))
    finally:
        await close(process)
    return found


async def prove_one(module: str, proof: Proof) -> Proven:
    """Run one proof of a module."""
    began = time.perf_counter()
    violations: tuple[Any, ...] = ()
    reason = None
    try:
        violations = tuple(await proof.run())
    except NotCheckedError as error:
        reason = str(error)
    seconds = time.perf_counter() - began
    return Proven(module, proof.name, tuple(proof.ids), violations, seconds, reason)
