"""Configuration, symbols, search, quotes, errors, sign-in."""

import re
import time
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from trading_api.modules.datafeed.commands.conformance.rules import (
    NotApplicableError,
    Run,
    ensure,
    rule,
)

_SESSION = re.compile(
    r"24x7|([0-9]{4}(F[0-9])?-[0-9]{4}(F[0-9])?,?)+(:[1-7]+)?"
    r"(\|([0-9]{4}(F[0-9])?-[0-9]{4}(F[0-9])?,?)+(:[1-7]+)?)*",
    re.ASCII,
)
_RESOLUTION = re.compile(r"[0-9]*[STDWM]?", re.ASCII)
TYPES = {
    "stock", "fund", "dr", "right", "bond", "warrant", "structured", "index", "forex", "futures",
    "crypto", "cfd", "spot", "swap", "economic", "commodity",
}  # fmt: skip
NEEDED: dict[str, type | tuple[type, ...]] = {
    "description": str,
    "type": str,
    "session": str,
    "timezone": str,
    "pricescale": int,
    "minmov": (int, float),
}


@rule(
    "udfConfigResponseFields",
    dialects=["udf"],
    shows="The chart never starts: it waits for a configuration that it can read.",
)
async def _config(run: Run) -> None:
    answer = await run.server.ask("/config", signed_in=False)
    body = answer.body
    ensure(isinstance(body, dict), f"/config without a sign-in answers {answer.text[:120]!r}")
    ensure("s" not in body, f"/config without a sign-in answers an error: {answer.text[:120]!r}")
    ensure(
        body.get("supports_search") or body.get("supports_group_request"),
        "supports_search and supports_group_request are both false",
    )
    resolutions = body.get("supported_resolutions")
    ensure(isinstance(resolutions, list) and resolutions, "supported_resolutions is no list")
    wrong = [each for each in resolutions if not _RESOLUTION.fullmatch(str(each)) or not each]
    ensure(not wrong, f"resolutions that no chart knows: {wrong}")
    for name, keys in (("exchanges", ("value", "name")), ("symbols_types", ("value", "name"))):
        for each in body.get(name, []):
            ensure(all(key in each for key in keys), f"{name} has an entry without {keys}")


@rule(
    "udfTimeFormat",
    dialects=["udf"],
    shows="The countdown to the bar's close is wrong or missing.",
)
async def _time(run: Run) -> None:
    answer = await run.server.ask("/time", signed_in=False)
    ensure(re.fullmatch(r"[0-9]{10}", answer.text.strip()), f"/time answers {answer.text[:60]!r}")


@rule(
    "symbolsResponseFields",
    shows="The symbol shows wrong prices or hours, or “undefined”: its information isn't complete.",
)
async def _symbols(run: Run) -> None:
    for symbol in run.symbols:
        if run.server.dialect == "udf":
            answer = await run.server.ask("/symbols", symbol=symbol.ticker)
            ensure(
                answer.content_type.startswith("application/json"),
                f"{answer.url} has the content type {answer.content_type!r}",
            )
        fields = symbol.fields
        for name, kind in NEEDED.items():
            value = fields.get(name)
            right = isinstance(value, kind) and not isinstance(value, bool) and value != ""
            ensure(right, f"{symbol.ticker}: {name} is {value!r}")
        ensure(fields["pricescale"] > 0, f"{symbol.ticker}: pricescale is not positive")
        ensure(fields["minmov"] > 0, f"{symbol.ticker}: minmov is not positive")
        ensure(fields["type"] in TYPES, f"{symbol.ticker}: type {fields['type']!r} is unknown")
        ensure(_has_zone(fields["timezone"]), f"{symbol.ticker}: no time zone is called that")
        ensure(
            _SESSION.fullmatch(fields["session"]),
            f"{symbol.ticker}: the session {fields['session']!r} can't be read",
        )
        for day in filter(None, str(fields.get("session_holidays") or "").split(",")):
            ensure(_is_day(day), f"{symbol.ticker}: the holiday {day!r} is no YYYYMMDD")
        if fields.get("has_intraday"):
            ensure(symbol.finest, f"{symbol.ticker}: has_intraday without intraday_multipliers")
    run.note(", ".join(each.ticker for each in run.symbols))


