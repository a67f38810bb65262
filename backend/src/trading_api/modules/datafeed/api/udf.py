"""UDF: the dialect that TradingView's own client speaks, times in seconds.

That client looks at bodies, never at the HTTP status: every answer under this prefix, errors
included, is JSON in UDF's shape, and ``/config`` and ``/time`` answer without a sign-in.
"""

from typing import Annotated, Any

import orjson
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from trading_api.kernel.clock import Clock
from trading_api.modules.datafeed import schemas
from trading_api.modules.datafeed.api.answers import FinishedAnswers
from trading_api.modules.datafeed.api.v1 import (
    BARS_ERRORS,
    MEDIA_TYPE,
    SEARCH_LIMIT_MAX,
    Question,
    find_bars_at_hand,
    find_or_make_bars,
    parse_query,
    parse_query_string,
    trader_of,
)
from trading_api.modules.datafeed.errors import InstrumentNotFoundError, MarketDataMissingError
from trading_api.modules.datafeed.service import DatafeedService, MarkService
from trading_api.runtime.http import Access, ModuleRouter, OptionalPrincipal
from trading_api.runtime.http.problems import Problem
from trading_api.runtime.identity import Principal

QUOTES_MAX = 500

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.UdfErrorView} for status in (400, 401, 403, 404, 414, 422, 429, 503)
}
_PUBLIC_ERRORS = {status: _ERRORS[status] for status in (400, 414, 422, 429, 503)}


def udf_error(problem: Problem) -> Response:
    """Return any error in UDF's shape; the status stays, for everybody but the chart."""
    body = {"s": "error", "errmsg": problem.detail, "code": problem.code}
    headers = {"Cache-Control": "no-store"}
    if problem.status == 401:
        headers["WWW-Authenticate"] = f'Bearer error="{problem.code}"'
    return Response(
        orjson.dumps(body), status_code=problem.status, headers=headers, media_type=MEDIA_TYPE
    )


