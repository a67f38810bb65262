"""TradingView's Broker REST dialect: one contract test per route, its own errors, its forms."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from trading_api.kernel.errors import TokenInvalidError, TradingError, UnavailableError
from trading_api.modules.broker.api.tv import build_tv_router
from trading_api.modules.broker.api.v1 import build_router
from trading_api.modules.broker.errors import StreamsExceededError
from trading_api.modules.broker.schemas import tv
from trading_api.modules.broker.service.markets import MarketService
from trading_api.modules.broker.service.streaming import (
    STREAMS_MAX,
    Batches,
    Line,
    MarketStream,
)
from trading_api.modules.broker.tests.builders import (
    AAPL,
    EURUSD,
    POLICY,
    FakeInstruments,
    FakeMarket,
)
from trading_api.modules.broker.tests.conftest import Venue
from trading_api.runtime.http.cursors import Cursors
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.clocks import FixedClock
from trading_api.testkit.http import access_token, client_of

PREFIX = "/api/v1/broker"
BUY = {"instrument": AAPL, "side": "buy", "type": "market", "qty": "10"}

ClientOf = Callable[..., httpx.AsyncClient]


class FakeSignIn:
    """Knows one login; counts its tokens."""

    def __init__(self) -> None:
        self.count = 0
        self.ended: list[str] = []

    async def sign_in(self, *, login: str, password: str) -> tuple[str, int]:
        if (login, password) != ("alice", "right"):
            raise TokenInvalidError("login or password is wrong")
        self.count += 1
        return f"token{self.count}", 600

    async def sign_out(self, *, credential: str) -> None:
        self.ended.append(credential)


class FakeHistory:
    """One bar at the beginning of what is asked for, save for columns that a test sets."""

    def __init__(self, **columns: list[float]) -> None:
        self.columns: dict[str, list[Any]] = dict(columns)
        self.error: TradingError | None = None
        self.count = 0

    async def read(
        self, *, symbol: str, resolution: str, from_: int, to: int, credential: str | None
    ) -> dict[str, list[Any]]:
        self.count += 1
        if self.error is not None:
            raise self.error
        usual: dict[str, list[Any]] = {
            "t": [from_],
            "o": [1.0],
            "h": [2.0],
            "l": [0.5],
            "c": [1.5],
            "v": [10.0],
        }
        return {**usual, **self.columns}


@pytest.fixture
def sign_in() -> FakeSignIn:
    return FakeSignIn()


@pytest.fixture
def stream(market: FakeMarket, clock: FixedClock) -> MarketStream:
    return MarketStream(quotes=market, history=FakeHistory(), clock=clock, pace_seconds=0.01)


@pytest.fixture
async def make_client(
    venue: Venue,
    settings: PlatformSettings,
    clock: FixedClock,
    market: FakeMarket,
    sign_in: FakeSignIn,
    stream: MarketStream,
) -> AsyncIterator[ClientOf]:
    clients: list[httpx.AsyncClient] = []
    cursors = Cursors(b"secret", purpose="broker.lists")
    router = build_router(
        accounts=venue.accounts,
        orders=venue.orders,
        positions=venue.positions,
        reports=venue.reports,
        leverage=venue.leverage,
        resets=venue.resets,
        controls=venue.controls,
        performance=venue.performance,
        tv=build_tv_router(
            accounts=venue.accounts,
            orders=venue.orders,
            positions=venue.positions,
            reports=venue.reports,
            leverage=venue.leverage,
            markets=MarketService(
                database=venue.database,
                books=venue.books,
                accounts=venue.accounts,
                quotes=market,
                instruments=FakeInstruments(),
                history=FakeHistory(),
                policy=POLICY,
            ),
            stream=stream,
            sign_in=sign_in,
            clock=clock,
            cursors=cursors,
        ),
        clock=clock,
        cursors=cursors,
    )

    def make(user_id: str | None = "usr_trader") -> httpx.AsyncClient:
        scopes = ("broker:read", "broker:trade")
        token = user_id and access_token(settings, clock, user_id=user_id, scopes=scopes)
        made = client_of(router, prefix=PREFIX, settings=settings, clock=clock, token=token)
        made.base_url = httpx.URL(f"{str(made.base_url).rstrip('/')}/tv")
        clients.append(made)
        return made

    yield make
    for each in clients:
        await each.aclose()


@pytest.fixture
def client(make_client: ClientOf) -> httpx.AsyncClient:
    return make_client()


@pytest.fixture
async def account(client: httpx.AsyncClient) -> str:
    found = await client.get("/accounts?locale=de_DE")
    (only,) = shown(found, tv.Answer[list[tv.TvAccount]])["d"]
    assert (only["type"], only["currency"], only["currencySign"]) == ("demo", "USD", "$")
    assert only["config"]["supportDOM"] is True
    return f"/accounts/{only['id']}"


def shown(answer: httpx.Response, model: type[BaseModel]) -> Any:
    """Return the body of an answer that has the promised shape, field by field."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    model.model_validate(body)
    return body


