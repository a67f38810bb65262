"""Calls to other modules: over their sockets, or in-process where they share this process.

Every call has a time limit and carries the service identity, the request id and the user it is
made for. A module that isn't there is an ``UnavailableError``, never a hang.
"""

import json
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any

import httpx

from trading_api.kernel.errors import UnavailableError
from trading_api.runtime import context
from trading_api.runtime.identity import ServiceTokens
from trading_api.runtime.settings import PlatformSettings

PEERS_FILE = "peers.json"
TIMEOUT_SECONDS = 2.0


class PeerClient:
    """Asks one other module.

    Args:
        name: the module asked.
        peers: knows how it is reached.
    """

    def __init__(self, name: str, peers: "Peers") -> None:
        self.name = name
        self._peers = peers

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        acting_for: str = "",
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> httpx.Response:
        """Make one call and return whatever status came back; never retried here.

        Args:
            acting_for: the user in whose name this is asked; "" for the module itself.

        Raises:
            UnavailableError: the module can't be reached or didn't answer in time; whether it
                acted is then unknown, so ask again only with the same idempotency id.
        """
        client = self._peers.http(self.name)
        try:
            return await client.request(
                method,
                path,
                params=params,
                json=json,
                headers={**self._peers.headers(acting_for), **(headers or {})},
                timeout=timeout_seconds,
            )
        except httpx.HTTPError as error:
            raise UnavailableError(
                f"the module {self.name} does not answer", retry_after_seconds=1, module=self.name
            ) from error

    async def get(self, path: str, **options: Any) -> httpx.Response:
        """Make a GET call; see ``request``."""
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Any) -> httpx.Response:
        """Make a POST call; see ``request``."""
        return await self.request("POST", path, **options)


class Peers:
    """Finds the other modules of this host or cluster.

    In this process (``add_local``), else where ``PEERS`` declares them, else in the manager's file.

    Args:
        tokens: make the identity that each call carries.
    """

    def __init__(self, *, settings: PlatformSettings, tokens: ServiceTokens) -> None:
        self._tokens = tokens
        self._file = settings.run_directory / PEERS_FILE
        self._declared = _parse_declared(settings.peers)
        self._local: dict[str, Any] = {}
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._addresses: dict[str, list[str]] = {}
        self._stamp = 0
        self._turn = 0

    def client(self, name: str) -> PeerClient:
        """Return the client of another module; whether it is there shows at the call."""
        return PeerClient(name, self)

    def add_local(self, names: tuple[str, ...], app: Any) -> None:
        """Reach these modules in-process through the ASGI app."""
        for name in names:
            self._local[name] = app

    def http(self, name: str) -> httpx.AsyncClient:
        """Return the connection pool to one instance of a module, in turn.

        Raises:
            UnavailableError: nobody knows where that module is.
        """
        address = self._address_of(name)
        client = self._clients.get(address)
        if client is None:
            client = self._clients[address] = self._open(name, address)
        return client

    def headers(self, acting_for: str) -> dict[str, str]:
        """Return the identity and tracing headers of one call."""
        headers = {"Authorization": f"Bearer {self._tokens.token(acting_for=acting_for)}"}
        request_id = context.request_id.get()
        if request_id is not None:
            headers["X-Request-ID"] = request_id
        traceparent = context.traceparent.get()
        if traceparent is not None:
            headers["traceparent"] = traceparent
        return headers

    def names(self) -> tuple[str, ...]:
        """Return the modules whose place is known."""
        return tuple(sorted({*self._local, *self._declared, *self._from_file()}))

    async def close(self) -> None:
        """Close every pool."""
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    def _address_of(self, name: str) -> str:
        if name in self._local:
            return f"local:{name}"
        addresses = self._declared.get(name) or self._from_file().get(name)
        if not addresses:
            raise UnavailableError(
                f"the module {name} is not running here", retry_after_seconds=5, module=name
            )
        self._turn += 1
        return addresses[self._turn % len(addresses)]

    def _open(self, name: str, address: str) -> httpx.AsyncClient:
        if address.startswith("http"):
            return httpx.AsyncClient(
                base_url=address,
                cookies=_no_cookies(),
                timeout=TIMEOUT_SECONDS,
                trust_env=False,
            )
        transport: httpx.AsyncBaseTransport
        if name in self._local:
            transport = httpx.ASGITransport(app=self._local[name])
        else:
            # A socket speaks no TLS, and making a context for it blocks the loop for 50 ms.
            transport = httpx.AsyncHTTPTransport(uds=address, verify=False)
        return httpx.AsyncClient(
            transport=transport,
            base_url="http://peer",
            cookies=_no_cookies(),
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
        )

    def _from_file(self) -> dict[str, list[str]]:
        try:
            stamp = self._file.stat().st_mtime_ns
        except FileNotFoundError:
            return {}
        if stamp != self._stamp:
            self._addresses = read_peers(self._file)
            self._stamp = stamp
        return self._addresses


def _no_cookies() -> CookieJar:
    """Return a jar that keeps nothing: a pool serves all users, a cookie belongs to one."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


def read_peers(path: Path) -> dict[str, list[str]]:
    """Read the manager's file of socket paths by module; empty where there is none."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return {str(name): [str(each) for each in addresses] for name, addresses in found.items()}


def _parse_declared(text: str) -> dict[str, list[str]]:
    declared: dict[str, list[str]] = {}
    for each in filter(None, (part.strip() for part in text.split(","))):
        name, _, address = each.partition("=")
        declared.setdefault(name.strip(), []).append(address.strip())
    return declared
