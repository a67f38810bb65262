"""Ask a process over HTTP how it is: one request with a time limit, never an exception."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trading_api.manager.engine import UnixConnection
from trading_api.runtime.topology import Address

_BODY_BYTES_MAX = 1_048_576


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `status` is 0 where nobody answered, and `problem` says why."""

    status: int
    latency_ms: float
    body: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def reason(self) -> str:
        """Return why this isn't a good answer: each module's failures, or the problem's detail."""
        if self.status == 0:
            return f"no answer ({self.problem})"
        failures = [
            f"{name}: {check}: {why}"
            for name, module in _mapping(self.body.get("modules")).items()
            for check, why in _mapping(_mapping(module).get("failures")).items()
        ]
        said = "; ".join(failures) or str(self.body.get("detail", ""))
        return f"answers {self.status}" + (f": {said}" if said else "")


def get(
    address: Address,
    path: str,
    *,
    timeout_seconds: float = 1.0,
    host: str = "localhost",
    is_tls: bool = False,
) -> Answer:
    """Send one GET. A body that isn't a JSON object is left out.

    The certificate isn't checked: this is the host asking itself, and the name on it is another.
    """
    began = time.monotonic()
    connection: http.client.HTTPConnection
    if address.socket is not None:
        connection = UnixConnection(address.socket, timeout_seconds=timeout_seconds)
    elif is_tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            address.host, address.port, timeout=timeout_seconds, context=context
        )
    else:
        connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout_seconds)
    try:
        connection.request("GET", path, headers={"Host": host, "Accept": "application/json"})
        response = connection.getresponse()
        raw = response.read(_BODY_BYTES_MAX)
        latency_ms = (time.monotonic() - began) * 1000
    except (OSError, http.client.HTTPException) as error:
        latency_ms = (time.monotonic() - began) * 1000
        return Answer(0, latency_ms, problem=str(error) or type(error).__name__)
    finally:
        connection.close()
    try:
        body = json.loads(raw)
    except ValueError:
        body = {}
    return Answer(response.status, latency_ms, body if isinstance(body, dict) else {})


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
