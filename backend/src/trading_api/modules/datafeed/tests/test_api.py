"""Native and UDF surfaces through the real edge, identity and routing."""

import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trading_api.modules.datafeed.service import DatafeedService
from trading_api.modules.datafeed.tests.builders import ANCHOR, seconds
from trading_api.modules.datafeed.tests.conftest import NOW, PREFIX, ClientOf, an_app
from trading_api.runtime.bus import Bus
from trading_api.runtime.http import Access
from trading_api.runtime.rates import RATE_CLASSES, Rate, RateLimiter
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.clocks import FixedClock

UDF = f"{PREFIX}/udf"
NOW_SECONDS = int(NOW.timestamp())


async def get(client: httpx.AsyncClient, path: str, **params: Any) -> Any:
    response = await client.get(PREFIX + path, params=params)
    assert response.status_code == 200, response.text
    return response.json()


def apple_of_2012() -> list[dict[str, str]]:
    with (Path(__file__).parent / "aapl_2012.csv").open() as file:
        return list(csv.DictReader(file))


def midnight(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())


async def test_native_bars_of_2012_equal_the_source(client: httpx.AsyncClient) -> None:
    answer = await get(
        client,
        "/bars",
        symbol="HIST:AAPL",
        resolution="D",
        from_time=seconds("2012-01-01"),
        to_time=seconds("2013-01-01"),
    )
    assert answer["bars"] == [
        {
            "time": midnight(line["date"]) * 1_000,
            "open": float(line["open"]),
            "high": float(line["high"]),
            "low": float(line["low"]),
            "close": float(line["close"]),
            "volume": int(line["volume"]),
        }
        for line in apple_of_2012()
    ]
    assert (answer["no_data"], answer["next_time"]) == (False, None)


async def test_udf_history_of_2012_equals_the_source(client: httpx.AsyncClient) -> None:
    answer = await get(
        client,
        "/udf/history",
        **{
            "symbol": "HIST:AAPL",
            "resolution": "1D",
            "from": seconds("2012-01-01"),
            "to": seconds("2013-01-01"),
        },
    )
    lines = apple_of_2012()
    assert answer == {
        "s": "ok",
        "t": [midnight(line["date"]) for line in lines],
        "o": [float(line["open"]) for line in lines],
        "h": [float(line["high"]) for line in lines],
        "l": [float(line["low"]) for line in lines],
        "c": [float(line["close"]) for line in lines],
        "v": [int(line["volume"]) for line in lines],
    }


