"""A small market-data server in both dialects that can be broken in one way at a time.

Minutes of a few days, one of them missing; days are built from them; the newest minute is open.
"""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

DAY = 86_400
NAME = "ONE"
TICKER = "TEST:ONE"
Row = tuple[float, ...]

DEFECTS: dict[str, tuple[str, str]] = {
    # UDF: defect → (dialect, the test that must catch it)
    "config_needs_sign_in": ("udf", "udfConfigResponseFields"),
    "config_without_search": ("udf", "udfConfigResponseFields"),
    "time_in_milliseconds": ("udf", "udfTimeFormat"),
    "symbol_without_minmov": ("udf", "symbolsResponseFields"),
    "symbol_of_no_zone": ("udf", "symbolsResponseFields"),
    "symbol_as_text": ("udf", "symbolsResponseFields"),
    "session_unreadable": ("udf", "symbolsResponseFields"),
    "search_in_an_object": ("udf", "udfSearchIsAnArray"),
    "errors_as_details": ("udf", "udfErrorsAreInItsShape"),
    "quotes_drop_unknown": ("udf", "udfQuotesFormat"),
    "quotes_crossed": ("udf", "udfQuotesFormat"),
    "marks_between_bars": ("udf", "udfMarksFormat"),
    "symbols_open_to_all": ("udf", "symbolsUnauthorizedRequest"),
    "history_open_to_all": ("udf", "historyUnauthorizedRequest"),
    "refusal_of_another_shape": ("udf", "historyUnauthorizedRequest"),
    "pointer_before_all": ("udf", "historyBeyondLeftBoundary"),
    "countback_ignored": ("udf", "historyCountbackMinutes"),
    "countback_one_less": ("udf", "historyCountbackMinutes"),
    "to_inclusive": ("udf", "historyCountbackMinutes"),
    "narrow_days_empty": ("udf", "historyDailyHistoryAvailability"),
    "from_equal_to_empty": ("udf", "historyFromEqTo"),
    "future_days": ("udf", "historyFutureDaily"),
    "future_minutes": ("udf", "historyFutureMinutes"),
    "open_bar_missing": ("udf", "historyFutureMinutes"),
    "past_changes": ("udf", "historyNoDataChanges"),
    "gap_without_pointer": ("udf", "historyNoDataWithNb"),
    "gap_points_forward": ("udf", "historyNoDataWithNb"),
    "window_loses_its_first": ("udf", "historyOutsideBarsInclusion"),
    "days_of_other_prices": ("udf", "historyPriceMatch"),
    "noise": ("udf", "historyRepeatability"),
    "small_windows_differ": ("udf", "historySeveralShortQueriesEqualsLargeQuery"),
    "unsorted": ("udf", "historyTimeCorrectness"),
    "high_below_close": ("udf", "historyTimeCorrectness"),
    "columns_differ": ("udf", "historyTimeCorrectness"),
    "ok_without_bars": ("udf", "udfOkBringsBars"),
    "never_ends": ("udf", "udfPagesToTheStart"),
    # the data part of Broker REST
    "token_always_the_same": ("tv", "authNewTokenPerRequest"),
    "token_expired": ("tv", "authFieldsFormat"),
    "groups_open_to_all": ("tv", "groupsUnauthorizedRequest"),
    "groups_in_capitals": ("tv", "groupsResponseFields"),
    "nb_missing": ("tv", "historyNoDataWithNb"),
    "stream_open_to_all": ("tv", "streamingUnauthorizedRequest"),
    "stream_of_half_lines": ("tv", "streamingFieldsFormat"),
    "stream_without_quotes": ("tv", "streamingAskBidQuoteTradeExistence"),
    "stream_without_days": ("tv", "streamingDailyBarsUpdate"),
    "stream_of_other_prices": ("tv", "streamingHistoryEquality"),
    "stream_late": ("tv", "streamingNoDelays"),
    "stream_ends": ("tv", "streamingPermanentConnection"),
    "stream_of_strangers": ("tv", "streamingSymbolsCheck"),
    "stream_goes_back": ("tv", "streamingTimeGrow"),
    "stream_of_one_piece": ("tv", "streamingTransferEncodingHeader"),
}


