"""A server under test, asked in its dialect, answered in one form."""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx

Dialect = Literal["udf", "tv"]

TIMEOUT_SECONDS = 15.0
DAY_SECONDS = 86_400
SYMBOLS_MAX = 8
"""Kinds of symbols looked at unless some are named; each costs every test some requests."""
_LISTS = ("supported-resolutions", "intraday-multipliers")
"""Columns whose values are lists themselves."""

_MINUTES = re.compile(r"[0-9]{1,4}", re.ASCII)


class AnswerError(Exception):
    """The answer can't be read as what its path must answer; the text says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer.

    Attributes:
        body: parsed JSON; None where it isn't JSON.
        url: the question, path and query.
    """

    status: int
    content_type: str
    text: str
    body: Any
    url: str


@dataclass(frozen=True, slots=True)
class Bars:
    """An answer of history.

    Attributes:
        is_no_data: it said so.
        previous: time of the nearest earlier bar that it named; None where it named none.
        columns: ``t``, ``o``, ``h``, ``l``, ``c`` and what else came; empty without bars.
    """

    is_no_data: bool
    previous: int | None
    columns: Mapping[str, list[float]]
    url: str

    @property
    def times(self) -> list[int]:
        """Starts of the bars, seconds."""
        return [int(each) for each in self.columns.get("t", [])]

    def rows(self) -> list[tuple[float, ...]]:
        """Return bars as (time, open, high, low, close)."""
        return (
            list(zip(*(self.columns[name] for name in "tohlc"), strict=True))
            if self.columns
            else []
        )


@dataclass(frozen=True, slots=True)
class SymbolInfo:
    """What a chart knows of a symbol.

    Attributes:
        ticker: what bars are asked with.
        fields: everything that was answered, names with underscores.
        finest: minutes of its finest bars within the day; None where it has none.
    """

    ticker: str
    fields: Mapping[str, Any]
    finest: int | None