async def test_demo_bars_reach_up_to_this_minute(client: httpx.AsyncClient) -> None:
    answer = await get(client, "/bars", symbol="AAPL", resolution="1", count_back=300)
    times = [bar["time"] for bar in answer["bars"]]
    assert times == [(NOW_SECONDS // 60 - 299 + i) * 60_000 for i in range(300)]


async def test_both_dialects_answer_the_same_bars(client: httpx.AsyncClient) -> None:
    to_time = NOW_SECONDS + 60
    native = await get(
        client, "/bars", symbol="EURUSD", resolution="15", to_time=to_time, count_back=77
    )
    udf = await get(
        client, "/udf/history", symbol="EURUSD", resolution="15", to=to_time, countback=77
    )
    assert [bar["time"] for bar in native["bars"]] == [time * 1_000 for time in udf["t"]]
    for name, column in (("open", "o"), ("high", "h"), ("low", "l"), ("close", "c")):
        assert [bar[name] for bar in native["bars"]] == udf[column]


async def test_gap_points_to_the_nearest_earlier_bar_and_the_left_edge_ends(
    client: httpx.AsyncClient,
) -> None:
    weekend = {"from_time": seconds("2012-01-07"), "to_time": seconds("2012-01-09")}
    friday = seconds("2012-01-06")
    native = await get(client, "/bars", symbol="HIST:AAPL", resolution="1D", **weekend)
    assert native == {"bars": [], "no_data": True, "next_time": friday * 1_000}
    udf = {"symbol": "HIST:AAPL", "resolution": "1D"}
    gap = {"from": weekend["from_time"], "to": weekend["to_time"]}
    assert await get(client, "/udf/history", **udf, **gap) == {"s": "no_data", "nextTime": friday}
    edge = {"from": 0, "to": seconds("2000-03-01"), "countback": 10}
    assert await get(client, "/udf/history", **udf, **edge) == {"s": "no_data"}


async def test_the_udf_client_can_page_back_over_gaps_to_the_beginning(
    client: httpx.AsyncClient,
) -> None:
    """As TradingView's adapter pages: countback, and a window that is too narrow on purpose."""
    seen: list[int] = []
    to_time = NOW_SECONDS
    for _ in range(20):
        answer = await get(
            client,
            "/udf/history",
            **{
                "symbol": "HIST:FB",
                "resolution": "1D",
                "from": to_time - 30 * 86_400,
                "to": to_time,
                "countback": 50,
            },
        )
        if answer["s"] == "no_data":
            assert "nextTime" not in answer
            break
        seen = answer["t"] + seen
        to_time = answer["t"][0]
    assert len(seen) == 196
    assert seen == sorted(set(seen))


async def test_the_same_question_gives_the_same_bytes(
    client: httpx.AsyncClient, market_clock: FixedClock
) -> None:
    params: dict[str, str | int] = {
        "symbol": "AAPL",
        "resolution": "5",
        "to_time": ANCHOR,
        "count_back": 500,
    }
    first = await client.get(f"{PREFIX}/bars", params=params)
    market_clock.advance(600)
    second = await client.get(f"{PREFIX}/bars", params=params)
    assert first.content == second.content


async def test_forming_bar_moves_with_the_clock(
    client: httpx.AsyncClient, market_clock: FixedClock
) -> None:
    closes = set()
    for _ in range(40):
        answer = await get(client, "/bars", symbol="AAPL", resolution="1D", count_back=1)
        closes.add(answer["bars"][0]["close"])
        market_clock.advance(0.5)
    assert len(closes) > 3


async def test_quotes_of_known_and_unknown_symbols(client: httpx.AsyncClient) -> None:
    asked = ["aapl", "HIST:IBM", "NOPE", "\u20ac"]
    native = await client.post(f"{PREFIX}/quotes", json={"symbols": asked})
    assert native.status_code == 200
    quotes = native.json()
    assert [quote["n"] for quote in quotes] == asked
    assert [quote["s"] for quote in quotes] == ["ok", "ok", "error", "error"]
    values = quotes[0]["v"]
    assert values["bid"] < values["lp"] < values["ask"]
    assert values["original_name"] == "DEMO:AAPL"
    assert values["ch"] == pytest.approx(values["lp"] - values["prev_close_price"])
    assert values["low_price"] <= values["lp"] <= values["high_price"]
    udf = await get(client, "/udf/quotes", symbols=",".join(asked))
    assert udf == {"s": "ok", "d": quotes}


async def test_symbol_information_is_complete_and_explicit(client: httpx.AsyncClient) -> None:
    info = await get(client, "/udf/symbols", symbol="DEMO:EURUSD")
    assert "s" not in info
    assert info == await get(client, "/resolve/eurusd")
    expected = {
        "name": "EURUSD",
        "ticker": "DEMO:EURUSD",
        "exchange": "DEMO",
        "listed_exchange": "DEMO",
        "type": "forex",
        "session": "24x7",
        "timezone": "Etc/UTC",
        "minmov": 1,
        "minmove2": 10,
        "pricescale": 100_000,
        "fractional": False,
        "has_intraday": True,
        "has_daily": True,
        "has_weekly_and_monthly": True,
        "has_seconds": True,
        "seconds_multipliers": ["1", "5", "10", "15", "30", "45"],
        "data_status": "streaming",
        "delay": 0,
        "currency_code": "USD",
        "visible_plots_set": "ohlcv",
        "volume_precision": 0,
        "format": "price",
    }
    assert {name: info[name] for name in expected} == expected
    daily = await get(client, "/resolve/HIST:AAPL")
    assert (daily["has_intraday"], daily["intraday_multipliers"]) == (False, [])
    assert (daily["pricescale"], daily["data_status"]) == (10_000, "endofday")
    assert None not in info.values()


async def test_every_offered_resolution_has_bars(client: httpx.AsyncClient) -> None:
    for instrument in await get(client, "/instruments"):
        info = await get(client, f"/resolve/{instrument['symbol']}")
        for resolution in info["supported_resolutions"]:
            answer = await get(
                client, "/bars", symbol=info["ticker"], resolution=resolution, count_back=2
            )
            assert answer["bars"], (info["ticker"], resolution)


async def test_search_and_config_and_group(client: httpx.AsyncClient) -> None:
    found = await get(client, "/search", user_input="aapl", max_results=1)
    assert found == [
        {
            "symbol": "AAPL",
            "full_name": "DEMO:AAPL",
            "description": "Apple Inc. - simulation on shifted real prices of AAPL",
            "exchange": "DEMO",
            "ticker": "DEMO:AAPL",
            "type": "stock",
        }
    ]
    udf = await get(client, "/udf/search", query="AAPL", type="", exchange="", limit=30)
    assert udf[0] == found[0]
    assert await get(client, "/config") == await get(client, "/udf/config")
    group = await get(client, "/udf/symbol_info", group="hist")
    assert len(group["ticker"]) == len(group["pricescale"]) == 6


async def test_every_asset_class_tells_its_own_information(client: httpx.AsyncClient) -> None:
    config = await get(client, "/udf/config")
    types = [each["value"] for each in config["symbols_types"]]
    assert types == ["", "stock", "forex", "crypto", "futures", "index"]
    assert [each["value"] for each in config["exchanges"]] == ["", "DEMO", "HIST"]
    for type_ in types[1:]:
        found = await get(client, "/udf/search", query="", type=type_, exchange="", limit=30)
        assert found
        assert {each["type"] for each in found} == {type_}
    oil = await get(client, "/resolve/OIL")
    assert (oil["type"], oil["pointvalue"], oil["data_status"]) == ("futures", 1_000, "streaming")
    bitcoin = await get(client, "/instruments/BTCUSD")
    assert (bitcoin["quantity_step"], bitcoin["lot_size"]) == ("0.0001", "1.0000")
    assert (bitcoin["base_currency"], bitcoin["tradable"]) == ("BTC", True)
    stock = await get(client, "/resolve/HIST:MSFT")
    assert (stock["sector"], stock["industry"]) == ("Technology", "Software")
    assert stock["session_holidays"].startswith("19990118")
    assert "sector" not in oil


async def test_udf_config_and_time_answer_without_a_sign_in(client_of: ClientOf) -> None:
    nobody = client_of()
    assert (await get(nobody, "/udf/config"))["supports_search"] is True
    time = await nobody.get(f"{UDF}/time")
    assert time.text == str(NOW_SECONDS)
    for path in ("/bars", "/search", "/instruments", "/config"):
        assert (await nobody.get(PREFIX + path)).status_code == 401


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/symbols?symbol=NOPE", 404),
        ("/symbols", 422),
        ("/symbols?symbol=%00", 400),
        ("/history?symbol=AAPL&resolution=1&from=2&to=1", 422),
        ("/history?symbol=AAPL&resolution=7S&from=1&to=2", 422),
        ("/history?symbol=HIST:AAPL&resolution=1&from=1&to=2", 422),
        ("/history?symbol=AAPL&resolution=1&from=1&to=1e18", 422),
        ("/history?symbol=AAPL&resolution=1&from=1&to=1000000000000000000", 422),
        ("/history?symbol=AAPL&resolution=1&from=1", 422),
        ("/history?symbol=AAPL&resolution=1&from=1&to=2&countback=-1", 422),
        ("/search?limit=x", 422),
        ("/quotes", 422),
        ("/marks?symbol=NOPE&from=1&to=2&resolution=D", 404),
        ("/marks?symbol=AAPL", 422),
        ("/marks?symbol=AAPL&from=1&to=2&resolution=x", 422),
        ("/timescale_marks?symbol=NOPE&from=1&to=2&resolution=D", 404),
        ("/timescale_marks?symbol=AAPL&from=3&to=1&resolution=D", 422),
        ("/symbol_info?group=NYSE", 404),
        ("/nothing/here", 404),
    ],
)
async def test_every_udf_error_is_of_udf_shape(
    client: httpx.AsyncClient, path: str, status: int
) -> None:
    response = await client.get(UDF + path)
    body = response.json()
    assert response.status_code == status
    assert body["s"] == "error"
    assert body["errmsg"]