@rule(
    "udfSearchIsAnArray",
    dialects=["udf"],
    shows="Symbol search stays empty or breaks: it wants a bare array.",
)
async def _search(run: Run) -> None:
    symbol = run.symbols[0]
    name = str(symbol.fields["name"])
    answer = await run.server.ask("/search", limit=30, query=name.upper(), type="", exchange="")
    ensure(isinstance(answer.body, list), f"{answer.url} answers {answer.text[:120]!r}")
    ensure(answer.body, f"{answer.url} doesn't find a symbol that exists")
    for each in answer.body:
        for key in ("symbol", "description", "exchange", "type"):
            ensure(isinstance(each.get(key), str), f"{answer.url}: a result without {key}")
    nothing = await run.server.ask("/search", limit=30, query="QQQQZZZZ", type="", exchange="")
    ensure(nothing.body == [], f"{nothing.url} answers {nothing.text[:120]!r}, not []")


@rule(
    "udfErrorsAreInItsShape",
    dialects=["udf"],
    shows="A mistyped symbol resolves to “undefined:undefined”, since the client reads bodies and "
    "never the status.",
)
async def _errors(run: Run) -> None:
    questions: list[tuple[str, dict[str, Any]]] = [
        ("/symbols", {"symbol": "NO_SUCH:SYMBOL"}),
        ("/history", {"symbol": "NO_SUCH:SYMBOL", "resolution": "1D", "from": 0, "to": 1}),
        ("/history", {"symbol": run.symbols[0].ticker, "resolution": "x", "from": 0, "to": 1}),
        ("/no/such/path", {}),
    ]
    for path, params in questions:
        answer = await run.server.ask(path, **params)
        body = answer.body
        shaped = isinstance(body, dict) and body.get("s") == "error" and body.get("errmsg")
        ensure(shaped, f"{answer.url} answers {answer.status} {answer.text[:120]!r}")


@rule(
    "udfQuotesFormat",
    dialects=["udf"],
    shows="The watchlist shows dashes, or one unknown symbol empties all of it.",
)
async def _quotes(run: Run) -> None:
    names = [each.ticker for each in run.symbols]
    answer = await run.server.ask("/quotes", symbols=",".join([*names, "NO_SUCH:SYMBOL"]))
    body = answer.body
    ensure(isinstance(body, dict) and body.get("s") == "ok", f"{answer.url}: {answer.text[:120]!r}")
    found = {each.get("n"): each for each in body.get("d", [])}
    for name in names:
        ensure(name in found, f"{answer.url} has no quote named {name!r} as it was asked")
        quote = found[name]
        ensure(quote["s"] == "ok", f"{answer.url}: {name} is an error")
        last = quote["v"].get("lp")
        ensure(isinstance(last, int | float) and last > 0, f"{name}: lp is {last!r}")
        bid, ask = quote["v"].get("bid"), quote["v"].get("ask")
        if bid is not None and ask is not None:
            ensure(bid <= ask, f"{name}: the bid {bid} lies above the ask {ask}")
    unknown = found.get("NO_SUCH:SYMBOL")
    ensure(unknown is not None and unknown["s"] == "error", "an unknown symbol isn't an error")


@rule(
    "udfMarksFormat",
    dialects=["udf"],
    shows="Marks are missing, or lie between bars where nobody sees them.",
)
async def _marks(run: Run) -> None:
    now = await run.server.now()
    config = (await run.server.ask("/config")).body
    if not isinstance(config, dict) or not config.get("supports_timescale_marks"):
        raise NotApplicableError("the server offers no marks")
    count = 0
    for symbol in run.symbols:
        times: set[int] | None = None
        for path in ("/marks", "/timescale_marks"):
            params: dict[str, Any] = {"symbol": symbol.ticker, "from": 0, "to": now}
            params["resolution"] = "1D"
            answer = await run.server.ask(path, **params)
            ensure(isinstance(answer.body, list), f"{answer.url} answers {answer.text[:120]!r}")
            for mark in answer.body:
                if times is None:
                    bars = await run.server.history(symbol.ticker, "1D", 0, now, countback=5_000)
                    times = set(bars.times)
                ensure({"id", "time", "color"} <= set(mark), f"{answer.url}: a mark lacks a field")
                ensure(mark["time"] in times, f"{answer.url}: a mark at {mark['time']} hits no bar")
                count += 1
    run.note(f"{count} marks")


