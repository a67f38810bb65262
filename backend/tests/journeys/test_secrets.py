"""Secrets live nowhere but with their owners: all that both fleets keep is searched for them."""

import io
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from trading_api.testkit.fleet import Fleet

pytestmark = [pytest.mark.fleet, pytest.mark.xdist_group("fleet")]


async def contents_of(fleet: Fleet) -> AsyncIterator[tuple[str, str, bytes]]:
    """Yield kind, name and content of everything that the fleet keeps: tables, bus, logs, mails.

    A backup holds what the tables hold.
    """
    folders = [fleet.local]
    if fleet.environ:
        folders.append(Path(fleet.environ["REDIS_URL"].removeprefix("unix://")).parent)
        async for name, content in tables_of(fleet.environ["DATABASE_URL"]):
            yield "table", name, content
    for folder in folders:
        for file in folder.rglob("*"):
            if file.is_file():
                kinds = {".db": "table", ".db-wal": "table", ".aof": "bus", ".log": "log"}
                yield kinds.get(file.suffix, "else"), str(file), file.read_bytes()


async def tables_of(url: str) -> AsyncIterator[tuple[str, bytes]]:
    """Yield name and content of every table of a PostgreSQL database."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        for row in await connection.fetch(
            "SELECT schemaname, tablename FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ):
            content = io.BytesIO()
            await connection.copy_from_table(
                row["tablename"], schema_name=row["schemaname"], output=content, format="binary"
            )
            yield f"{row['schemaname']}.{row['tablename']}", content.getvalue()
    finally:
        await connection.close()


async def test_secrets_when_used_in_every_way_then_nowhere_at_rest_or_in_logs(fleet: Fleet) -> None:
    canary = "canary pass phrase 7f3b9c"
    email = f"canary-{uuid4().hex[:12]}@example.com"
    async with fleet.client() as client:
        await client.post(
            "/api/v1/auth/register", json={"email": email, "password": canary, "full_name": "C"}
        )
        login = await client.post("/api/v1/auth/login", json={"email": email, "password": canary})
        found = login.json()
        client.cookies.clear()
        client.headers["Authorization"] = f"Bearer {found['access_token']}"
        wanted = {"name": "bot", "scopes": ["broker:read", "broker:trade"]}
        refused = await client.post("/api/v1/auth/api-keys", json=wanted)
        assert refused.json()["code"] == "auth.password.wrong", refused.text
        wanted["password"] = canary
        key = (await client.post("/api/v1/auth/api-keys", json=wanted)).json()["key"]
        share = (
            await client.post(
                "/api/v1/auth/share-tokens", json={"name": "guest", "account_id": "acc_1"}
            )
        ).json()["token"]
        refresh = found["refresh_token"]
        secrets = [canary, refresh, found["access_token"].rsplit(".", 1)[1], key, share]
        for secret in secrets:
            # In every place where a confused client could put it.
            await client.get("/api/v1/broker/accounts", params={"api_key": secret})
            await client.get("/api/v1/broker/accounts", headers={"X-API-Key": secret})
            await client.get(f"/api/v1/broker/orders/{secret.replace(' ', '_')[:60]}")
            await client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {secret}"})
            await client.post("/api/v1/auth/login", json={"email": email, "password": secret + "x"})
            await client.post("/api/v1/auth/login", json={"email": email, secret: secret})
            await client.post("/api/v1/auth/introspect", data={"token": secret})
        answer = await client.post("/api/v1/auth/refresh-token", json={"refresh_token": refresh})
        assert answer.status_code == 200
        secrets.append(answer.json()["refresh_token"])
        for secret in (key, share, refresh):
            await client.post("/api/v1/auth/revoke", data={"token": secret})
    hits, seen = [], set()
    async for kind, name, content in contents_of(fleet):
        if email.encode() in content:
            seen.add(kind)
        for secret in secrets:
            # A path that a client made up of a secret is logged as any path is.
            whole = secret.encode()
            if whole in content.replace(b"/orders/" + whole[:60], b""):
                hits.append(f"{secret[:12]}… in {kind} {name}")
    # What is no secret is found, so that a search of the wrong places fails.
    assert seen >= {"table", "bus"}, seen
    assert hits == []
