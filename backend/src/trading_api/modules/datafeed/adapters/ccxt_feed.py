"""Crypto exchanges through ccxt: REST for markets and history, WebSocket for trades and quotes.

ccxt is large; it is loaded when this provider is configured, and in no other process.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from decimal import Decimal
from typing import Any, ClassVar

from trading_api.kernel.clock import Clock, to_us
from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.domain.instrument import AssetClass, Exchange, Instrument
from trading_api.modules.datafeed.domain.tick import ProviderTick
from trading_api.modules.datafeed.ports import MarketDataProvider
from trading_api.runtime.tasks import run_together

CALL_SECONDS = 20.0
QUIET_SECONDS = 60.0
"""A stream that brings nothing for so long is made anew."""

HISTORY_LIMIT = 1_000
_VOLUME_STEP_MIN = Decimal("0.00000001")


class CcxtProvider(MarketDataProvider):
    """Markets of one or more exchanges.

    Args:
        markets: such as ``binance:BTC/USDT``.
        base_url: where every exchange is reached instead, for tests and proxies; "" as usual.
    """

    name: ClassVar[str] = "ccxt"

    def __init__(self, *, markets: Sequence[str], base_url: str, clock: Clock) -> None:
        self._markets = [tuple(each.partition(":")[::2]) for each in markets]
        self._base_url = base_url.rstrip("/")
        self._clock = clock
        self._exchanges: dict[str, Any] = {}
        self._sources: dict[str, tuple[str, str]] = {}

    async def instruments(self) -> Sequence[Instrument]:
        """Return the configured markets with the exchange's own decimals and steps.

        Raises:
            LookupError: no such exchange, or no such market there.
        """
        found: list[Instrument] = []
        for exchange_id, symbol in self._markets:
            exchange = self._exchange(exchange_id)
            async with asyncio.timeout(CALL_SECONDS):
                await exchange.load_markets()
            market = exchange.markets.get(symbol)
            if market is None:
                raise LookupError(f"{exchange_id} has no market {symbol!r}")
            instrument = _instrument(exchange, market)
            self._sources[instrument.symbol] = (exchange_id, symbol)
            found.append(instrument)
        return found

    async def backfill(
        self, instrument: Instrument, *, from_time: int, to_time: int
    ) -> AsyncIterator[Columns]:
        """Yield the exchange's own minutes, a thousand at a time."""
        exchange_id, symbol = self._sources[instrument.symbol]
        exchange = self._exchange(exchange_id)
        prices = Decimal(10) ** instrument.price_decimals
        volumes = Decimal(10) ** instrument.volume_decimals
        while from_time < to_time:
            async with asyncio.timeout(CALL_SECONDS):
                rows = await exchange.fetch_ohlcv(
                    symbol, "1m", since=from_time * 1_000, limit=HISTORY_LIMIT
                )
            rows = [row for row in rows if from_time <= row[0] // 1_000 < to_time]
            if not rows:
                return
            yield Columns.of_rows(
                [
                    (
                        int(row[0]) // 1_000,
                        *(round(Decimal(str(price)) * prices) for price in row[1:5]),
                        int(Decimal(str(row[5])) * volumes),
                    )
                    for row in rows
                ]
            )
            from_time = int(rows[-1][0]) // 1_000 + 60

    async def stream(
        self, instruments: Sequence[Instrument], tell: Callable[[ProviderTick], None]
    ) -> None:
        """Tell trades as they come, of each market on its own.

        Raises:
            TimeoutError: a market brought nothing for a minute.
        """
        await run_together(*(self._watch(each, tell) for each in instruments))

    async def close(self) -> None:
        """Close every connection."""
        exchanges, self._exchanges = self._exchanges, {}
        for exchange in exchanges.values():
            await exchange.close()

    async def _watch(self, instrument: Instrument, tell: Callable[[ProviderTick], None]) -> None:
        exchange_id, symbol = self._sources[instrument.symbol]
        exchange = self._exchange(exchange_id)
        while True:
            async with asyncio.timeout(QUIET_SECONDS):
                trades = await exchange.watch_trades(symbol)
            for trade in trades:
                tell(self._tick(instrument, trade))

    def _tick(self, instrument: Instrument, trade: Any) -> ProviderTick:
        at_ms = trade["timestamp"]
        return ProviderTick(
            symbol=instrument.symbol,
            at_us=to_us(self._clock.now()) if at_ms is None else int(at_ms) * 1_000,
            price=_decimal(trade["price"]),
            size=_decimal(trade["amount"]),
        )

    def _exchange(self, exchange_id: str) -> Any:
        import ccxt.pro

        found = self._exchanges.get(exchange_id)
        if found is None:
            make = getattr(ccxt.pro, exchange_id, None)
            if make is None:
                raise LookupError(f"ccxt knows no exchange {exchange_id!r} with streams")
            found = make({"enableRateLimit": True, "options": {"fetchMarkets": ["spot"]}})
            found.newUpdates = True
            if self._base_url:
                found.urls["api"] = _redirected(found.urls["api"], self._base_url)
            self._exchanges[exchange_id] = found
        return found


def _redirected(urls: Any, base_url: str) -> Any:
    """Return an exchange's addresses with another host; streams are below ``/ws`` there."""
    if isinstance(urls, dict):
        return {name: _redirected(each, base_url) for name, each in urls.items()}
    scheme, _, rest = str(urls).partition("://")
    path = "/" + rest.partition("/")[2]
    if scheme in ("ws", "wss"):
        return base_url.replace("http", "ws", 1) + "/ws"
    return base_url + path


def _instrument(exchange: Any, market: Any) -> Instrument:
    exchange_id = exchange.id
    price_step = _step(exchange, market, "price")
    if price_step is None:
        raise LookupError(
            f"{exchange_id} has no fixed step for prices of {market['symbol']}: it counts digits"
        )
    amount_step = _step(exchange, market, "amount") or _VOLUME_STEP_MIN
    price_decimals = min(10, max(0, -_exponent(price_step)))
    volume_decimals = min(8, max(0, -_exponent(amount_step)))
    ticker = f"{exchange_id}.{market['base']}{market['quote']}".upper()[:20]
    return Instrument(
        exchange=Exchange.CRYPTO,
        ticker=ticker,
        description=f"{market['base']} / {market['quote']} on {exchange_id}, live",
        asset_class=AssetClass.CRYPTO,
        base_currency=None,
        quote_currency=market["quote"],
        price_decimals=price_decimals,
        volume_decimals=volume_decimals,
        spread_ticks=2,
        ask_is_last=False,
        quantity_step=1,
        quantity_max=10**12,
        lot_size=10**volume_decimals,
        session="24x7",
        time_zone="Etc/UTC",
        series_id=f"ccxt-{ticker.lower()}-1",
        tradable=False,
        quantity_decimals=volume_decimals,
        tick=max(1, int(price_step.scaleb(price_decimals))),
    )


def _step(exchange: Any, market: Any, what: str) -> Decimal | None:
    """Return the smallest step of a market's prices or amounts; None where digits are counted.

    Raises:
        LookupError: the exchange tells none.
    """
    from ccxt import DECIMAL_PLACES, SIGNIFICANT_DIGITS

    told = market["precision"].get(what)
    if told is None:
        raise LookupError(f"{exchange.id} tells no step for the {what} of {market['symbol']}")
    if exchange.precisionMode == SIGNIFICANT_DIGITS:
        return None
    if exchange.precisionMode == DECIMAL_PLACES:
        return Decimal(1).scaleb(-int(told))
    return Decimal(str(told))


def _exponent(step: Decimal) -> int:
    exponent = step.normalize().as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0


def _decimal(number: Any) -> Decimal:
    return Decimal("NaN") if number is None else Decimal(str(number))
