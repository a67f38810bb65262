"""What the routes share."""

from dataclasses import dataclass

from fastapi import Depends
from starlette.responses import Response

from trading_api.kernel.clock import Clock
from trading_api.modules.auth.api.cookies import Cookies
from trading_api.modules.auth.service import AuthServices
from trading_api.runtime.identity import Identity


@dataclass(frozen=True, slots=True)
class Parts:
    """What every group of routes is built with."""

    services: AuthServices
    identity: Identity
    cookies: Cookies
    clock: Clock


def _no_store(response: Response) -> None:
    response.headers["Cache-Control"] = "no-store"


PRIVATE = [Depends(_no_store)]
"""Dependencies of every route whose answer no cache may keep."""
