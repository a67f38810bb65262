"""A module's routes behind the real edge, asked with real tokens, without a server."""

from collections.abc import Collection
from typing import Any

import httpx
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import RSAKey

from trading_api.kernel.clock import Clock
from trading_api.kernel.ids import UuidV7Ids
from trading_api.runtime.http.dispatch import Dispatch
from trading_api.runtime.http.edge import Edge
from trading_api.runtime.http.routing import ModuleRouter, add_routes
from trading_api.runtime.identity import AUDIENCE, Identity
from trading_api.runtime.rates import RateLimiter
from trading_api.runtime.secrets import PRIVATE_KEY_FILE
from trading_api.runtime.settings import PlatformSettings

TOKEN_SECONDS = 900


def access_token(
    settings: PlatformSettings,
    clock: Clock,
    *,
    user_id: str = "usr_alice",
    scopes: Collection[str] = (),
    roles: Collection[str] = (),
) -> str:
    """Return an access token as auth signs it, good for 15 minutes of the clock."""
    key = RSAKey.import_key(
        (settings.secrets_directory / PRIVATE_KEY_FILE).read_bytes(), {"use": "sig", "alg": "RS256"}
    )
    key.ensure_kid()
    now = int(clock.now().timestamp())
    claims: dict[str, Any] = {
        "iss": settings.jwt_issuer,
        "aud": AUDIENCE,
        "sub": user_id,
        "sid": f"ses_of_{user_id}",
        "jti": f"jti_of_{user_id}",
        "scopes": sorted(scopes),
        "roles": sorted(roles),
        "iat": now,
        "nbf": now,
        "exp": now + TOKEN_SECONDS,
    }
    header = {"alg": "RS256", "typ": "at+jwt", "kid": str(key.kid)}
    return jwt.encode(header, claims, key, algorithms=["RS256"])


def client_of(
    router: ModuleRouter,
    *,
    prefix: str,
    settings: PlatformSettings,
    clock: Clock,
    token: str | None = None,
    limiter: RateLimiter | None = None,
    address: str = "127.0.0.1",
) -> httpx.AsyncClient:
    """Return a client of a router; paths are relative to the prefix, ``""`` for absolute ones.

    Args:
        token: sent as bearer; None asks as nobody.
        limiter: charges quotas; None for none.
        address: the client's, as the proxy tells it.
    """
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    hot = add_routes(app, router, prefix=prefix)
    edge = Edge(
        Dispatch({prefix or "/": app}, hot),
        identity=Identity(settings=settings, clock=clock),
        ids=UuidV7Ids(),
        error_shapes={prefix + inner: shape for inner, shape in router.error_shapes.items()},
        limiter=limiter,
    )
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=edge, client=(address, 40000)),
        base_url=f"http://tests{prefix}",
        headers={} if token is None else {"Authorization": f"Bearer {token}"},
        timeout=10,
    )