class ConformanceServer:
    """The server; ``broken`` names a defect of ``DEFECTS``, "" for none."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.tokens = itertools.count()
        self.questions = itertools.count()
        today = int(time.time()) // DAY * DAY
        self.start = today - 3 * DAY
        self.hole = int(time.time()) // 60 * 60 - 100 * 60
        self.app = Starlette(
            routes=[
                Route("/udf/{path:path}", self._udf),
                Route("/tv/{path:path}", self._tv, methods=["GET", "POST"]),
            ]
        )

    def rows(self, resolution: str, now: float) -> list[Row]:
        """Return every bar that has begun, the newest one open."""
        minutes = [
            self._minute(start)
            for start in range(self.start, int(now) + 1, 60)
            if start != self.hole
        ]
        if self.broken == "open_bar_missing":
            minutes = minutes[:-3]
        if resolution == "1":
            return minutes
        days: list[Row] = []
        for day, found in itertools.groupby(minutes, lambda row: int(row[0]) // DAY * DAY):
            rows = list(found)
            close = rows[-1][4] + (0.01 if self.broken == "days_of_other_prices" else 0)
            high, low = max(row[2] for row in rows), min(row[3] for row in rows)
            days.append((day, rows[0][1], max(high, close), low, close))
        return days

    def _minute(self, start: int) -> Row:
        open_, close = _price(start), _price(start + 60)
        return (start, open_, max(open_, close) + 0.05, min(open_, close) - 0.05, close)

    async def _udf(self, request: Request) -> Response:
        path, query, now = request.path_params["path"], request.query_params, time.time()
        broken = self.broken
        refused = JSONResponse({"s": "error", "errmsg": "sign in"}, 401)
        if path == "config":
            if broken == "config_needs_sign_in" and not _signed_in(request):
                return refused
            has_search = broken != "config_without_search"
            return JSONResponse(
                {
                    "supports_search": has_search,
                    "supports_group_request": False,
                    "supports_marks": True,
                    "supports_timescale_marks": True,
                    "supports_time": True,
                    "supported_resolutions": ["1", "1D"],
                }
            )
        if path == "time":
            return PlainTextResponse(
                str(int(now * (1000 if broken == "time_in_milliseconds" else 1)))
            )
        is_open = broken == f"{path}_open_to_all"
        if not _signed_in(request) and not is_open:
            if broken == "refusal_of_another_shape":
                return JSONResponse({"detail": "sign in"}, 401)
            return refused
        match path:
            case "symbols":
                return self._symbol(query.get("symbol", ""))
            case "search":
                found = [_match()] if query.get("query", "") in NAME else []
                is_object = broken == "search_in_an_object"
                return JSONResponse({"d": found} if is_object else found)
            case "quotes":
                return self._quotes(query.get("symbols", ""), now)
            case "marks":
                return JSONResponse([])
            case "timescale_marks":
                shift = 3_600 if broken == "marks_between_bars" else 0
                mark = {"id": "1", "time": self.start + DAY + shift, "color": "red", "label": "S"}
                return JSONResponse([mark])
            case "history":
                return self._history(query, now)
        return self._error("no such path")

    def _error(self, text: str) -> Response:
        if self.broken == "errors_as_details":
            return JSONResponse({"detail": text}, 404)
        return JSONResponse({"s": "error", "errmsg": text}, 404)

    def _symbol(self, name: str) -> Response:
        if name not in (NAME, TICKER):
            return self._error("unknown symbol")
        fields = _fields()
        match self.broken:
            case "symbol_without_minmov":
                del fields["minmov"]
            case "symbol_of_no_zone":
                fields["timezone"] = "Mars/Olympus"
            case "session_unreadable":
                fields["session"] = "nine to five"
            case "symbol_as_text":
                return PlainTextResponse(json.dumps(fields))
        return JSONResponse(fields)

    def _quotes(self, symbols: str, now: float) -> Response:
        last = _price(int(now))
        bid = last + (1 if self.broken == "quotes_crossed" else -0.01)
        found = []
        for name in symbols.split(","):
            if name in (NAME, TICKER):
                values = {"lp": last, "bid": bid, "ask": last + 0.01}
                found.append({"s": "ok", "n": name, "v": values})
            elif self.broken != "quotes_drop_unknown":
                found.append({"s": "error", "n": name, "v": {}})
        return JSONResponse({"s": "ok", "d": found})

    def _history(self, query: Any, now: float) -> Response:
        resolution, broken = query.get("resolution"), self.broken
        if query.get("symbol") not in (NAME, TICKER) or resolution not in ("1", "1D"):
            return self._error("unknown symbol or resolution")
        rows = self.rows(resolution, now)
        from_, to = int(query["from"]), int(query["to"])
        if broken == "future_minutes" and resolution == "1":
            rows += [self._minute(int(rows[-1][0]) + 60 * i) for i in range(1, 20)]
        if broken == "future_days" and resolution == "1D":
            rows += [(rows[-1][0] + DAY * i, *rows[-1][1:]) for i in range(1, 20)]
        end = to + 1 if broken == "to_inclusive" or from_ == to else to
        before = [row for row in rows if row[0] < end]
        count = query.get("countback")
        if count is not None and broken != "countback_ignored":
            wanted = int(count) - (broken == "countback_one_less")
            found = before[-wanted:] if wanted else []
            if broken == "never_ends" and not found and from_ != 0:
                found = rows[:1]
        else:
            found = [row for row in before if row[0] >= from_]
        return JSONResponse(self._columns(self._spoiled(found, from_, to, resolution), before))

    def _spoiled(self, rows: list[Row], from_: int, to: int, resolution: str) -> list[Row]:
        match self.broken:
            case "narrow_days_empty" if resolution == "1D" and to - from_ <= DAY:
                return []
            case "from_equal_to_empty" if from_ == to:
                return []
            case "window_loses_its_first" if len(rows) > 1:
                return rows[1:]
            case "small_windows_differ" if len(rows) == 20:
                return [(row[0], *(price + 0.01 for price in row[1:])) for row in rows]
            case "unsorted" if len(rows) > 2:
                return [rows[1], rows[0], *rows[2:]]
            case "high_below_close" if rows:
                return [(*row[:2], row[4] - 1, *row[3:]) for row in rows]
            case "noise" | "past_changes":
                shift = next(self.questions) / 1000
                return [(row[0], *(price + shift for price in row[1:])) for row in rows]
        return rows

    def _columns(self, rows: list[Row], before: list[Row]) -> dict[str, Any]:
        if not rows:
            pointer = before[-1][0] if before else None
            match self.broken:
                case "ok_without_bars":
                    return {"s": "ok", "t": [], "o": [], "h": [], "l": [], "c": []}
                case "pointer_before_all" if pointer is None:
                    pointer = self.start
                case "gap_without_pointer":
                    pointer = None
                case "gap_points_forward" if pointer is not None:
                    pointer += 120
            return {"s": "no_data"} | ({} if pointer is None else {"nextTime": pointer})
        columns: dict[str, Any] = {
            name: [row[index] for row in rows] for index, name in enumerate("tohlc")
        }
        if self.broken == "columns_differ":
            columns["c"] = columns["c"][1:]
        return {"s": "ok", **columns}

    async def _tv(self, request: Request) -> Response:
        path, query, now = request.path_params["path"], request.query_params, time.time()
        broken = self.broken
        if path == "authorize":
            number = 0 if broken == "token_always_the_same" else next(self.tokens)
            life = -5 if broken == "token_expired" else 3_600
            token = {"access_token": f"t{number}", "expiration": int(now) + life}
            return JSONResponse({"s": "ok", "d": token})
        opened = {"groups_open_to_all": "groups", "stream_open_to_all": "streaming"}
        if not _signed_in(request) and opened.get(broken) != path:
            return JSONResponse({"s": "error", "errmsg": "sign in"}, 401)
        match path:
            case "groups":
                name = "TEST_ALL" if broken == "groups_in_capitals" else "test_all"
                return JSONResponse({"s": "ok", "d": {"groups": [{"id": name}]}})
            case "symbol_info":
                table = {
                    "symbol": [NAME], "ticker": [TICKER], "description": ["one"], "type": "crypto",
                    "session-regular": "24x7", "timezone": "Etc/UTC", "pricescale": 100,
                    "minmovement": 1, "has-intraday": True, "intraday-multipliers": [["1"]],
                }  # fmt: skip
                return JSONResponse({"s": "ok", **table})
            case "history":
                rows = self.rows(query["resolution"], now)
                from_, to = int(query["from"]), int(query["to"])
                before = [row for row in rows if row[0] <= to]
                found = [row for row in before if row[0] >= from_]
                answer = self._columns(found, before)
                if "nextTime" in answer:
                    pointer = answer.pop("nextTime")
                    answer |= {} if broken == "nb_missing" else {"nb": pointer}
                return JSONResponse(answer)
            case "streaming" if broken == "stream_of_one_piece":
                text = "".join([_line(each) async for each in self._stream(3)])
                return PlainTextResponse(text)
            case "streaming":
                lines = 1 if broken == "stream_ends" else 10_000
                return StreamingResponse(
                    (_line(each) async for each in self._stream(lines)),
                    media_type="application/json",
                )
        return JSONResponse({"s": "error", "errmsg": "no such path"}, 404)

    async def _stream(self, count: int) -> AsyncIterator[dict[str, Any]]:
        broken = self.broken
        ticker = "TEST:OTHER" if broken == "stream_of_strangers" else TICKER
        day = self.rows("1D", time.time())[-1]
        for number in range(count):
            now = time.time()
            at = now - (10 if broken == "stream_late" else 0)
            if broken == "stream_goes_back":
                at = now - number
            price = _price(int(now) // 60 * 60) + (5 if broken == "stream_of_other_prices" else 0)
            trade: dict[str, Any] = {"f": "t", "id": ticker, "p": price, "s": 1, "t": at}
            if broken == "stream_of_half_lines":
                del trade["s"]
            yield trade
            if broken != "stream_without_quotes":
                sides = {"ap": price + 0.01, "as": 1, "bp": price - 0.01, "bs": 1}
                yield {"f": "q", "id": ticker, "t": at, **sides}
            if broken != "stream_without_days":
                values = dict(zip("ohlc", day[1:], strict=True))
                yield {"f": "d", "id": ticker, "t": day[0], "v": 1, **values}
            await asyncio.sleep(0.05)


def _price(at: int) -> float:
    return 100 + (at // 60 * 7919) % 97 / 100


def _signed_in(request: Request) -> bool:
    return "authorization" in request.headers


def _line(each: dict[str, Any]) -> str:
    return json.dumps(each, separators=(",", ":")) + "\n"


def _match() -> dict[str, str]:
    return {
        "symbol": NAME,
        "full_name": TICKER,
        "ticker": TICKER,
        "description": "one",
        "exchange": "TEST",
        "type": "crypto",
    }


def _fields() -> dict[str, Any]:
    return {
        "name": NAME,
        "ticker": TICKER,
        "description": "one",
        "type": "crypto",
        "session": "24x7",
        "timezone": "Etc/UTC",
        "exchange": "TEST",
        "listed_exchange": "TEST",
        "minmov": 1,
        "pricescale": 100,
        "has_intraday": True,
        "intraday_multipliers": ["1"],
        "supported_resolutions": ["1", "1D"],
        "data_status": "streaming",
    }
