"""A local stand-in for one real exchange: the parts of Binance's spot REST and streams we use."""

import asyncio
import json
from typing import Any

from aiohttp import WSMsgType, web

SYMBOL_INFO = {
    "symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "baseAssetPrecision": 8,
    "quoteAsset": "USDT", "quotePrecision": 8, "quoteAssetPrecision": 8,
    "orderTypes": ["LIMIT", "MARKET"], "isSpotTradingAllowed": True,
    "isMarginTradingAllowed": False, "permissions": ["SPOT"], "permissionSets": [["SPOT"]],
    "filters": [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01000000", "maxPrice": "1000000.00000000",
         "tickSize": "0.01000000"},
        {"filterType": "LOT_SIZE", "minQty": "0.00001000", "maxQty": "9000.00000000",
         "stepSize": "0.00001000"},
    ],
}  # fmt: skip


class Exchange:
    """Serves one market on a free port of the loopback.

    Attributes:
        klines: rows of (start ms, open, high, low, close, volume), text as the exchange sends it.
        url: where it is reached.
        is_failing: every REST call is answered with 503.
        subscribed: set once somebody follows the trades.
    """

    def __init__(self, klines: list[list[Any]]) -> None:
        self.klines = klines
        self.url = ""
        self.is_failing = False
        self.subscribed = asyncio.Event()
        self._sockets: list[web.WebSocketResponse] = []
        self._number = 0
        app = web.Application()
        app.router.add_get("/api/v3/exchangeInfo", self._info)
        app.router.add_get("/api/v3/klines", self._klines)
        app.router.add_get("/ws{rest:.*}", self._stream)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def start(self) -> None:
        """Listen."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        """Hang up and stop listening."""
        await self.hang_up()
        await self._runner.cleanup()

    async def hang_up(self) -> None:
        """Close every stream."""
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            await each.close()

    async def trade(self, price: str, quantity: str, at_ms: int) -> None:
        """Tell everybody who follows of a trade."""
        self._number += 1
        message = {
            "e": "trade", "E": at_ms, "s": "BTCUSDT", "t": self._number, "p": price,
            "q": quantity, "T": at_ms, "m": False, "M": True,
        }  # fmt: skip
        for each in self._sockets:
            await each.send_str(json.dumps(message))

    async def _info(self, _: web.Request) -> web.Response:
        if self.is_failing:
            return web.json_response({"code": -1, "msg": "maintenance"}, status=503)
        return web.json_response(
            {"timezone": "UTC", "serverTime": 0, "rateLimits": [], "symbols": [SYMBOL_INFO]}
        )

    async def _klines(self, request: web.Request) -> web.Response:
        assert request.query["symbol"] == "BTCUSDT"
        assert request.query["interval"] == "1m"
        start, limit = int(request.query["startTime"]), int(request.query["limit"])
        rows = [row for row in self.klines if row[0] >= start][:limit]
        return web.json_response([[*row, row[0] + 59_999, "0", 1, "0", "0", "0"] for row in rows])

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            told = json.loads(message.data)
            await socket.send_str(json.dumps({"result": None, "id": told["id"]}))
            if "btcusdt@trade" in told.get("params", ()):
                self._sockets.append(socket)
                self.subscribed.set()
        return socket
