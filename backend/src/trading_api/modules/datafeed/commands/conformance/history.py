"""Bars: exact counts, edges, gaps, the past that stays, no future."""

import asyncio
import itertools
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from trading_api.modules.datafeed.commands.conformance.rules import (
    NotApplicableError,
    Run,
    ensure,
    rule,
)
from trading_api.modules.datafeed.commands.conformance.server import DAY_SECONDS, Bars, SymbolInfo

PAGES_MAX = 40
_HOURS = re.compile(r"([0-9]{2})([0-9]{2})-([0-9]{2})([0-9]{2})", re.ASCII)


async def latest(run: Run, ticker: str, resolution: str, count: int) -> list[tuple[float, ...]]:
    """Return up to ``count`` of the newest bars, found by windows that follow the pointers."""
    to, rows = await run.server.now() + 1, list[tuple[float, ...]]()
    width = count * step_of(resolution)
    for _ in range(PAGES_MAX):
        bars = await run.server.history(ticker, resolution, max(0, to - width), to)
        if bars.times:
            rows = bars.rows() + rows
            to = bars.times[0]
        elif bars.previous is not None:
            ensure(bars.previous < to, f"{bars.url}: the pointer {bars.previous} isn't earlier")
            to = bars.previous + 1
        else:
            break
        if len(rows) >= count:
            break
    return rows[-count:]


def step_of(resolution: str) -> int:
    """Return a resolution's length in seconds; of days and minutes only."""
    return DAY_SECONDS if resolution.endswith("D") else int(resolution) * 60