def refused(answer: httpx.Response, status: int, code: str) -> str:
    body = answer.json()
    tv.ErrorAnswer.model_validate(body)
    assert (answer.status_code, body["s"], body["code"]) == (status, "error", code)
    return str(body["errmsg"])


async def test_authorize_gives_a_new_token_each_time(
    make_client: ClientOf, sign_in: FakeSignIn, clock: FixedClock
) -> None:
    nobody = make_client(None)
    form = {"login": "alice", "password": "right"}
    tokens = [
        shown(await nobody.post("/authorize?locale=en", data=form), tv.Answer[tv.Token])["d"]
        for _ in range(3)
    ]
    assert [each["access_token"] for each in tokens] == ["token1", "token2", "token3"]
    assert tokens[0]["expiration"] == int(clock.now().timestamp()) + 600
    wrong = await nobody.post("/authorize", data={**form, "password": "wrong"})
    refused(wrong, 401, "platform.principal.token_invalid")
    message = refused(await nobody.post("/authorize", data={}), 422, "platform.request.invalid")
    assert "login" in message
    json_body = await nobody.post("/authorize", json=form)
    refused(json_body, 400 if json_body.status_code == 400 else 415, json_body.json()["code"])
    shown(await make_client().post("/logout"), tv.Done)
    assert len(sign_in.ended) == 1


async def test_everything_but_signing_in_and_the_mapping_needs_a_token(
    make_client: ClientOf,
) -> None:
    nobody = make_client(None)
    for path in ("/config", "/accounts", "/accounts/acc_x/state", "/quotes", "/streaming"):
        refused(await nobody.get(path), 401, "platform.principal.unauthenticated")
    body = shown(await nobody.get("/mapping"), tv.SymbolMapping)
    assert {"f": [AAPL], "s": AAPL} in body["symbols"]
    assert body["fields"] == ["brokerSymbol"]


async def test_config_and_instruments(client: httpx.AsyncClient, account: str) -> None:
    config = shown(await client.get("/config"), tv.Answer[tv.Config])["d"]
    assert [each["id"] for each in config["durations"]] == ["GTC", "DAY", "GTD", "IOC", "FOK"]
    assert set(config["pullingInterval"]) == {
        "quotes", "orders", "positions", "accountManager", "balances",
    }  # fmt: skip
    found = shown(await client.get(f"{account}/instruments"), tv.Answer[list[tv.TvInstrument]])["d"]
    stock = next(each for each in found if each["name"] == AAPL)
    assert (stock["minTick"], stock["qtyStep"], stock["marginRate"]) == (0.01, 1, 0.2)