async def test_udf_without_a_sign_in_is_of_udf_shape(client_of: ClientOf) -> None:
    for client in (client_of(), client_of("broker:trade")):
        for path in ("/symbols?symbol=AAPL", "/history?symbol=AAPL", "/search?query=A&limit=30"):
            response = await client.get(UDF + path)
            assert response.status_code in (401, 403)
            assert response.json()["s"] == "error"


async def test_udf_answers_too_many_questions_in_its_shape(
    service: DatafeedService,
    host_settings: PlatformSettings,
    market_clock: FixedClock,
    bus: Bus,
) -> None:
    rates = {name: Rate(name, 2, is_exact=True) for name in RATE_CLASSES}
    limiter = RateLimiter(bus=bus, clock=market_clock, rates=rates)
    app = an_app(service, host_settings, market_clock, Access.public(), limiter=limiter)
    path = f"{UDF}/history?symbol=AAPL&resolution=1&from=0&to={NOW_SECONDS}&countback=2"
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://tests"
    ) as client:
        answers = [await client.get(path) for _ in range(4)]
    assert [each.status_code for each in answers] == [200, 200, 429, 429]
    assert answers[-1].json()["s"] == "error"
    assert answers[-1].json()["errmsg"]


async def test_public_data_needs_no_sign_in(client_of: ClientOf) -> None:
    answer = await get(client_of(access=Access.public()), "/bars", symbol="AAPL", resolution="1D")
    assert answer["bars"]


