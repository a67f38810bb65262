"""What the routes share."""

from dataclasses import dataclass

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from trading_api.kernel.clock import Clock
from trading_api.modules.auth import errors
from trading_api.modules.auth.api.cookies import Cookies, is_browser
from trading_api.modules.auth.schemas import TokenView
from trading_api.modules.auth.service import AuthServices, SignIn
from trading_api.runtime.http.cursors import Cursors
from trading_api.runtime.identity import Identity


@dataclass(frozen=True, slots=True)
class Parts:
    """What every group of routes is built with."""

    services: AuthServices
    identity: Identity
    cookies: Cookies
    clock: Clock
    user_cursors: Cursors
    audit_cursors: Cursors

    def hand_out(self, request: Request, response: Response, found: SignIn) -> TokenView:
        """Show a sign-in, and give browsers its tokens as cookies."""
        session_seconds = int((found.session.expires_at - self.clock.now()).total_seconds())
        self.cookies.set_tokens(
            response,
            access_token=found.access_token,
            access_seconds=found.expires_in_seconds,
            refresh_token=found.refresh_token,
            refresh_seconds=session_seconds,
        )
        return TokenView.of(found, with_refresh_token=not is_browser(request))


def _no_store(response: Response) -> None:
    response.headers["Cache-Control"] = "no-store"


PRIVATE = [Depends(_no_store)]
"""Dependencies of every route whose answer no cache may keep."""

PROOF_ERRORS = (
    errors.PasswordWrongError,
    errors.SessionNotFreshError,
    errors.UserDisabledError,
    errors.LoginThrottledError,
    errors.PasswordPoolBusyError,
)
"""What routes answer that want the password once more."""