async def test_order_fills_and_shows_everywhere(client: httpx.AsyncClient, account: str) -> None:
    placed = await client.post(f"{account}/orders?requestId=r1&locale=en", data=BUY)
    order_id = shown(placed, tv.Answer[tv.TvPlaced])["d"]["orderId"]
    again = await client.post(f"{account}/orders?requestId=r1", data=BUY)
    assert again.json() == placed.json()
    other = await client.post(f"{account}/orders?requestId=r1", data={**BUY, "qty": "11"})
    refused(other, 422, "platform.idempotency.key_reused")

    orders = shown(await client.get(f"{account}/orders"), tv.Answer[list[tv.TvOrder]])["d"]
    history = await client.get(f"{account}/ordersHistory?maxCount=5")
    assert shown(history, tv.Answer[list[tv.TvOrder]])["d"] == orders
    (order,) = orders
    assert (order["id"], order["status"], order["side"], order["type"]) == (
        order_id, "filled", "buy", "market",
    )  # fmt: skip
    assert "trailingStopPips" not in order

    (position,) = shown(await client.get(f"{account}/positions"), tv.Answer[list[tv.TvPosition]])[
        "d"
    ]
    assert (position["qty"], position["side"], position["unrealizedPl"]) == (10, "buy", -1)
    (execution,) = shown(
        await client.get(f"{account}/executions?instrument={AAPL}&maxCount=5"),
        tv.Answer[list[tv.TvExecution]],
    )["d"]
    assert (execution["orderId"], execution["price"], execution["isClose"]) == (
        order_id, 200, False,
    )  # fmt: skip
    state = shown(await client.get(f"{account}/state"), tv.Answer[tv.TvState])["d"]
    assert (state["balance"], state["equity"], state["unrealizedPl"]) == (99999.8, 99998.8, -1)
    config = (await client.get("/config")).json()["d"]
    assert len(state["amData"]) == len(config["accountManager"])
    assert len(state["accountSummaryRowData"]) == len(config["accountSummaryRow"])
    (balance,) = shown(await client.get(f"{account}/balances"), tv.Answer[list[tv.TvBalance]])["d"]
    assert (balance["symbol"], balance["total"]) == ("USD", 99999.8)

    partly = await client.request(
        "DELETE", f"{account}/positions/{position['id']}", data={"amount": "4"}
    )
    shown(partly, tv.Done)
    shown(await client.delete(f"{account}/positions/{position['id']}"), tv.Done)
    assert (await client.get(f"{account}/positions")).json()["d"] == []


async def test_resting_order_is_changed_and_cancelled(
    client: httpx.AsyncClient, account: str
) -> None:
    limit = {**BUY, "type": "limit", "limitPrice": "190.50", "durationType": "GTC"}
    placed = await client.post(f"{account}/orders", data=limit)
    order_id = shown(placed, tv.Answer[tv.TvPlaced])["d"]["orderId"]
    changed = {**limit, "limitPrice": "191", "qty": "12", "currentAsk": "200"}
    shown(await client.put(f"{account}/orders/{order_id}", data=changed), tv.Done)
    (order,) = (await client.get(f"{account}/orders")).json()["d"]
    assert (order["status"], order["limitPrice"], order["qty"]) == ("working", 191, 12)
    shown(await client.delete(f"{account}/orders/{order_id}"), tv.Done)
    (order,) = (await client.get(f"{account}/orders")).json()["d"]
    assert (order["status"], order["message"]["type"]) == ("cancelled", "information")
    refused(await client.delete(f"{account}/orders/ord_nope"), 404, "broker.order.not_found")


async def test_good_till_date_is_in_seconds(
    client: httpx.AsyncClient, account: str, clock: FixedClock
) -> None:
    until = int(clock.now().timestamp()) + 3600
    gtd = {
        **BUY, "type": "limit", "limitPrice": "190", "durationType": "GTD",
        "durationDateTime": str(until),
    }  # fmt: skip
    shown(await client.post(f"{account}/orders", data=gtd), tv.Answer[tv.TvPlaced])
    (order,) = (await client.get(f"{account}/orders")).json()["d"]
    assert order["duration"] == {"type": "GTD", "datetime": until}
    bad = await client.post(f"{account}/orders", data={**gtd, "durationDateTime": "soon"})
    refused(bad, 422, "platform.request.invalid")


