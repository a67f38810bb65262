"""What the TradingView dialect asks of other modules: sign-ins of auth, bars of datafeed."""

from typing import Any

import httpx
import orjson

from trading_api.kernel.errors import (
    InvalidInputError,
    RateLimitedError,
    TokenInvalidError,
    UnavailableError,
)
from trading_api.runtime.peers import PeerClient

_TIMEOUT_SECONDS = 5.0


class AuthSignIn:
    """Signs users in at auth, as its own routes do."""

    def __init__(self, client: PeerClient) -> None:
        self._client = client

    async def sign_in(self, *, login: str, password: str) -> tuple[str, int]:
        """Return a new access token and for how many seconds it is good.

        Raises:
            TokenInvalidError: auth doesn't know them.
            RateLimitedError: too many attempts.
            InvalidInputError: no login or password at all.
            UnavailableError: auth can't be asked.
        """
        response = await self._client.post(
            "/api/v1/auth/login",
            json={"email": login, "password": password},
            timeout_seconds=_TIMEOUT_SECONDS,
        )
        _ensure_ok(response)
        body = response.json()
        return str(body["access_token"]), int(body["expires_in"])

    async def sign_out(self, *, credential: str) -> None:
        """End the sign-in behind an ``Authorization`` header.

        Raises:
            UnavailableError: auth can't be asked.
        """
        response = await self._client.post(
            "/api/v1/auth/logout",
            headers={"Authorization": credential},
            timeout_seconds=_TIMEOUT_SECONDS,
        )
        _ensure_ok(response)


class DatafeedHistory:
    """Bars of datafeed, in the shape of UDF that this dialect shares."""

    def __init__(self, client: PeerClient) -> None:
        self._client = client

    async def read(
        self, *, symbol: str, resolution: str, from_: int, to: int, credential: str | None
    ) -> dict[str, list[Any]]:
        """Return the columns ``t o h l c v`` of the bars in [from, to]; empty where there are none.

        Args:
            from_: seconds since 1970 UTC.
            to: seconds since 1970 UTC; a bar that begins then is in it.
            credential: the caller's ``Authorization``; None asks in the module's own name.

        Raises:
            InvalidInputError: an unknown symbol or resolution.
            UnavailableError: datafeed can't be asked.
        """
        response = await self._client.get(
            "/api/v1/datafeed/udf/history",
            params={"symbol": symbol, "resolution": resolution, "from": from_, "to": to + 1},
            headers={} if credential is None else {"Authorization": credential},
            timeout_seconds=_TIMEOUT_SECONDS,
        )
        _ensure_ok(response)
        body = orjson.loads(response.content)
        return {name: body.get(name) or [] for name in ("t", "o", "h", "l", "c", "v")}


def _ensure_ok(response: httpx.Response) -> None:
    if response.is_success:
        return
    try:
        body = response.json()
        message = str(body.get("detail") or body.get("errmsg") or "")
    except ValueError:
        message = ""
    match response.status_code:
        case 401 | 403:
            raise TokenInvalidError(message or "login or password is wrong")
        case 429:
            raise RateLimitedError(message or "too many attempts", retry_after_seconds=5)
        case status if status < 500:
            raise InvalidInputError(message or "the request can't be answered")
        case _:
            raise UnavailableError("a part of the platform doesn't answer", retry_after_seconds=1)
