"""A logout is in force in another process within seconds, whatever the bus does."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from trading_api.app import ProcessApp, create_app
from trading_api.kernel.errors import TokenInvalidError
from trading_api.runtime.database.migrations import upgrade
from trading_api.runtime.registry import discover
from trading_api.runtime.settings import PlatformSettings, load_settings
from trading_api.testkit.bus import BusServer

IN_FORCE_SECONDS = 5.0
LOGIN = {"email": "ann@example.com", "password": "correct horse battery"}


@contextlib.asynccontextmanager
async def process(module: str, environ: dict[str, str]) -> AsyncIterator[ProcessApp]:
    """Run one module's process, its background work included."""
    settings = load_settings(PlatformSettings, environ)
    app = create_app(
        {module: discover()[module]}, settings=settings, environ=environ, process_name=module
    )
    for hosted in app.hosted.values():
        if hosted.migrations is not None:
            await upgrade(hosted.context.require_database(), hosted.migrations)
    await app.start()
    try:
        yield app
    finally:
        await app.stop()


async def is_refused(app: ProcessApp, token: str) -> bool:
    try:
        await app.identity.verify(token)
    except TokenInvalidError:
        return True
    return False


@pytest.mark.parametrize("is_bus_there", [True, False])
async def test_logout_then_refused_in_another_process_within_five_seconds(
    environ: dict[str, str], bus_server: BusServer, tmp_path: Path, is_bus_there: bool
) -> None:
    environ |= {"REDIS_URL": bus_server.url if is_bus_there else f"unix://{tmp_path}/nobody.sock"}
    async with process("auth", environ) as auth, process("gateway", environ) as other:
        other.peers.add_local(("auth",), auth)
        transport = httpx.ASGITransport(app=auth)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://trading.test", timeout=10
        ) as client:
            await client.post("/api/v1/auth/register", json=LOGIN)
            token = (await client.post("/api/v1/auth/login", json=LOGIN)).json()["access_token"]
            assert not await is_refused(other, token)
            client.cookies.clear()
            answer = await client.post(
                "/api/v1/auth/logout", headers={"Authorization": f"Bearer {token}"}
            )
            assert answer.status_code == 200
        assert await is_refused(auth, token)
        began = time.monotonic()
        while not await is_refused(other, token):
            assert time.monotonic() - began < IN_FORCE_SECONDS
            await asyncio.sleep(0.02)