async def test_preview_places_nothing(client: httpx.AsyncClient, account: str) -> None:
    answer = await client.post(f"{account}/previewOrder", data={**BUY, "id": "ord_1"})
    preview = shown(answer, tv.Answer[tv.TvPreview])["d"]
    assert preview["errors"] == []
    assert preview["sections"][0]["rows"]
    assert (await client.get(f"{account}/orders")).json()["d"] == []
    confirmed = {"confirmId": preview["confirmId"]}
    other = await client.post(f"{account}/orders", params=confirmed, data={**BUY, "qty": "11"})
    refused(other, 422, "broker.order.invalid")
    placed = await client.post(f"{account}/orders", params=confirmed, data=BUY)
    shown(placed, tv.Answer[tv.TvPlaced])


async def test_brackets_of_orders_and_positions(client: httpx.AsyncClient, account: str) -> None:
    held = {**BUY, "type": "limit", "limitPrice": "190", "stopLoss": "180", "takeProfit": "210"}
    placed = await client.post(f"{account}/orders", data=held)
    entry_id = shown(placed, tv.Answer[tv.TvPlaced])["d"]["orderId"]
    orders = shown(await client.get(f"{account}/orders"), tv.Answer[list[tv.TvOrder]])["d"]
    legs = {each["type"]: each for each in orders if "parentId" in each}
    assert {each["status"] for each in legs.values()} == {"inactive"}
    assert {each["parentId"] for each in legs.values()} == {entry_id}
    assert {each["parentType"] for each in legs.values()} == {"order"}
    assert (legs["limit"]["limitPrice"], legs["stop"]["stopPrice"]) == (210, 180)
    shown(await client.delete(f"{account}/orders/{entry_id}"), tv.Done)

    await client.post(f"{account}/orders", data=BUY)
    position = f"{account}/positions/{AAPL}"
    shown(await client.put(position, data={"stopLoss": "195", "takeProfit": "230"}), tv.Done)
    orders = shown(await client.get(f"{account}/orders"), tv.Answer[list[tv.TvOrder]])["d"]
    working = {each["type"]: each for each in orders if each["status"] == "working"}
    assert (working["limit"]["parentType"], working["limit"]["parentId"]) == ("position", AAPL)
    turned = {"side": "sell", "stopLoss": "230"}
    for wish in (turned, turned, {"side": "sell"}):
        shown(await client.put(position, data=wish), tv.Done)
        (held_now,) = (await client.get(f"{account}/positions")).json()["d"]
        assert (held_now["side"], held_now["qty"]) == ("sell", 10)
        orders = (await client.get(f"{account}/orders")).json()["d"]
        prices = [each["stopPrice"] for each in orders if each["status"] == "working"]
        assert prices == ([230] if "stopLoss" in wish else [])


async def test_leverage(client: httpx.AsyncClient, account: str) -> None:
    form = {"instrument": AAPL, "side": "buy", "orderType": "market"}
    info = shown(
        await client.post(f"{account}/getLeverage", data=form), tv.Answer[tv.TvLeverageInfo]
    )["d"]
    assert (info["leverage"], info["min"], info["max"], info["step"]) == (5, 1, 5, 1)
    shown(
        await client.post(f"{account}/previewLeverage", data={**form, "leverage": "2"}),
        tv.Answer[tv.TvLeveragePreview],
    )
    changed = shown(
        await client.post(f"{account}/setLeverage", data={**form, "leverage": "2.0"}),
        tv.Answer[tv.TvLeverage],
    )
    assert changed["d"] == {"leverage": 2}
    bad = await client.post(f"{account}/setLeverage", data={**form, "leverage": "2.5"})
    refused(bad, 422, "platform.request.invalid")


