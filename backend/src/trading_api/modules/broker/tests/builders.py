"""Small builders that the broker's tests share, and a market that tests move."""

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from trading_api.kernel.values import currency
from trading_api.modules.broker.domain.instrument import Instrument, Policy, Quote, Terms
from trading_api.modules.broker.domain.order import (
    Order,
    OrderSide,
    OrderTicket,
    OrderType,
    TicketBrackets,
    TicketTrailing,
    TimeInForce,
)
from trading_api.modules.broker.ports import REFRESH_AGE
from trading_api.testkit.clocks import START

NOW = START
USD = currency("USD")
AAPL = "DEMO:AAPL"
EURUSD = "DEMO:EURUSD"
BUY, SELL = OrderSide.BUY, OrderSide.SELL

POLICY = Policy(
    leverage_by_kind={"stock": 5, "forex": 30, "crypto": 2},
    commission_ppm_by_kind={"stock": 100, "forex": 20, "crypto": 1000},
    slippage_cap_ppm=1000,
)


def an_instrument(symbol: str = AAPL, **changes: object) -> Instrument:
    stock = Instrument(
        symbol=symbol,
        description="Apple",
        kind="stock",
        base_currency=None,
        quote_currency="USD",
        price_scale=2,
        tick=1,
        quantity_scale=0,
        quantity_step=1,
        quantity_max=1_000_000,
        lot_size=1,
        multiplier=1,
        tradable=True,
        session="24x7",
        time_zone="America/New_York",
    )
    return replace(stock, **changes)  # type: ignore[arg-type]


INSTRUMENTS = {
    AAPL: an_instrument(),
    EURUSD: an_instrument(
        EURUSD, kind="forex", base_currency="EUR", price_scale=5, quantity_max=10_000_000
    ),
    "DEMO:BTCUSD": an_instrument(
        "DEMO:BTCUSD", kind="crypto", quantity_scale=8, quantity_max=100 * 10**8
    ),
    "HIST:AAPL": an_instrument("HIST:AAPL", tradable=False, price_scale=4),
}


def terms(symbol: str = AAPL) -> Terms:
    return POLICY.terms_of(INSTRUMENTS[symbol], USD)


def a_quote(
    bid: int = 19990,
    ask: int = 20000,
    *,
    sequence: int = 1,
    symbol: str = AAPL,
    at: datetime = NOW,
    price_scale: int = 2,
) -> Quote:
    return Quote(symbol, bid, ask, price_scale, sequence, at)


def a_ticket(
    quantity: str | int = 10,
    *,
    side: OrderSide = BUY,
    symbol: str = AAPL,
    limit: str | None = None,
    stop: str | None = None,
    time_in_force: TimeInForce = TimeInForce.GTC,
    expires_at: datetime | None = None,
    reduce_only: bool = False,
    post_only: bool = False,
    trail: TicketTrailing | None = None,
    take_profit: str | None = None,
    stop_loss: str | None = None,
    trailing_stop: TicketTrailing | None = None,
    position_id: str | None = None,
) -> OrderTicket:
    kinds = {
        (False, False): OrderType.MARKET,
        (True, False): OrderType.LIMIT,
        (False, True): OrderType.STOP_MARKET,
        (True, True): OrderType.STOP_LIMIT,
    }
    return OrderTicket(
        symbol=symbol,
        side=side,
        type=kinds[limit is not None, stop is not None or trail is not None],
        quantity=Decimal(quantity),
        limit_price=None if limit is None else Decimal(limit),
        trigger_price=None if stop is None else Decimal(stop),
        time_in_force=time_in_force,
        expires_at=expires_at,
        reduce_only=reduce_only,
        post_only=post_only,
        trailing=trail,
        brackets=brackets_ticket(take_profit, stop_loss, trailing_stop),
        position_id=position_id,
    )


def brackets_ticket(
    take_profit: str | None = None,
    stop_loss: str | None = None,
    trailing_stop: TicketTrailing | None = None,
) -> TicketBrackets:
    return TicketBrackets(
        None if take_profit is None else Decimal(take_profit),
        None if stop_loss is None else Decimal(stop_loss),
        trailing_stop,
    )


def pips(count: int) -> TicketTrailing:
    return TicketTrailing(pips=Decimal(count))


def an_order(
    quantity: int = 10,
    *,
    side: OrderSide = BUY,
    limit_price: int | None = None,
    trigger_price: int | None = None,
    reserve_price: int = 20000,
    order_id: str = "ord_1",
    reduce_only: bool = False,
) -> Order:
    ticket = a_ticket(
        side=side,
        limit=None if limit_price is None else "1",
        stop=None if trigger_price is None else "1",
    )
    return Order(
        order_id=order_id,
        account_id="acc_1",
        client_order_id=None,
        symbol=AAPL,
        side=side,
        type=ticket.type,
        time_in_force=TimeInForce.GTC,
        reduce_only=reduce_only,
        price_scale=2,
        quantity_scale=0,
        quantity=quantity,
        limit_price=limit_price,
        trigger_price=trigger_price,
        expires_at=None,
        reserve_price=reserve_price,
        quote_sequence=1,
        accepted_at=NOW,
        updated_at=NOW,
        position_id=AAPL,
    )


class FakeMarket:
    """Quotes and instruments that a test sets; plays both ports of the broker."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self.quotes: dict[str, Quote] = {}
        self.refreshed: list[set[str]] = []
        self.is_pushed = True
        self.is_live = True
        self._callbacks: list[Callable[[Quote], None]] = []

    def quote(self, bid: str, ask: str, symbol: str = AAPL) -> Quote:
        """Set the newest quote as of now, tell the listeners, and return it."""
        scale = INSTRUMENTS[symbol].price_scale
        before = self.quotes.get(symbol)
        made = Quote(
            symbol,
            int(Decimal(bid).scaleb(scale)),
            int(Decimal(ask).scaleb(scale)),
            scale,
            (before.sequence if before else 0) + 1,
            self._now(),
        )
        self.quotes[symbol] = made
        for callback in self._callbacks:
            callback(made)
        return made

    def find(self, symbol: str) -> Quote | None:
        return self.quotes.get(symbol)

    async def refresh(
        self, symbols: Collection[str], *, older_than: timedelta = REFRESH_AGE
    ) -> None:
        self.refreshed.append(set(symbols))

    def listen(self, callback: Callable[[Quote], None]) -> None:
        self._callbacks.append(callback)


class FakeInstruments:
    """The instruments of these tests."""

    async def find(self, symbol: str) -> Instrument | None:
        return INSTRUMENTS.get(symbol)

    async def list_tradable(self) -> list[Instrument]:
        return [each for _, each in sorted(INSTRUMENTS.items()) if each.tradable]
