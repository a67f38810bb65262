"""Asks the other modules over their own sockets, or in-process where they share the process."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import UnavailableError
from trading_api.modules.gateway.domain import PASSED, DocumentKind, Probe
from trading_api.runtime.peers import Peers

PROBE_SECONDS = 1.0
"""How long a module has to say how it is."""

DOCUMENT_SECONDS = 5.0
"""How long a module has for a document: the first time it is made, later it is only sent."""

_DOCUMENT_PATHS: Mapping[DocumentKind, str] = {
    "openapi": "openapi.json",
    "asyncapi": "ws/asyncapi.json",
}


class PeerModules:
    """The modules that this process can reach."""

    def __init__(self, *, peers: Peers, clock: Clock, version: str) -> None:
        self._peers = peers
        self._clock = clock
        self._version = version

    def names(self) -> Sequence[str]:
        """Return the modules whose place is known."""
        return self._peers.names()

    async def probe(self, module: str) -> Probe:
        """Ask the readiness of the process that serves a module; never raises."""
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                answer = await self._peers.client(module).get(
                    "/readyz", timeout_seconds=PROBE_SECONDS
                )
            found = answer.json()
            state = found["modules"][module]
        except TimeoutError:
            return Probe(module, silence=f"no answer within {PROBE_SECONDS:.0f} s")
        except UnavailableError as error:
            return Probe(module, silence=error.message)
        except (ValueError, KeyError, TypeError):
            return Probe(module, silence="its answer can't be read")
        latency_us = round((self._clock.monotonic() - began) * 1_000_000)
        reasons = {**state["degraded"], **state["failures"]}
        names = dict.fromkeys((*state.get("checks", ()), *reasons))
        return Probe(
            module,
            version=found.get("version"),
            latency_us=latency_us,
            checks={name: reasons.get(name, PASSED) for name in names},
            failures=frozenset(state["failures"]),
        )

    async def fetch_document(self, module: str, kind: DocumentKind) -> Mapping[str, Any] | None:
        """Fetch a module's document of the current version; None where it has none."""
        path = f"/api/{self._version}/{module}/{_DOCUMENT_PATHS[kind]}"
        try:
            answer = await self._peers.client(module).get(path, timeout_seconds=DOCUMENT_SECONDS)
            document: Any = answer.json() if answer.status_code == 200 else None
        except (UnavailableError, ValueError):
            return None
        return document if isinstance(document, dict) else None