async def test_market_data(client: httpx.AsyncClient, account: str) -> None:
    account_id = account.removeprefix("/accounts/")
    quotes = shown(
        await client.get(f"/quotes?accountId={account_id}&symbols={AAPL},EURUSD,NOPE"),
        tv.Answer[list[tv.TvQuote]],
    )["d"]
    assert [(each["s"], each["n"]) for each in quotes] == [
        ("ok", AAPL), ("ok", "EURUSD"), ("error", "NOPE"),
    ]  # fmt: skip
    assert quotes[0]["v"]["ask"] == 200
    depth = shown(
        await client.get(f"/depth?accountId={account_id}&symbol={AAPL}"), tv.Answer[tv.Depth]
    )["d"]
    assert (depth["asks"][0][0], depth["bids"][0][0]) == (200, 199.9)
    groups = shown(await client.get("/groups"), tv.Answer[tv.Groups])["d"]["groups"]
    permissions = shown(await client.get("/permissions"), tv.Answer[tv.Permissions])["d"]
    assert permissions["groups"] == [each["id"] for each in groups] == ["trading_demo"]
    columns = (await client.get("/symbol_info?group=trading_demo")).json()
    assert columns["s"] == "ok"
    # A flat list of resolutions is that of every symbol.
    assert columns.pop("supported-resolutions")[:2] == ["1", "5"]
    lengths = {len(each) for each in columns.values() if isinstance(each, list)} - {1}
    assert lengths == {len(columns["symbol"])}
    refused(await client.get("/symbol_info?group=x"), 422, "platform.request.invalid")
    bars = shown(await client.get(f"/history?symbol={AAPL}&resolution=1D&from=0&to=10"), tv.History)
    assert (bars["s"], bars["t"]) == ("ok", [0])


async def read(batches: Batches) -> list[Line]:
    return await asyncio.wait_for(anext(batches), 5)


async def read_day(batches: Batches) -> Line | None:
    return next((each for each in await read(batches) if each["f"] == "d"), None)


async def test_stream_gives_lines_without_a_snapshot(
    stream: MarketStream, market: FakeMarket
) -> None:
    batches = await stream.open(user_id="usr_a", credential=None)
    assert await read(batches) == []
    market.quote("199.00", "199.10")
    lines = await read(batches)
    assert [each["f"] for each in lines] == ["q", "t", "d"]
    assert {each["id"] for each in lines} == {AAPL}
    assert (lines[0]["ap"], lines[0]["bp"]) == (199.1, 199.0)
    market.quote("1.20000", "1.20010", EURUSD)
    assert {each["id"] for each in await read(batches)} == {EURUSD}


async def test_day_has_every_quote_of_it_and_none_of_yesterday_s(
    market: FakeMarket, clock: FixedClock
) -> None:
    history = FakeHistory(o=[190.0], h=[201.0], l=[189.0], c=[199.0], v=[10.0])
    stream = MarketStream(quotes=market, history=history, clock=clock, pace_seconds=0.01)
    batches = await stream.open(user_id="usr_a", credential=None)
    market.quote("199.00", "199.10")
    day = await read_day(batches)
    assert day is not None
    midnight = int(clock.now().replace(hour=0, minute=0).timestamp())
    assert (day["o"], day["h"], day["l"], day["c"], day["t"]) == (190, 201, 189, 199, midnight)
    await batches.aclose()
    # Nobody listens.
    market.quote("250.00", "250.10")
    market.quote("150.00", "150.10")
    batches = await stream.open(user_id="usr_b", credential=None)
    market.quote("200.00", "200.10")
    day = await read_day(batches)
    assert day is not None
    assert (day["o"], day["h"], day["l"], day["c"], day["v"]) == (190, 250, 150, 200, 10)
    assert history.count == 1
    # Read anew for the volume; what history hasn't heard of yet stays.
    clock.advance(61)
    history.columns["v"] = [25.0]
    market.quote("200.00", "200.10")
    day = await read_day(batches)
    assert day is not None
    assert (day["h"], day["v"], history.count) == (250, 25, 2)
    # History still has yesterday's bar alone: today begins with this quote.
    clock.advance(24 * 3600)
    history.columns["t"] = [midnight]
    market.quote("202.00", "202.10")
    day = await read_day(batches)
    assert day is not None
    assert {day[name] for name in "ohlc"} == {202}
    assert (day["t"], day["v"]) == (midnight + 24 * 3600, 0)