def build_udf_router(
    *, service: DatafeedService, marks: MarkService, clock: Clock, access: Access
) -> ModuleRouter:
    """Build the UDF routes; arguments as for the native ones."""
    router = ModuleRouter(tags=["datafeed UDF"], error_shape=udf_error)
    answers = FinishedAnswers()
    symbol_errors = [InstrumentNotFoundError, MarketDataMissingError]

    @router.get(
        "/config",
        access=Access.public(),
        response_model=schemas.ConfigView,
        responses=_PUBLIC_ERRORS,
        summary="Tell what the datafeed can do",
    )
    async def read_config() -> Response:
        return _json(schemas.config_view(service.offered()).model_dump())

    @router.get(
        "/time",
        access=Access.public(),
        response_model=int,
        responses=_PUBLIC_ERRORS,
        summary="Tell the time in seconds",
    )
    async def read_time() -> Response:
        return _json(int(clock.now().timestamp()))

    @router.get(
        "/symbols",
        access=access,
        response_model=schemas.SymbolInfoView,
        response_model_exclude_none=True,
        responses=_ERRORS,
        errors=symbol_errors,
        summary="Tell all about a symbol",
    )
    async def read_symbol(symbol: Annotated[schemas.SymbolText, Query()]) -> Response:
        market = await service.resolve(symbol=symbol)
        return _json(schemas.symbol_info(market).model_dump(exclude_none=True))

    @router.get(
        "/symbol_info",
        access=access,
        response_model=dict[str, list[Any]],
        responses=_ERRORS,
        errors=symbol_errors,
        summary="Tell all about a group's symbols; groups are the exchanges",
    )
    async def read_symbol_info(group: Annotated[schemas.SymbolText, Query()]) -> Response:
        found = [
            schemas.symbol_info(each)
            for each in await service.list_markets()
            if each.instrument.exchange.value == group.upper()
        ]
        if not found:
            raise InstrumentNotFoundError("no group has that name")
        return Response(schemas.encode_symbol_columns(found), media_type=MEDIA_TYPE)

    @router.get(
        "/search",
        access=access,
        response_model=list[schemas.SymbolMatchView],
        responses=_ERRORS,
        errors=[MarketDataMissingError],
        summary="Find instruments by ticker or description",
    )
    async def search_instruments(
        query: Annotated[schemas.FilterText, Query()] = "",
        type: Annotated[schemas.FilterText, Query()] = "",  # noqa: A002 - UDF's name
        exchange: Annotated[schemas.FilterText, Query()] = "",
        limit: Annotated[int, Query(ge=0, le=10_000)] = 30,
    ) -> Response:
        found = await service.search_markets(
            text=query,
            exchange=exchange,
            asset_class=type,
            limit=min(limit or 50, SEARCH_LIMIT_MAX),
        )
        return _json([schemas.symbol_match(each.instrument) for each in found])

    def question_of(query: schemas.HistoryQuery) -> Question:
        count_back = query.countback or None
        return query.symbol, query.resolution, query.from_time, query.to_time, count_back

    async def answer_history(query: schemas.HistoryQuery) -> Response:
        question = question_of(query)
        answer = await find_or_make_bars(service, answers, question, clock, native=False)
        return Response(answer, media_type=MEDIA_TYPE)

    def find_history(query_string: bytes, _: Principal | None) -> bytes | schemas.Pieces | None:
        question = question_of(parse_query_string(schemas.HistoryQuery, query_string))
        return find_bars_at_hand(service, answers, question, clock, native=False)

    async def read_history_hot(request: Request, _: Principal | None) -> Response:
        return await answer_history(parse_query(schemas.HistoryQuery, request))

    @router.get(
        "/history",
        rate="history",
        access=access,
        response_model=schemas.UdfHistoryView,
        responses=_ERRORS,
        hot=read_history_hot,
        express=find_history,
        errors=BARS_ERRORS,
        summary="Read bars as columns, at most the newest 5,000",
    )
    async def read_history(query: Annotated[schemas.HistoryQuery, Query()]) -> Response:
        return await answer_history(query)

    @router.get(
        "/quotes",
        access=access,
        response_model=schemas.UdfQuotesView,
        responses=_ERRORS,
        errors=[MarketDataMissingError],
        summary="Read the quotes of some symbols",
    )
    async def read_quotes(
        symbols: Annotated[str, Query(min_length=1, max_length=4_096, description="by comma")],
    ) -> Response:
        asked = symbols.split(",")[:QUOTES_MAX]
        await service.list_markets()
        quotes = await service.quotes(symbols=asked, now=clock.now())
        pairs = zip(asked, quotes, strict=True)
        return _json({"s": "ok", "d": [schemas.quote_view(name, quote) for name, quote in pairs]})

    @router.get(
        "/marks",
        access=access,
        response_model=list[schemas.ExecutionMarkView],
        responses=_ERRORS,
        errors=BARS_ERRORS,
        summary="List my executions (scope broker:read) as marks on bars, at most ten a bar",
    )
    async def list_marks(
        query: Annotated[schemas.MarksQuery, Query()], principal: OptionalPrincipal
    ) -> Response:
        found = await marks.list_execution_marks(
            user_id=trader_of(principal),
            symbol=query.symbol,
            resolution=query.resolution,
            from_time=query.from_time,
            to_time=query.to_time,
            now=clock.now(),
        )
        return _json([schemas.udf_execution_mark(each) for each in found])

    @router.get(
        "/timescale_marks",
        access=access,
        response_model=list[schemas.TimescaleMarkView],
        responses=_ERRORS,
        errors=BARS_ERRORS,
        summary="List an instrument's splits and dividends as marks under the time scale",
    )
    async def list_timescale_marks(query: Annotated[schemas.MarksQuery, Query()]) -> Response:
        found = await marks.list_event_marks(
            symbol=query.symbol,
            resolution=query.resolution,
            from_time=query.from_time,
            to_time=query.to_time,
            now=clock.now(),
        )
        return _json([schemas.udf_event_mark(each) for each in found])

    return router


def _json(value: object) -> Response:
    return Response(orjson.dumps(value), media_type=MEDIA_TYPE)