class Server:
    """Asks a server.

    Args:
        client: has the server's address as its base, and the credentials in its headers.
        anonymous: the same without credentials.
        credentials: login and password, where the sign-in itself is to be tested.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        anonymous: httpx.AsyncClient,
        dialect: Dialect,
        credentials: tuple[str, str] | None = None,
    ) -> None:
        self.credentials = credentials
        self.client = client
        self.anonymous = anonymous
        self.dialect: Dialect = dialect

    async def ask(self, path: str, *, signed_in: bool = True, **params: Any) -> Answer:
        """Ask one path; any status is an answer."""
        client = self.client if signed_in else self.anonymous
        response = await client.get(path.lstrip("/"), params=params, timeout=TIMEOUT_SECONDS)
        url = f"/{path.lstrip('/')}"
        if response.request.url.query:
            url += f"?{response.request.url.query.decode()}"
        return Answer(
            response.status_code,
            response.headers.get("content-type", ""),
            response.text,
            _parsed(response.text),
            url,
        )

    async def now(self) -> int:
        """Return the server's time, seconds; this host's where it tells none."""
        if self.dialect == "udf":
            answer = await self.ask("/time")
            if isinstance(answer.body, int):
                return answer.body
        return int(time.time())

    async def history(
        self,
        symbol: str,
        resolution: str,
        from_: int,
        to: int,
        *,
        countback: int | None = None,
    ) -> Bars:
        """Return the bars that start in [from_, to).

        UDF's ``to`` is exclusive; the other dialect's is inclusive, so it is asked a second less.

        Raises:
            AnswerError: the answer isn't of the form that the dialect wants.
        """
        edge = to if self.dialect == "udf" or to == from_ else to - 1
        params: dict[str, Any] = {
            "symbol": symbol,
            "resolution": resolution,
            "from": from_,
            "to": edge,
        }
        if countback is not None:
            params["countback"] = countback
        return self._bars(await self.ask("/history", **params))

    async def symbol(self, name: str) -> SymbolInfo:
        """Return what the server tells of a symbol.

        Raises:
            AnswerError: it tells nothing of use.
        """
        answer = await self.ask("/symbols", symbol=name)
        body = answer.body
        if not isinstance(body, dict) or "s" in body or "name" not in body:
            raise AnswerError(f"{answer.url} answers {answer.text[:120]!r}, no symbol")
        return info_of(body)

    async def symbols(self, wanted: list[str]) -> list[SymbolInfo]:
        """Return the symbols to test with: those wanted, else one of each exchange and type."""
        if self.dialect == "tv":
            found = await self._symbol_table()
            return [each for each in found if not wanted or each.ticker in wanted][:SYMBOLS_MAX]
        if wanted:
            return [await self.symbol(name) for name in wanted]
        answer = await self.ask("/search", limit=30, query="", type="", exchange="")
        if not isinstance(answer.body, list):
            raise AnswerError(f"{answer.url} answers {answer.text[:120]!r}, not a list")
        kinds: dict[tuple[Any, Any], str] = {}
        for each in answer.body:
            name = each.get("ticker") or each.get("full_name") or each["symbol"]
            kinds.setdefault((each.get("exchange"), each.get("type")), name)
        return [await self.symbol(name) for name in list(kinds.values())[:SYMBOLS_MAX]]

    async def _symbol_table(self) -> list[SymbolInfo]:
        groups = (await self.ask("/groups")).body
        names = [each["id"] for each in _inner(groups).get("groups", [])]
        found: list[SymbolInfo] = []
        for group in names:
            table = _inner((await self.ask("/symbol_info", group=group)).body)
            count = len(table.get("symbol", []))
            for index in range(count):
                fields = {
                    name.replace("-", "_"): _cell(name, value, index, count)
                    for name, value in table.items()
                    if name != "s"
                }
                fields["name"] = fields["symbol"]
                fields.setdefault("session", fields.get("session_regular"))
                fields.setdefault("minmov", fields.get("minmovement"))
                found.append(info_of(fields))
        return found

    def _bars(self, answer: Answer) -> Bars:
        body = answer.body
        if not isinstance(body, dict) or body.get("s") not in ("ok", "no_data"):
            raise AnswerError(f"{answer.url} answers {answer.status} {answer.text[:160]!r}")
        pointer = body.get("nextTime", body.get("nb"))
        names = [name for name in "tohlcv" if isinstance(body.get(name), list)]
        columns = {name: body[name] for name in names}
        if columns and len({len(column) for column in columns.values()}) != 1:
            raise AnswerError(f"{answer.url}: the columns differ in length")
        if columns.get("t") and not {"o", "h", "l", "c"} <= set(columns):
            missing = sorted({"o", "h", "l", "c"} - set(columns))
            raise AnswerError(f"{answer.url}: the columns {', '.join(missing)} are missing")
        for name, column in columns.items():
            if not all(isinstance(each, int | float) for each in column):
                raise AnswerError(f"{answer.url}: column {name} holds something else than numbers")
        if body["s"] == "no_data" and columns.get("t"):
            raise AnswerError(f"{answer.url} says no_data and brings bars")
        if not columns.get("t"):
            columns = {}
        return Bars(body["s"] == "no_data", pointer, columns, answer.url)


def info_of(fields: Mapping[str, Any]) -> SymbolInfo:
    """Return a symbol from its fields, as a chart would read them."""
    offered = fields.get("intraday_multipliers") or fields.get("supported_resolutions") or []
    minutes = [int(each) for each in offered if _MINUTES.fullmatch(str(each))]
    has_intraday = bool(fields.get("has_intraday", False))
    ticker = str(fields.get("ticker") or fields["name"])
    return SymbolInfo(ticker, fields, min(minutes) if minutes and has_intraday else None)


def _cell(name: str, value: Any, index: int, count: int) -> Any:
    """Return a symbol's value of a column, or what all share: no list, or a plain list of lists.

    Raises:
        AnswerError: the column has a value for some of the symbols; a chart would find nothing.
    """
    is_shared = not isinstance(value, list) or (
        name in _LISTS and not (value and isinstance(value[0], list))
    )
    if is_shared:
        return value
    if len(value) != count:
        raise AnswerError(f"/symbol_info: {name} has {len(value)} values for {count} symbols")
    return value[index]


def _inner(body: Any) -> dict[str, Any]:
    """Return the payload of an envelope, or the body that has none."""
    if not isinstance(body, dict):
        return {}
    inner = body.get("d", body)
    return inner if isinstance(inner, dict) else {}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