async def test_day_without_an_answer_is_not_asked_for_at_every_quote(
    market: FakeMarket, clock: FixedClock
) -> None:
    history = FakeHistory()
    history.error = UnavailableError("no", retry_after_seconds=1)
    stream = MarketStream(quotes=market, history=history, clock=clock, pace_seconds=0.01)
    listeners = [await stream.open(user_id=f"usr_{each}", credential=None) for each in range(3)]
    for _ in range(2):
        market.quote("199.00", "199.10")
        assert [await read_day(each) for each in listeners] == [None, None, None]
    assert history.count == 1
    history.error = None
    clock.advance(5)
    market.quote("199.00", "199.10")
    assert None not in [await read_day(each) for each in listeners]
    assert history.count == 2
    # Each refused credential is asked with once.
    history.error = TokenInvalidError("expired")
    clock.advance(24 * 3600)
    for _ in range(2):
        market.quote("202.00", "202.10")
        days = [await read_day(each) for each in listeners]
        assert [day and day["o"] for day in days] == [202, 202, 202]
    assert history.count == 2 + 3


async def test_user_has_four_streams_at_most(stream: MarketStream) -> None:
    open_ones = [await stream.open(user_id="usr_a", credential=None) for _ in range(STREAMS_MAX)]
    with pytest.raises(StreamsExceededError):
        await stream.open(user_id="usr_a", credential=None)
    await stream.open(user_id="usr_b", credential=None)
    await open_ones.pop().aclose()
    open_ones.append(await stream.open(user_id="usr_a", credential=None))
    # The client left before anybody read from it.
    open_ones.pop()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await stream.open(user_id="usr_a", credential=None)


async def test_streams_end_when_the_process_stops(
    stream: MarketStream, client: httpx.AsyncClient
) -> None:
    batches = await stream.open(user_id="usr_a", credential=None)
    stream.end()
    async with asyncio.timeout(5):
        assert [each async for each in batches] == []
        # This client waits for the end of an answer, so there is one.
        assert (await client.get("/streaming")).content == b""


FORMS: dict[str, tuple[str, dict[str, str]]] = {
    "unknown field": ("platform.request.invalid", {"colour": "red"}),
    "unknown side": ("platform.request.invalid", {"side": "up"}),
    "no number": ("platform.request.invalid", {"qty": "ten"}),
    "missing price": ("broker.order.invalid", {"type": "limit"}),
    "unknown symbol": ("broker.order.unknown_instrument", {"instrument": "DEMO:NOPE"}),
}


@pytest.mark.parametrize("name", FORMS)
async def test_bad_form_is_refused_in_the_dialect(
    name: str, client: httpx.AsyncClient, account: str
) -> None:
    code, changes = FORMS[name]
    refused(await client.post(f"{account}/orders", data={**BUY, **changes}), 422, code)


async def test_field_sent_twice_is_refused(client: httpx.AsyncClient, account: str) -> None:
    answer = await client.post(
        f"{account}/orders",
        content="instrument=DEMO:AAPL&side=buy&type=market&qty=1&qty=2",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    refused(answer, 422, "platform.request.invalid")


async def test_accounts_of_others_look_like_none(make_client: ClientOf, account: str) -> None:
    stranger = make_client("usr_stranger")
    account_id = account.removeprefix("/accounts/")
    leverage = {"instrument": AAPL, "side": "buy", "orderType": "market", "leverage": "1"}
    calls: list[tuple[str, str, dict[str, str] | None]] = [
        *(
            ("GET", f"{account}/{name}", None)
            for name in (
                "instruments", "state", "balances", "orders", "ordersHistory", "positions",
                "executions",
            )
        ),
        ("POST", f"{account}/orders", BUY),
        ("POST", f"{account}/previewOrder", BUY),
        ("PUT", f"{account}/orders/ord_1", {"qty": "1"}),
        ("DELETE", f"{account}/orders/ord_1", None),
        ("PUT", f"{account}/positions/{AAPL}", {"stopLoss": "1"}),
        ("DELETE", f"{account}/positions/{AAPL}", None),
        ("POST", f"{account}/getLeverage", leverage),
        ("POST", f"{account}/setLeverage", leverage),
        ("POST", f"{account}/previewLeverage", leverage),
        ("GET", f"/quotes?accountId={account_id}&symbols={AAPL}", None),
        ("GET", f"/depth?accountId={account_id}&symbol={AAPL}", None),
    ]  # fmt: skip
    for method, path, form in calls:
        answer = await stranger.request(method, path, data=form)
        assert refused(answer, 404, "broker.account.not_found"), path
