"""Makes one transfer and says how it ended; killed at `TRADING_CRASH_AT` where that is reached.

`transfer_worker.py to_account|to_wallet`, both modules in this process, on `*_DATABASE_URL`.
"""

import asyncio
import os
import sys

import httpx

from trading_api.app import create_app
from trading_api.kernel.clock import SystemClock
from trading_api.runtime import registry
from trading_api.runtime.settings import PlatformSettings, load_settings
from trading_api.testkit.http import access_token


async def main(direction: str) -> None:
    environ = dict(os.environ)
    settings = load_settings(PlatformSettings, environ)
    known = registry.discover()
    app = create_app(
        {name: known[name] for name in ("broker", "wallet")}, settings=settings, environ=environ
    )
    token = access_token(
        settings, SystemClock(), scopes=["wallet:read", "wallet:trade", "broker:read"]
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app),
        base_url="http://tests/api/v1",
        headers={"Authorization": f"Bearer {token}"},
    ) as client:
        account_id = (await client.get("/broker/accounts")).json()[0]["id"]
        await client.post(
            "/wallet/deposit", json={"amount": "100"}, headers={"Idempotency-Key": "once"}
        )
        ends = ("wallet", account_id) if direction == "to_account" else (account_id, "wallet")
        answer = await client.post(
            "/wallet/transfers", json={"from": ends[0], "to": ends[1], "amount": "10"}
        )
    sys.stdout.write(f"{answer.status_code} {answer.json().get('state')}\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
