"""Cookies of a sign-in, and what a request tells about its device."""

import secrets
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from trading_api.kernel.errors import CarriersDisagreeError
from trading_api.modules.auth.domain import Device
from trading_api.modules.auth.domain.audit import Caller
from trading_api.runtime.identity import Principal

REFRESH_PATH = "/api/v1/auth"
_DEVICE_SECONDS = 400 * 24 * 3600  # the longest that browsers keep a cookie
_DEVICE_LENGTH_MAX = 64


class Cookies:
    """Names, attributes and reading of auth's cookies.

    Args:
        access_name: as ``runtime.identity`` reads it.
        is_secure: Secure cookies with prefixed names; off only without TLS.
    """

    def __init__(self, *, access_name: str, is_secure: bool) -> None:
        self._is_secure = is_secure
        prefix = "__Secure-" if is_secure else ""
        self.access_name = access_name
        self.refresh_name = f"{prefix}refresh_token"
        self.device_name = f"{prefix}device"
        self.journey_name = "__Host-journey" if is_secure else "journey"

    def set_tokens(
        self,
        response: Response,
        *,
        access_token: str,
        access_seconds: int,
        refresh_token: str,
        refresh_seconds: int,
    ) -> None:
        """Give the browser both tokens."""
        self._set(response, self.access_name, access_token, access_seconds, "/")
        self._set(response, self.refresh_name, refresh_token, refresh_seconds, REFRESH_PATH)

    def clear_tokens(self, response: Response) -> None:
        """Take both tokens from the browser."""
        self._set(response, self.access_name, "", 0, "/")
        self._set(response, self.refresh_name, "", 0, REFRESH_PATH)

    def set_journey(self, response: Response, binding: str, seconds: int) -> None:
        """Bind a browser to a sign-in by a provider.

        Lax, since the provider's page sends the browser back to us.
        """
        self._set(response, self.journey_name, binding, seconds, "/", same_site="lax")

    def clear_journey(self, response: Response) -> None:
        """Forget the journey."""
        self.set_journey(response, "", 0)

    def journey(self, request: Request) -> str | None:
        """Return what ``set_journey`` gave the browser.

        Raises:
            CarriersDisagreeError: it was sent twice, so one was planted.
        """
        return self._get(request, self.journey_name)

    def refresh_token(self, request: Request) -> str | None:
        """Return the refresh cookie.

        Raises:
            CarriersDisagreeError: it was sent twice, so one was planted.
        """
        return self._get(request, self.refresh_name)

    def device_of(self, request: Request, response: Response | None = None) -> Device:
        """Describe the caller's device.

        Args:
            response: where a browser without a device cookie gets one; None gives none.
        """
        cookie = ""
        if is_browser(request):
            cookie = (self._get(request, self.device_name) or "")[:_DEVICE_LENGTH_MAX]
            if not cookie and response is not None:
                cookie = secrets.token_urlsafe(16)
                # Lax, so that it comes along when a provider's page sends the browser back.
                self._set(
                    response,
                    self.device_name,
                    cookie,
                    _DEVICE_SECONDS,
                    REFRESH_PATH,
                    same_site="lax",
                )
        return Device.of(
            address=address_of(request),
            user_agent=request.headers.get("user-agent", ""),
            hints=tuple(
                request.headers.get(name, "")[:100]
                for name in ("sec-ch-ua-platform", "sec-ch-ua-mobile")
            ),
            cookie=cookie,
        )

    def _get(self, request: Request, name: str) -> str | None:
        values = [
            part.partition("=")[2].strip()
            for header in request.headers.getlist("cookie")
            for part in header.split(";")
            if part.partition("=")[0].strip() == name
        ]
        if len(values) > 1:
            raise CarriersDisagreeError(f"the cookie {name} was sent twice")
        return values[0] if values and values[0] else None

    def _set(
        self,
        response: Response,
        name: str,
        value: str,
        seconds: int,
        path: str,
        *,
        same_site: Literal["strict", "lax"] = "strict",
    ) -> None:
        response.set_cookie(
            name,
            value,
            max_age=seconds,
            path=path,
            secure=self._is_secure,
            httponly=True,
            samesite=same_site,
        )


def is_browser(request: Request) -> bool:
    """Tell whether fetch metadata (or an Origin, over plain HTTP) betrays a browser."""
    headers = request.headers
    return "origin" in headers or any(name.startswith("sec-fetch-") for name in headers)


def address_of(request: Request) -> str:
    """Return the client's address, "" where the transport has none."""
    return request.client.host if request.client is not None else ""


def caller_of(request: Request, principal: Principal | None) -> Caller:
    """Return who asks, as the audit remembers it."""
    if principal is None:
        return Caller(address_of(request))
    return Caller(address_of(request), principal.user_id, principal.session_id)