def shown(time: float) -> str:
    """Return an instant for people."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M")


def resolutions_of(symbol: SymbolInfo) -> list[str]:
    """Return the finest resolution within the day, where there is one, and the day."""
    return [*([str(symbol.finest)] if symbol.finest else []), "1D"]


@rule(
    "historyBeyondLeftBoundary",
    shows="The chart asks for ever when it is scrolled to its beginning.",
)
async def _left_boundary(run: Run) -> None:
    for symbol in run.symbols:
        for resolution in resolutions_of(symbol):
            bars = await run.server.history(symbol.ticker, resolution, 0, DAY_SECONDS)
            ensure(not bars.times, f"{bars.url}: bars of 1970")
            if run.server.dialect == "udf":
                ensure(bars.is_no_data, f"{bars.url}: 'ok' without bars, before all bars")
            ensure(
                bars.previous is None,
                f"{bars.url}: points to {bars.previous}, before its first bar",
            )


@rule(
    "historyCountbackMinutes",
    dialects=["udf"],
    shows="The chart loads in crumbs, one request after another, or repeats for ever.",
)
async def _countback(run: Run) -> None:
    for symbol in run.symbols:
        for resolution in resolutions_of(symbol):
            now = await run.server.now()
            rows = await latest(run, symbol.ticker, resolution, 30)
            if not rows:
                continue
            for to in (now + 1, int(rows[len(rows) // 2][0])):
                for count in (1, 7, 300):
                    bars = await run.server.history(
                        symbol.ticker, resolution, to - 60, to, countback=count
                    )
                    times = bars.times
                    ensure(all(t < to for t in times), f"{bars.url}: a bar at or after 'to'")
                    if len(times) == count:
                        continue
                    ensure(len(times) < count, f"{bars.url}: {len(times)} bars, not {count}")
                    edge = times[0] if times else to
                    before = await run.server.history(
                        symbol.ticker, resolution, 0, edge, countback=1
                    )
                    ensure(
                        not before.times and before.previous is None,
                        f"{bars.url}: {len(times)} bars, not {count}, though earlier ones exist",
                    )


@rule(
    "historyDailyHistoryAvailability",
    shows="Days appear or vanish as the chart is zoomed.",
)
async def _daily_availability(run: Run) -> None:
    looked = 0
    for symbol in run.symbols:
        rows = await latest(run, symbol.ticker, "1D", 60)
        for row in rows[:: max(1, len(rows) // 4)]:
            time = int(row[0])
            narrow = await run.server.history(symbol.ticker, "1D", time, time + DAY_SECONDS)
            ensure(
                narrow.times == [time],
                f"{narrow.url}: {len(narrow.times)} bars; a wider window has one at {shown(time)}",
            )
            looked += 1
    if not looked:
        raise NotApplicableError("no symbol has daily bars")
    run.note(f"{looked} days")


@rule(
    "historyFromEqTo",
    shows="A single bar that is asked for stays a hole.",
)
async def _from_equals_to(run: Run) -> None:
    for symbol in run.symbols:
        for resolution in resolutions_of(symbol):
            rows = await latest(run, symbol.ticker, resolution, 5)
            if len(rows) < 2:
                continue
            time = int(rows[-2][0])
            bars = await run.server.history(symbol.ticker, resolution, time, time)
            ensure(bars.times == [time], f"{bars.url}: {bars.times}, not exactly that bar")


async def _future(run: Run, resolution_of: str) -> None:
    looked = 0
    for symbol in run.symbols:
        resolution = "1D" if resolution_of == "day" else str(symbol.finest or "")
        if not resolution:
            continue
        step, now = step_of(resolution), await run.server.now()
        bars = await run.server.history(symbol.ticker, resolution, now - 5 * step, now + 50 * step)
        after = await run.server.now()
        late = [time for time in bars.times if time > after]
        ensure(
            not late,
            f"{bars.url}: {len(late)} bars from the future, at {shown(late[-1] if late else 0)}",
        )
        beyond = await run.server.history(
            symbol.ticker, resolution, now + 10 * step, now + 20 * step
        )
        ensure(not beyond.times, f"{beyond.url}: bars of a future window")
        if symbol.fields.get("data_status") == "streaming":
            open_ = bool(bars.times) and bars.times[-1] > now - step - 1
            ensure(
                open_ or (resolution_of == "day" and bars.times),
                f"{bars.url}: the newest bar isn't the open one",
            )
        looked += 1
    if not looked:
        raise NotApplicableError("no symbol has such bars")


@rule("historyFutureDaily", shows="A day is drawn that hasn't begun.")
async def _future_daily(run: Run) -> None:
    await _future(run, "day")


@rule(
    "historyFutureMinutes",
    shows="Bars are drawn ahead of the time, or the newest one is missing.",
)
async def _future_minutes(run: Run) -> None:
    run.with_minutes()
    await _future(run, "minute")


@rule(
    "historyNoDataChanges",
    shows="Bars that somebody looks at change under their eyes.",
)
async def _past_stays(run: Run) -> None:
    questions = []
    for symbol in run.symbols:
        for resolution in resolutions_of(symbol):
            rows = await latest(run, symbol.ticker, resolution, 20)
            if len(rows) < 3:
                continue
            from_, to = int(rows[0][0]), int(rows[-1][0]) + 1
            bars = await run.server.history(symbol.ticker, resolution, from_, to)
            questions.append((symbol.ticker, resolution, from_, bars.rows()[:-1]))
    await asyncio.sleep(run.settings.wait_seconds)
    for ticker, resolution, from_, first in questions:
        now = await run.server.now()
        bars = await run.server.history(ticker, resolution, from_, now + 1)
        ensure(
            bars.rows()[: len(first)] == first,
            f"{bars.url}: after {run.settings.wait_seconds:g} s closed bars differ",
        )
    run.note(f"{len(questions)} windows, {run.settings.wait_seconds:g} s apart")


@rule(
    "historyNoDataWithNb",
    shows="The chart stops at a weekend or a holiday: nothing tells it where earlier bars are.",
)
async def _gap(run: Run) -> None:
    found = 0
    for symbol in run.symbols:
        for resolution in resolutions_of(symbol):
            rows = await latest(run, symbol.ticker, resolution, 400)
            step = step_of(resolution)
            for before, after in itertools.pairwise(rows):
                if after[0] - before[0] <= step:
                    continue
                from_, to = int(before[0]) + step, int(after[0])
                bars = await run.server.history(symbol.ticker, resolution, from_, to)
                ensure(not bars.times, f"{bars.url}: bars where a wider window has none")
                ensure(
                    bars.previous is None or bars.previous < from_,
                    f"{bars.url}: points to {bars.previous}, which is not before the window",
                )
                ensure(
                    bars.previous == int(before[0]),
                    f"{bars.url}: points to {bars.previous}; the bar before is at {int(before[0])}",
                )
                found += 1
                break
    if not found:
        raise NotApplicableError("no symbol has a gap in its newest bars; name one with --symbols")
    run.note(f"{found} gaps")


@rule(
    "historyOutsideBarsInclusion",
    shows="A bar is drawn twice, or is missing, where two loaded windows meet.",
)
async def _edges(run: Run) -> None:
    for symbol in run.with_minutes():
        rows = await latest(run, symbol.ticker, str(symbol.finest), 60)
        if len(rows) < 53:
            continue
        times = [int(row[0]) for row in rows]
        bars = await run.server.history(symbol.ticker, str(symbol.finest), times[1], times[51])
        ensure(len(bars.times) == 50, f"{bars.url}: {len(bars.times)} bars in a window of 50")
        ensure(bars.times == times[1:51], f"{bars.url}: the window's edges are wrong")


@rule(
    "historyPriceMatch",
    shows="The day's candle disagrees with its own minutes: two charts of one day differ.",
)
async def _prices(run: Run) -> None:
    looked = 0
    for symbol in run.with_minutes():
        days = await latest(run, symbol.ticker, "1D", 4)
        for day in days[:-1][-2:]:
            window = _trading_day(symbol, int(day[0]))
            if window is None:
                continue
            bars = await run.server.history(symbol.ticker, str(symbol.finest), *window)
            rows = bars.rows()
            if not rows:
                continue
            built = (rows[0][1], max(r[2] for r in rows), min(r[3] for r in rows), rows[-1][4])
            ensure(
                all(
                    abs(a - b) < 1e-9 * max(1.0, abs(b))
                    for a, b in zip(built, day[1:5], strict=True)
                ),
                f"{symbol.ticker} on {shown(day[0])}: the day says {day[1:5]}, its bars {built}",
            )
            looked += 1
    if not looked:
        raise NotApplicableError("no complete day with bars within it")
    run.note(f"{looked} days")


def _trading_day(symbol: SymbolInfo, day: int) -> tuple[int, int] | None:
    """Return when the trading day named by 00:00 UTC opens and ends, seconds."""
    zone = ZoneInfo(symbol.fields["timezone"])
    session = str(symbol.fields["session"])
    date = datetime.fromtimestamp(day, UTC).replace(tzinfo=zone)
    if session == "24x7":
        return int(date.timestamp()), int((date + timedelta(days=1)).timestamp())
    hours = _HOURS.match(session)
    if hours is None or "," in session or "|" in session:
        return None
    opening, closing = (timedelta(hours=int(hours[i]), minutes=int(hours[i + 1])) for i in (1, 3))
    overnight = opening >= closing
    begins = date + opening - timedelta(days=1 if overnight else 0)
    return int(begins.timestamp()), int((date + closing).timestamp())


@rule(
    "historyRepeatability",
    shows="Reloading the page changes the past.",
)
async def _repeatability(run: Run) -> None:
    for symbol in run.symbols:
        for resolution in resolutions_of(symbol):
            rows = await latest(run, symbol.ticker, resolution, 20)
            if len(rows) < 3:
                continue
            params = (symbol.ticker, resolution, int(rows[0][0]), int(rows[-1][0]))
            answers = [await run.server.history(*params) for _ in range(3)]
            same = all(each.columns == answers[0].columns for each in answers)
            ensure(same, f"{answers[0].url}: three answers to the same question differ")


@rule(
    "historySeveralShortQueriesEqualsLargeQuery",
    shows="What is drawn depends on how far somebody scrolled at a time.",
)
async def _many_small(run: Run) -> None:
    for symbol in run.with_minutes():
        resolution = str(symbol.finest)
        rows = await latest(run, symbol.ticker, resolution, 202)
        if len(rows) < 202:
            continue
        times = [int(row[0]) for row in rows]
        large = await run.server.history(symbol.ticker, resolution, times[0], times[200])
        small: list[tuple[float, ...]] = []
        for start in range(0, 200, 20):
            part = await run.server.history(
                symbol.ticker, resolution, times[start], times[start + 20]
            )
            small += part.rows()
        ensure(small == large.rows(), f"{large.url}: ten windows of 20 bars give other bars")


@rule(
    "historyTimeCorrectness",
    shows="The chart stops with an error: its bars must ascend, and lie within the window.",
)
async def _times(run: Run) -> None:
    for symbol in run.symbols:
        for resolution in resolutions_of(symbol):
            now = await run.server.now()
            rows = await latest(run, symbol.ticker, resolution, 150)
            if not rows:
                continue
            from_, to = int(rows[0][0]), min(int(rows[-1][0]) + step_of(resolution), now + 1)
            _ensure_sound(await run.server.history(symbol.ticker, resolution, from_, to), from_, to)


def _ensure_sound(bars: Bars, from_: int, to: int) -> None:
    times = bars.times
    for before, after in itertools.pairwise(times):
        ensure(after > before, f"{bars.url}: {shown(after)} follows {shown(before)}")
    outside = [time for time in times if not from_ <= time < to]
    ensure(not outside, f"{bars.url}: bars outside of the window, at {outside[:3]}")
    for time, open_, high, low, close in bars.rows():
        ensure(
            0 < low <= min(open_, close) <= max(open_, close) <= high,
            f"{bars.url}: at {shown(time)} high and low don't enclose open and close",
        )


@rule(
    "udfOkBringsBars",
    dialects=["udf"],
    shows="The chart keeps asking: an empty 'ok' tells it neither to go on nor to stop.",
)
async def _ok_brings_bars(run: Run) -> None:
    for symbol in run.symbols:
        for resolution in resolutions_of(symbol):
            now = await run.server.now()
            for window in ((0, 1), (now + 10 * DAY_SECONDS, now + 20 * DAY_SECONDS)):
                bars = await run.server.history(symbol.ticker, resolution, *window)
                ensure(bars.is_no_data or bars.times, f"{bars.url}: 'ok' without a bar")


@rule(
    "udfPagesToTheStart",
    dialects=["udf"],
    shows="Scrolling back stops early, loses bars, or draws some twice.",
)
async def _pages(run: Run) -> None:
    for symbol in run.symbols:
        to, times, requests = await run.server.now() + 1, list[int](), 0
        while True:
            bars = await run.server.history(symbol.ticker, "1D", to - 60, to, countback=400)
            requests += 1
            ensure(requests <= PAGES_MAX, f"{symbol.ticker}: {requests} requests and no beginning")
            if bars.times:
                times = bars.times + times
                to = bars.times[0]
            elif bars.previous is not None:
                to = bars.previous + 1
            else:
                break
        ensure(times == sorted(set(times)), f"{symbol.ticker}: bars twice or out of order")
        if times:
            whole = await run.server.history(
                symbol.ticker, "1D", 0, times[-1] + 1, countback=len(times)
            )
            capped = whole.times
            ensure(
                bool(capped) and times[-len(capped) :] == capped,
                f"{symbol.ticker}: pages give other days than one large answer",
            )
        run.note(f"{symbol.ticker} {len(times)} days in {requests} requests")
