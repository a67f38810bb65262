"""Charts through nginx: a UDF client in Node and in a browser, and a charting library's own checks.

The client is the one in docs/examples; it follows TradingView's rules and reads bodies alone.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver
from tests.journeys.conftest import PASSWORD, Person
from tests.journeys.test_newcomer import until

from trading_api.modules.datafeed.adapters.bundled import BundledHistory
from trading_api.testkit.browser import open_browser
from trading_api.testkit.fleet import BACKEND, Fleet

pytestmark = [pytest.mark.fleet, pytest.mark.xdist_group("fleet")]

CLIENT = BACKEND.parent / "docs/examples/udf-client.mjs"
SCRIPTS = BACKEND / "tests/js"
LIBRARY = (
    SCRIPTS / "node_modules/lightweight-charts/dist/lightweight-charts.standalone.development.js"
)
NODE = Path(sys.executable).with_name("node")
SECONDS = 60

once = pytest.mark.parametrize("fleet", ["sqlite"], indirect=True)
"""Bars don't depend on the kind of database, so what only reads them runs once."""


def bundled(series_id: str) -> list[list[float]]:
    """Return the rows that a client must see: seconds and prices."""
    series = BundledHistory().load_series(series_id).series
    scale, bars = 10**series.price_decimals, series.bars
    prices = (column / scale for column in (bars.open, bars.high, bars.low, bars.close))
    columns = [bars.time.tolist(), *(column.tolist() for column in prices)]
    return [list(row) for row in zip(*columns, strict=True)]


def ensure_continued(minutes: list[list[float]], live: list[list[float]]) -> None:
    """Live bars go on where history ended, minute by minute, none earlier, none missing."""
    times = [int(row[0]) for row in minutes]
    assert times == list(range(times[0], times[0] + 60 * len(times), 60))
    assert live
    last = times[-1]
    for row in live:
        assert row[0] in (last, last + 60)
        last = int(row[0])


def ensure_complete(found: dict[str, Any]) -> None:
    assert found["hours"] == bundled("eurusd-60")
    edge = found["hours"].index(found["hoursByWindow"][-1])
    assert found["hoursByWindow"] == found["hours"][: edge + 1]
    assert edge == 400
    assert found["days"] == bundled("fb-1d")
    ensure_continued(found["minutes"], found["live"])


@once
async def test_udf_client_in_node_pages_gaps_to_the_very_start_and_goes_on_live(
    fleet: Fleet, person: Person
) -> None:
    command: list[str | Path] = [
        NODE,
        SCRIPTS / "page_history.mjs",
        CLIENT,
        fleet.url,
        person.email,
        PASSWORD,
    ]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)

    done = await asyncio.to_thread(run)
    assert done.returncode == 0, done.stderr
    ensure_complete(json.loads(done.stdout))


