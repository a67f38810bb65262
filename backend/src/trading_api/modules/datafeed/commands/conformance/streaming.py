"""The chunked stream of trades, quotes and days."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

from trading_api.modules.datafeed.commands.conformance.rules import (
    BrokenRuleError,
    NotApplicableError,
    Run,
    ensure,
    rule,
)

FIELDS = {
    "t": {"f", "id", "p", "s", "t"},
    "q": {"f", "id", "t", "ap", "as", "bp", "bs"},
    "d": {"f", "id", "o", "h", "l", "c", "v", "t"},
}
DELAY_SECONDS_MAX = 5.0
MISMATCH_MAX = 0.05


@dataclass(frozen=True, slots=True)
class Recording:
    """What came during one stretch of the stream.

    Attributes:
        lines: parsed lines with the instant at which each arrived.
        ended: the server closed the stream.
        headers: of the answer.
        http_version: such as ``HTTP/1.1``.
    """

    lines: list[tuple[float, dict[str, Any]]]
    ended: bool
    headers: httpx.Headers
    http_version: str


@contextlib.asynccontextmanager
async def _opened(run: Run) -> AsyncIterator[httpx.Response]:
    timeout = httpx.Timeout(10.0, read=max(10.0, run.settings.wait_seconds * 2))
    async with run.server.client.stream("GET", "streaming", timeout=timeout) as response:
        if response.status_code == 404:
            raise NotApplicableError("the server has no stream")
        ensure(response.status_code == 200, f"/streaming answers {response.status_code}")
        yield response


async def record(run: Run) -> Recording:
    """Listen for the run's wait, or return what an earlier test heard."""
    if run.recording is None:
        run.recording = await _listen(run)
    recording: Recording = run.recording
    return recording


async def _listen(run: Run) -> Recording:
    lines: list[tuple[float, dict[str, Any]]] = []
    ended = False
    async with _opened(run) as response:
        try:
            async with asyncio.timeout(run.settings.wait_seconds):
                async for text in response.aiter_lines():
                    if not text.strip():
                        continue
                    try:
                        line = json.loads(text)
                    except ValueError:
                        raise BrokenRuleError(f"a line isn't JSON: {text[:80]!r}") from None
                    ensure(isinstance(line, dict), f"a line is no object: {text[:80]!r}")
                    lines.append((time.time(), line))
                ended = True
        except TimeoutError:
            pass
        return Recording(lines, ended, response.headers, response.http_version)


def _of(recording: Recording, kind: str) -> list[tuple[float, dict[str, Any]]]:
    return [each for each in recording.lines if each[1].get("f") == kind]


@rule("streamingFieldsFormat", dialects=["tv"], shows="Live prices stand still.")
async def _fields(run: Run) -> None:
    recording = await record(run)
    ensure(recording.lines, "nothing came")
    for _, line in recording.lines:
        kind = line.get("f")
        ensure(kind in FIELDS, f"a line of an unknown kind: {line}")
        missing = FIELDS[str(kind)] - set(line)
        ensure(not missing, f"a line without {', '.join(sorted(missing))}: {line}")
        if kind == "t":
            ensure(line["s"] > 0, f"a trade of size {line['s']}")


@rule(
    "streamingAskBidQuoteTradeExistence",
    dialects=["tv"],
    shows="There is no last price, or no bid and ask beside it.",
)
async def _existence(run: Run) -> None:
    recording = await record(run)
    for kind, name in (("t", "trade"), ("q", "quote")):
        ensure(_of(recording, kind), f"no {name} came in {run.settings.wait_seconds:g} s")
    for _, line in _of(recording, "q"):
        ensure(line["bp"] <= line["ap"], f"a bid above its ask: {line}")


@rule("streamingDailyBarsUpdate", dialects=["tv"], shows="The day's high and low stand still.")
async def _daily(run: Run) -> None:
    days = _of(await record(run), "d")
    ensure(days, f"no daily bar came in {run.settings.wait_seconds:g} s")
    for _, line in days:
        right = line["l"] <= min(line["o"], line["c"]) <= max(line["o"], line["c"]) <= line["h"]
        ensure(right, f"high and low don't enclose open and close: {line}")


@rule(
    "streamingHistoryEquality",
    dialects=["tv"],
    shows="Bars change their shape when the page is loaded again.",
)
async def _equality(run: Run) -> None:
    recording = await record(run)
    trades: dict[tuple[str, int], list[float]] = {}
    for _, line in _of(recording, "t"):
        trades.setdefault((line["id"], int(line["t"]) // 60 * 60), []).append(line["p"])
    looked = wrong = 0
    for (ticker, minute), prices in trades.items():
        bars = await run.server.history(ticker, "1", minute, minute)
        if not bars.rows():
            raise BrokenRuleError(f"{bars.url}: no bar where {len(prices)} trades came")
        _, _, high, low, _ = bars.rows()[0]
        looked += len(prices)
        wrong += sum(not low <= price <= high for price in prices)
    if not looked:
        raise NotApplicableError("no trade came")
    share = wrong / looked
    ensure(share <= MISMATCH_MAX, f"{share:.0%} of {looked} trades lie outside of their bars")


@rule("streamingNoDelays", dialects=["tv"], shows="Prices come late.")
async def _delays(run: Run) -> None:
    recording = await record(run)
    late = [arrived - line["t"] for arrived, line in _of(recording, "t")]
    if not late:
        raise NotApplicableError("no trade came")
    ensure(max(late) <= DELAY_SECONDS_MAX, f"a trade came {max(late):.1f} s after its time")


@rule(
    "streamingPermanentConnection",
    dialects=["tv"],
    shows="Prices stop now and then until the connection is made again.",
)
async def _permanent(run: Run) -> None:
    recording = await record(run)
    ensure(not recording.ended, f"the stream ended within {run.settings.wait_seconds:g} s")


@rule("streamingSymbolsCheck", dialects=["tv"], shows="Some symbols never move.")
async def _known_symbols(run: Run) -> None:
    known = {each.ticker for each in run.symbols}
    seen = {str(line.get("id")) for _, line in (await record(run)).lines}
    ensure(seen, "nothing came")
    ensure(seen & known, f"only symbols came that nobody offers: {sorted(seen)[:3]}")


@rule("streamingTimeGrow", dialects=["tv"], shows="The newest bar jumps back.")
async def _grows(run: Run) -> None:
    last: dict[tuple[str, str], float] = {}
    for _, line in (await record(run)).lines:
        key = str(line.get("f")), str(line.get("id"))
        now = float(line.get("t", 0))
        ensure(now >= last.get(key, 0), f"an earlier time after a later one: {line}")
        last[key] = now


@rule(
    "streamingTransferEncodingHeader",
    dialects=["tv"],
    shows="Prices come in bursts: something on the way collects the stream.",
)
async def _chunked(run: Run) -> None:
    async with _opened(run) as response:
        encoding = response.headers.get("transfer-encoding", "")
        ensure(encoding == "chunked", f"transfer-encoding is {encoding!r}, not chunked")
        ensure(response.http_version == "HTTP/1.1", f"it speaks {response.http_version}")


@rule(
    "streamingUnauthorizedRequest",
    dialects=["tv"],
    shows="Data that must be paid for is open to all.",
)
async def _refused(run: Run) -> None:
    if not run.settings.has_auth:
        raise NotApplicableError("the server needs no sign-in")
    async with run.server.anonymous.stream("GET", "streaming") as response:
        ensure(
            response.status_code == 401,
            f"/streaming without a sign-in answers {response.status_code}, not 401",
        )