async def _refuses(run: Run, path: str, **params: Any) -> None:
    if not run.settings.has_auth:
        raise NotApplicableError("the server needs no sign-in")
    answer = await run.server.ask(path, signed_in=False, **params)
    ensure(answer.status == 401, f"{answer.url} without a sign-in answers {answer.status}, not 401")
    if run.server.dialect == "udf":
        shaped = isinstance(answer.body, dict) and answer.body.get("s") == "error"
        ensure(shaped, f"{answer.url} without a sign-in answers {answer.text[:120]!r}")


@rule(
    "symbolsUnauthorizedRequest",
    shows="Data that must be paid for is open to all.",
)
async def _symbols_refused(run: Run) -> None:
    if run.server.dialect == "udf":
        await _refuses(run, "/symbols", symbol=run.symbols[0].ticker)
    else:
        await _refuses(run, "/symbol_info", group="any")


@rule(
    "historyUnauthorizedRequest",
    shows="Data that must be paid for is open to all.",
)
async def _history_refused(run: Run) -> None:
    params: dict[str, Any] = {"symbol": run.symbols[0].ticker, "resolution": "1D"}
    params |= {"from": 0, "to": 1}
    await _refuses(run, "/history", **params)


@rule(
    "groupsUnauthorizedRequest",
    dialects=["tv"],
    shows="Data that must be paid for is open to all.",
)
async def _groups_refused(run: Run) -> None:
    await _refuses(run, "/groups")


@rule(
    "groupsResponseFields",
    dialects=["tv"],
    shows="No symbol of this data source can be found.",
)
async def _groups(run: Run) -> None:
    answer = await run.server.ask("/groups")
    body = answer.body if isinstance(answer.body, dict) else {}
    groups = body.get("d", body).get("groups")
    ensure(isinstance(groups, list) and groups, f"/groups answers {answer.text[:120]!r}")
    ensure(len(groups) <= 10, f"{len(groups)} groups; ten are read")
    for each in groups:
        name = each.get("id")
        right = isinstance(name, str) and re.fullmatch(r"[a-z0-9_]+", name)
        ensure(right, f"the group {name!r} isn't of lower-case letters and underscores")


@rule(
    "authFieldsFormat",
    dialects=["tv"],
    shows="Nobody can sign in to this data source.",
)
async def _auth_fields(run: Run) -> None:
    await _token(run)


@rule(
    "authNewTokenPerRequest",
    dialects=["tv"],
    shows="Signing in on a second device ends the first one's session.",
)
async def _auth_tokens(run: Run) -> None:
    tokens = [await _token(run) for _ in range(10)]
    ensure(len(set(tokens)) == 10, f"ten sign-ins gave {len(set(tokens))} tokens")


async def _token(run: Run) -> str:
    if run.server.credentials is None:
        raise NotApplicableError("no login and password were given")
    login, password = run.server.credentials
    response = await run.server.anonymous.post(
        "authorize", data={"login": login, "password": password, "locale": "en"}
    )
    try:
        body = response.json()
    except ValueError:
        body = None
    shaped = isinstance(body, dict) and body.get("s") == "ok" and isinstance(body.get("d"), dict)
    ensure(shaped, f"/authorize answers {response.text[:120]!r}")
    token, expiration = body["d"].get("access_token"), body["d"].get("expiration")
    ensure(isinstance(token, str) and token, f"access_token is {token!r}")
    ensure(
        isinstance(expiration, int) and expiration > time.time(),
        f"expiration is {expiration!r}, not an integer in the future",
    )
    return str(token)


def _has_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True


def _is_day(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y%m%d")  # noqa: DTZ007 - a date alone
    except ValueError:
        return False
    return True