@once
async def test_conformance_command_finds_nothing_wrong_here(
    fleet: Fleet, person: Person, tmp_path: Path
) -> None:
    operator = replace(fleet, environ={**fleet.environ, "CONFORMANCE_TOKEN": person.token})
    output = tmp_path / "conformance.json"
    url = fleet.url + "/api/v1/datafeed/udf"
    # A live symbol and one with gaps; in process all kinds are looked at.
    options = ("--wait", "1", "--symbols", "DEMO:AAPL,HIST:EURUSD", "--output", str(output))
    done = await asyncio.to_thread(operator.manage, "conformance", url, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(output.read_text())
    assert set(report["summary"]) == {"passed"}
    assert report["summary"]["passed"] > 20
    proven = await asyncio.to_thread(operator.manage, "verify", "datafeed")
    assert proven.returncode == 0, proven.stdout
    assert "M1 M2 M3 M4" in proven.stdout


@once
async def test_conformance_command_finds_nothing_wrong_with_the_brokers_dialect(
    fleet: Fleet, person: Person, tmp_path: Path
) -> None:
    operator = replace(fleet, environ={**fleet.environ, "CONFORMANCE_PASSWORD": PASSWORD})
    output = tmp_path / "conformance.json"
    done = await asyncio.to_thread(
        operator.manage,
        *("conformance", f"{fleet.url}/api/v1/broker/tv", "--dialect", "tv"),
        *("--login", person.email, "--symbols", "DEMO:AAPL", "--wait", "1.5"),
        *("--output", str(output)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(output.read_text())
    skipped = [test["name"] for test in report["tests"] if test["outcome"] == "skipped"]
    # DEMO is always open: there is no gap to point across.
    assert skipped == ["historyNoDataWithNb"]
    assert report["summary"] == {"passed": 28, "skipped": 1}


@once
@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        (["sh", "market-data.sh"], ['"nextTime":1325808000', '"Split 2:1"', '"name":"first"']),
        ([str(NODE), "live-bars.mjs", "AAPL", "1", "3"], ["history", "forming"]),
    ],
)
async def test_examples_run_as_they_are(
    fleet: Fleet, person: Person, command: list[str], wanted: list[str]
) -> None:
    if shutil.which(command[0]) is None or shutil.which("curl") is None:
        pytest.skip("no curl")
    environ = {"ORIGIN": fleet.url, "EMAIL": person.email, "PASSWORD": PASSWORD}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=CLIENT.parent,
            env={**os.environ, **environ, "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    done = await asyncio.to_thread(run)
    assert done.returncode == 0, done.stdout + done.stderr
    for text in wanted:
        assert text in done.stdout


async def test_chart_is_saved_and_own_executions_are_marked_on_it(person: Person) -> None:
    storage = "/api/v1/datafeed/charts-storage/1.1/charts?client=web&user=somebody"
    content = json.dumps({"panes": ["x" * 300_000]})
    form = {"name": "mine", "symbol": "DEMO:AAPL", "resolution": "1", "content": content}
    saved = await person.client.post(storage, data=form)
    assert saved.status_code == 200, saved.text
    loaded = await person.client.get(f"{storage}&chart={saved.json()['id']}")
    assert loaded.json()["data"]["content"] == content

    async def bought() -> bool:
        body = {"symbol": "AAPL", "side": 1, "type": 2, "qty": 3, "clientOrderId": "mark"}
        answer = await person.client.post("/api/v1/broker/orders", json=body)
        return answer.status_code == 200

    async def marks() -> Any:
        now = int(time.time())
        params = {"symbol": "DEMO:AAPL", "resolution": "1", "from": now - 3600, "to": now}
        return await person.get("/api/v1/datafeed/udf/marks", **params)

    await until(bought)
    half = {"symbol": "BTCUSD", "side": 1, "type": 2, "qty": "0.0005"}
    answer = await person.client.post("/api/v1/broker/orders", json=half)
    assert answer.status_code == 200, answer.text
    (mark,) = await until(marks)
    assert mark["label"] == "B"
    assert mark["text"].startswith("Bought 3 at ")
    assert mark["time"] % 60 == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[WebDriver]:
    with open_browser() as opened:
        opened.set_script_timeout(SECONDS)
        yield opened


def signed_in(browser: WebDriver, fleet: Fleet, person: Person) -> None:
    """Open the platform's own page and sign in there, so that cookies do the rest."""
    browser.get(fleet.url + "/")
    client = CLIENT.read_text().replace("export class", "window.UdfClient = class")
    browser.execute_script(client)
    status = browser.execute_async_script(
        """
        const [email, password, done] = arguments;
        fetch("/api/v1/auth/login", {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify({ email, password }),
        }).then((answer) => done(answer.status), (error) => done(String(error)));
        """,
        person.email,
        PASSWORD,
    )
    assert status == 200
    assert "access_token" not in browser.execute_script("return document.cookie")


PAGE_IN_BROWSER = """
const done = arguments[arguments.length - 1];
(async () => {
  const feed = new UdfClient("/api/v1/datafeed/udf");
  const columns = (bars) => bars.map((b) => [b.time, b.open, b.high, b.low, b.close]);
  const hours = await feed.history("HIST:EURUSD", "60", { page: 900 });
  const hoursByWindow = await feed.history("HIST:EURUSD", "60", {
    windowSeconds: 20 * 3600, to: hours[400].time + 3600 });
  const days = await feed.history("HIST:FB", "1D", { page: 50 });
  const { ticker } = await feed.resolve("AAPL");
  const minutes = await feed.history(ticker, "1", { count: 120 });
  const live = [];
  await new Promise((enough) => {
    const stop = feed.subscribe(ticker, "1", minutes.at(-1), (bar) => {
      live.push(bar);
      if (live.length >= 6) enough(stop());
    }, { milliseconds: 400 });
  });
  return { hours: columns(hours), hoursByWindow: columns(hoursByWindow), days: columns(days),
           minutes: columns(minutes), live: columns(live) };
})().then((found) => done({ found }), (error) => done({ error: String(error.stack) }));
"""


@once
@pytest.mark.browser
async def test_udf_client_in_a_browser_does_the_same_with_its_cookies(
    fleet: Fleet, person: Person, browser: WebDriver
) -> None:
    def run() -> dict[str, Any]:
        signed_in(browser, fleet, person)
        answer: dict[str, Any] = browser.execute_async_script(PAGE_IN_BROWSER)
        return answer

    answer = await asyncio.to_thread(run)
    assert "error" not in answer, answer["error"]
    ensure_complete(answer["found"])


DRAW = """
const done = arguments[arguments.length - 1];
(async () => {
  const feed = new UdfClient("/api/v1/datafeed/udf");
  const box = document.body.appendChild(document.createElement("div"));
  box.style.cssText = "position: fixed; inset: 0; z-index: 9; background: white";
  const chart = LightweightCharts.createChart(box, {
    timeScale: { timeVisible: true }, autoSize: false, width: 1100, height: 700 });
  const series = chart.addSeries(LightweightCharts.CandlestickSeries);
  const volume = chart.addSeries(LightweightCharts.HistogramSeries, { priceScaleId: "" });
  volume.priceScale().applyOptions({ scaleMargins: { top: 0.8, bottom: 0 } });
  const candle = ({ time, open, high, low, close }) => ({ time, open, high, low, close });
  const { ticker } = await feed.resolve("AAPL");
  const bars = await feed.history(ticker, "1", { count: 3000, page: 1000 });
  series.setData(bars.map(candle));
  volume.setData(bars.map((bar) => ({ time: bar.time, value: bar.volume })));
  const live = [];
  const socket = new WebSocket(location.origin.replace("http", "ws") + "/api/v1/datafeed/ws");
  await new Promise((enough, fail) => {
    socket.onerror = () => fail(new Error("socket"));
    socket.onopen = () => socket.send(JSON.stringify({
      type: "bars.subscribe", payload: { symbol: ticker, resolution: "1" } }));
    socket.onmessage = (event) => {
      const { type, payload } = JSON.parse(event.data);
      if (type !== "bars.update") return;
      const bar = { ...payload.payload, time: payload.payload.time / 1000 };
      series.update(candle(bar));
      volume.update({ time: bar.time, value: bar.volume });
      live.push([bar.time, bar.open, bar.high, bar.low, bar.close]);
      if (live.length >= 4) enough();
    };
  });
  chart.timeScale().setVisibleLogicalRange({ from: bars.length - 150, to: bars.length + 5 });
  await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
  const drawn = series.data().map((bar) => [bar.time, bar.open, bar.high, bar.low, bar.close]);
  let complaint = "";
  try {
    const wrong = [{ time: 2, value: 1 }, { time: 1, value: 1 }];
    chart.addSeries(LightweightCharts.LineSeries).setData(wrong);
  } catch (error) {
    complaint = String(error);
  }
  return { drawn, history: bars.length, live, complaint };
})().then((found) => done({ found }), (error) => done({ error: String(error.stack) }));
"""


@once
@pytest.mark.browser
async def test_charting_library_that_checks_its_input_draws_history_and_live_bars(
    fleet: Fleet, person: Person, browser: WebDriver, tmp_path: Path
) -> None:
    if not LIBRARY.exists():
        if os.environ.get("CI"):
            pytest.fail("the charting library isn't installed: scripts/install.py test")
        pytest.skip("the charting library isn't installed: scripts/install.py test")
    picture = Path(os.environ.get("TEST_PICTURES", tmp_path)) / f"chart-{fleet.port}.png"

    def run() -> tuple[dict[str, Any], list[Any]]:
        signed_in(browser, fleet, person)
        browser.get_log("browser")
        browser.execute_script(
            LIBRARY.read_text() + "\nwindow.LightweightCharts ??= LightweightCharts"
        )
        answer: dict[str, Any] = browser.execute_async_script(DRAW)
        browser.save_screenshot(str(picture))
        return answer, browser.get_log("browser")

    answer, console = await asyncio.to_thread(run)
    assert "error" not in answer, answer["error"]
    # The platform's page forbids inline styles, which the library would add; it draws without.
    complaints = [line for line in console if line["source"] != "security"]
    assert complaints == []
    found = answer["found"]
    assert "asc ordered" in found["complaint"]
    assert found["history"] == 3000
    ensure_continued(found["drawn"], found["live"])
    assert abs(found["drawn"][-1][0] - time.time()) < 120
    assert picture.stat().st_size > 10_000