async def test_native_errors_are_problems_that_name_the_field(client: httpx.AsyncClient) -> None:
    response = await client.get(
        f"{PREFIX}/bars", params={"symbol": "AAPL", "resolution": "1", "from_time": "x"}
    )
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["errors"][0]["field"] == "from_time"
    unknown = await client.get(f"{PREFIX}/resolve/NOPE")
    assert unknown.json()["code"] == "datafeed.instrument.not_found"


async def test_other_modules_ask_for_quotes_and_instruments(client_of: ClientOf) -> None:
    broker = client_of(module="broker")
    path = "/internal/v1/datafeed/quotes"
    answer = (await broker.get(path, params={"symbols": "DEMO:AAPL,NOPE"})).json()
    assert answer["unknown"] == ["NOPE"]
    assert answer["quotes"][0]["instrument"] == "DEMO:AAPL"
    assert isinstance(answer["quotes"][0]["bid"], int)
    listed = (await broker.get("/internal/v1/datafeed/instruments")).json()
    assert len(listed["instruments"]) == 15
    one = (await broker.get("/internal/v1/datafeed/instruments?symbols=EURUSD,NOPE")).json()
    assert [each["instrument"] for each in one["instruments"]] == ["DEMO:EURUSD"]
    assert one["unknown"] == ["NOPE"]
    assert (await client_of("datafeed:read").get(path)).status_code == 403
    assert (await client_of().get(path)).status_code == 401


texts = st.one_of(st.text(max_size=12), st.sampled_from(["AAPL", "HIST:EURUSD", "1", "1D", ""]))
numbers = st.one_of(st.integers(-(10**20), 10**20).map(str), st.text(max_size=6), st.just("1e18"))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(symbol=texts, resolution=texts, from_=numbers, to=numbers, count=numbers)
async def test_no_question_makes_the_server_fail(
    client: httpx.AsyncClient, symbol: str, resolution: str, from_: str, to: str, count: str
) -> None:
    native = await client.get(
        f"{PREFIX}/bars",
        params={
            "symbol": symbol,
            "resolution": resolution,
            "from_time": from_,
            "to_time": to,
            "count_back": count,
        },
    )
    assert native.status_code in (200, 400, 404, 422)
    udf = await client.get(
        f"{UDF}/history",
        params={
            "symbol": symbol,
            "resolution": resolution,
            "from": from_,
            "to": to,
            "countback": count,
        },
    )
    assert udf.json()["s"] in ("ok", "no_data", "error")


QUESTIONS = [
    "/bars?symbol=AAPL&resolution=1&count_back=3",
    "/bars?symbol=AAPL&resolution=1&from_time=x",
    "/bars?symbol=AAPL&resolution=1&from_time=%201%20&to_time=2.0",
    "/bars?symbol=AAPL&resolution=1&from_time=1&from_time=1760000000&to_time=1760000600",
    "/bars?symbol=AAPL&resolution=1D&from_time=&to_time=1760000600",
    "/bars?symbol=AAPL",
    "/bars?symbol=&resolution=1",
    "/bars?symbol=AAPL&resolution=1&unknown=1&count_back=1",
    "/bars?symbol=NOPE&resolution=1",
    "/bars?symbol=AAPL&resolution=1&from_time=5&to_time=1",
    "/udf/history?symbol=AAPL&resolution=1&from=1760000000&to=1760000600&countback=2",
    "/udf/history?symbol=AAPL&resolution=1&from=1760000000&to=1760000600&countback=0",
    "/udf/history?symbol=AAPL&resolution=1&to=1760000600&currencyCode=USD&countback=1",
    "/udf/history?symbol=AAPL&resolution=1&from=1&from_time=9&to_time=9",
    "/udf/history?symbol=AAPL&resolution=60&from=1760000000&to=",
]


@pytest.mark.parametrize("question", QUESTIONS)
async def test_hot_path_and_route_give_the_same_answer(client_of: ClientOf, question: str) -> None:
    answers = []
    # The second time the answer may be ready.
    for hot_paths in (False, True, True):
        client = client_of("datafeed:read", hot_paths=hot_paths)
        headers = {"X-Request-ID": "the-same-id"}
        response = await client.get(PREFIX + question, headers=headers)
        answers.append((response.status_code, response.json(), dict(response.headers)))
    assert answers[0] == answers[1] == answers[2]
