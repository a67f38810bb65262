"""A real OpenID provider as a process, and a man in the middle who alters its answers."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from joserfc import jws
from joserfc.jwk import RSAKey

from trading_api.testkit import guardian
from trading_api.testkit.fleet import free_port

USERS = (
    {
        "sub": "ann",
        "email": "ann@example.com",
        "email_verified": True,
        "name": "Ann Ternal",
        "picture": "https://pictures.example.com/ann.png",
    },
    {"sub": "bob", "email": "bob@example.com", "email_verified": False, "name": "Bob"},
    {"sub": "noemail"},
)


class Provider:
    """The command `oidc-provider-mock`, until `stop`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        program = str(Path(sys.executable).with_name("oidc-provider-mock"))
        users = [word for each in USERS for word in ("--user-claims", json.dumps(each))]
        self._process = subprocess.Popen(
            [
                *(sys.executable, guardian.__file__, str(os.getpid()), program),
                *("--port", str(self.port), "--require-nonce", "true", *users),
            ],
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + 30
        while True:
            try:
                if httpx.get(f"{self.url}/jwks", timeout=5, trust_env=False).status_code == 200:
                    return
            except httpx.HTTPError:
                assert self._process.poll() is None, "the provider ended"
                assert time.monotonic() < deadline, "the provider did not start"
                time.sleep(0.05)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(10)


async def give_consent(url: str, *, subject: str) -> str:
    """Sign in at the provider's page as a person would; return where the browser is sent."""
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        answer = await client.post(url, data={"sub": subject})
    assert answer.status_code in (302, 303), answer.text[:500]
    return str(answer.headers["location"])


class ManInTheMiddle(httpx.AsyncBaseTransport):
    """Passes requests on to the provider and alters what it answers.

    Attributes:
        alter_token: gets header, claims and the provider's own token; returns the token to send.
        alter_metadata: changes the discovery document in place.
        exchanged: the forms that our side sent to the token endpoint.
        extra_keys: what the provider's key set holds besides.
    """

    def __init__(self) -> None:
        self.alter_token: Callable[[dict[str, Any], dict[str, Any], str], str] | None = None
        self.alter_metadata: Callable[[dict[str, Any]], None] | None = None
        self.exchanged: list[dict[str, str]] = []
        self.key_requests = 0
        self.extra_keys: list[dict[str, Any]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        content = b"".join([part async for part in request.stream])  # type: ignore[union-attr]
        if request.method == "POST":
            form = {name: values[0] for name, values in parse_qs(content.decode()).items()}
            self.exchanged.append(form)
        passed = httpx.Request(
            request.method, request.url, headers=request.headers, content=content
        )
        async with httpx.AsyncHTTPTransport() as inner:
            answer = await inner.handle_async_request(passed)
            body = json.loads(await answer.aread() or b"{}")
        if path == "/jwks":
            self.key_requests += 1
            body["keys"] += self.extra_keys
        if path.endswith("openid-configuration") and self.alter_metadata is not None:
            self.alter_metadata(body)
        if "id_token" in body and self.alter_token is not None:
            token = body["id_token"]
            found = jws.extract_compact(token.encode())
            claims = json.loads(found.payload)
            body["id_token"] = self.alter_token(dict(found.headers()), claims, token)
        return httpx.Response(answer.status_code, json=body)


def code_of(location: str) -> dict[str, str]:
    """Return the parameters of the provider's answer."""
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


def strangers_key(kid: str = "stranger") -> RSAKey:
    """Return a key that isn't the provider's."""
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig", "alg": "RS256"})


UNRESERVED = re.compile(r"[A-Za-z0-9._~-]{43,128}")
"""What a code verifier is made of (RFC 7636, 4.1)."""
