"""Native routes of version 1, and what other modules ask."""

from collections.abc import Hashable
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, cast

import orjson
from fastapi import Path, Query
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from trading_api.contracts.datafeed import InstrumentsAnswer, QuotesAnswer
from trading_api.kernel.clock import Clock
from trading_api.modules.datafeed import schemas
from trading_api.modules.datafeed.api.answers import FinishedAnswers
from trading_api.modules.datafeed.errors import (
    InstrumentNotFoundError,
    MarketDataMissingError,
    ResolutionUnsupportedError,
    WindowInvalidError,
)
from trading_api.modules.datafeed.service import (
    BarsAnswer,
    DatafeedService,
    MarkService,
    published_instrument,
    published_quote,
)
from trading_api.runtime.http import Access, ModuleRouter, OptionalPrincipal
from trading_api.runtime.identity import Principal

SEARCH_LIMIT_MAX = 100
MEDIA_TYPE = "application/json"

BARS_ERRORS = (
    InstrumentNotFoundError,
    ResolutionUnsupportedError,
    WindowInvalidError,
    MarketDataMissingError,
)


def build_router(
    *, service: DatafeedService, marks: MarkService, clock: Clock, access: Access
) -> ModuleRouter:
    """Build the native routes.

    Args:
        service: what answers.
        marks: what decorates charts.
        clock: where "now" comes from.
        access: who may read market data.
    """
    router = ModuleRouter(tags=["datafeed"])
    answers = FinishedAnswers()

    @router.get(
        "/config",
        access=access,
        response_model=schemas.ConfigView,
        summary="Tell what the datafeed can do",
    )
    async def read_config() -> schemas.ConfigView:
        return schemas.config_view(service.offered())

    @router.get(
        "/search",
        access=access,
        response_model=list[schemas.SymbolMatchView],
        errors=[MarketDataMissingError],
        summary="Find instruments by ticker or description",
    )
    async def search_instruments(
        user_input: Annotated[schemas.FilterText, Query(description="empty lists all")] = "",
        exchange: Annotated[schemas.FilterText, Query(description="empty means all")] = "",
        symbol_type: Annotated[schemas.FilterText, Query(description="empty means all")] = "",
        max_results: Annotated[int, Query(ge=1, le=SEARCH_LIMIT_MAX)] = 30,
    ) -> Response:
        found = await service.search_markets(
            text=user_input, exchange=exchange, asset_class=symbol_type, limit=max_results
        )
        return _json([schemas.symbol_match(each.instrument) for each in found])

    @router.get(
        "/resolve/{symbol}",
        access=access,
        response_model=schemas.SymbolInfoView,
        response_model_exclude_none=True,
        errors=[InstrumentNotFoundError, MarketDataMissingError],
        summary="Tell everything that a chart needs to know of a symbol",
    )
    async def resolve_symbol(
        symbol: Annotated[str, Path(min_length=1, max_length=64)],
    ) -> schemas.SymbolInfoView:
        return schemas.symbol_info(await service.resolve(symbol=symbol))

    def question_of(query: schemas.BarsQuery) -> Question:
        to_time = query.to_time
        if to_time is None:
            to_time = int(clock.now().timestamp()) + 1
        return query.symbol, query.resolution, query.from_time, to_time, query.count_back

    async def answer_bars(query: schemas.BarsQuery) -> Response:
        question = question_of(query)
        answer = await find_or_make_bars(service, answers, question, clock, native=True)
        return Response(answer, media_type=MEDIA_TYPE)

    def find_bars(query_string: bytes, _: Principal | None) -> bytes | schemas.Pieces | None:
        question = question_of(parse_query_string(schemas.BarsQuery, query_string))
        return find_bars_at_hand(service, answers, question, clock, native=True)

    async def read_bars_hot(request: Request, _: Principal | None) -> Response:
        return await answer_bars(parse_query(schemas.BarsQuery, request))

    @router.get(
        "/bars",
        rate="history",
        access=access,
        hot=read_bars_hot,
        express=find_bars,
        response_model=schemas.BarsView,
        errors=BARS_ERRORS,
        summary="Read bars of a window, at most the newest 5,000",
    )
    async def read_bars(query: Annotated[schemas.BarsQuery, Query()]) -> Response:
        return await answer_bars(query)

    @router.post(
        "/quotes",
        access=access,
        response_model=list[schemas.QuoteView],
        response_model_exclude_none=True,
        errors=[MarketDataMissingError],
        summary="Read the quotes of some symbols",
    )
    async def read_quotes(request: schemas.QuotesRequest) -> Response:
        await service.list_markets()
        quotes = await service.quotes(symbols=request.symbols, now=clock.now())
        pairs = zip(request.symbols, quotes, strict=True)
        return _json([schemas.quote_view(symbol, quote) for symbol, quote in pairs])

    @router.get(
        "/marks",
        access=access,
        response_model=list[schemas.MarkView],
        response_model_exclude_none=True,
        errors=BARS_ERRORS,
        summary="List marks of a chart: my executions (scope broker:read), splits, dividends",
    )
    async def list_marks(
        principal: OptionalPrincipal,
        symbol: Annotated[schemas.SymbolText, Query()],
        resolution: Annotated[schemas.ResolutionText, Query()] = "1D",
        from_time: Annotated[int, Query(description="seconds, inclusive")] = 0,
        to_time: Annotated[int | None, Query(description="seconds, inclusive; now")] = None,
    ) -> Response:
        now = clock.now()
        window: dict[str, Any] = {
            "symbol": symbol,
            "resolution": resolution,
            "from_time": from_time,
            "to_time": int(now.timestamp()) if to_time is None else to_time,
            "now": now,
        }
        user_id = trader_of(principal)
        executions = await marks.list_execution_marks(user_id=user_id, **window)
        return _json(schemas.mark_views(executions, await marks.list_event_marks(**window)))

    return router


def trader_of(principal: Principal | None) -> str | None:
    """Return whose executions a chart may show; None: nobody's.

    Whoever may read market data mayn't therefore read the broker's; and a share token shows one
    account, while marks are of all.
    """
    if principal is None or principal.account_id is not None:
        return None
    return principal.user_id if "broker:read" in principal.scopes else None


def build_internal_router(*, service: DatafeedService, clock: Clock) -> ModuleRouter:
    """Build what other modules ask; shapes in ``contracts.datafeed``."""
    router = ModuleRouter(tags=["internal"])

    @router.get(
        "/internal/v1/datafeed/quotes",
        access=Access.internal(),
        response_model=QuotesAnswer,
        errors=[MarketDataMissingError],
        summary="Read the newest quotes",
    )
    async def read_quotes(
        symbols: Annotated[str, Query(max_length=8_192, description="by comma")],
    ) -> QuotesAnswer:
        asked = _split(symbols)
        await service.list_markets()
        quotes = await service.quotes(symbols=asked, now=clock.now())
        return QuotesAnswer(
            quotes=[published_quote(quote) for quote in quotes if quote],
            unknown=[symbol for symbol, quote in zip(asked, quotes, strict=True) if not quote],
        )

    @router.get(
        "/internal/v1/datafeed/instruments",
        access=Access.internal(),
        response_model=InstrumentsAnswer,
        errors=[MarketDataMissingError],
        summary="Read instruments, all of them where none is named",
    )
    async def read_instruments(
        symbols: Annotated[str, Query(max_length=8_192, description="by comma")] = "",
    ) -> InstrumentsAnswer:
        markets = await service.list_markets()
        if not symbols:
            found = [published_instrument(each.instrument) for each in markets]
            return InstrumentsAnswer(instruments=found, unknown=[])
        found, unknown = [], []
        for symbol in _split(symbols):
            try:
                market = await service.resolve(symbol=symbol)
            except InstrumentNotFoundError:
                unknown.append(symbol)
            else:
                found.append(published_instrument(market.instrument))
        return InstrumentsAnswer(instruments=found, unknown=unknown)

    return router


Question = tuple[str, str, int, int, int | None]
"""Symbol, resolution, from, to (seconds), count back: as the client asked."""


async def find_or_make_bars(
    service: DatafeedService,
    answers: FinishedAnswers,
    question: Question,
    clock: Clock,
    *,
    native: bool,
) -> bytes:
    """Return the encoded answer to a question about bars, native or UDF's."""
    now = clock.now()
    version, found = _find_kept(service, answers, question, now)
    if found is not None:
        return found
    answer = await service.bars(**_asked(question), now=now)
    encoded = answers.keep(question, version, _encode(service, answer, native=native))
    return encoded if isinstance(encoded, bytes) else b"".join(encoded)


def find_bars_at_hand(
    service: DatafeedService,
    answers: FinishedAnswers,
    question: Question,
    clock: Clock,
    *,
    native: bool,
) -> bytes | schemas.Pieces | None:
    """Return what ``find_or_make_bars`` returns, in pieces; None where that would wait.

    Raises what ``find_or_make_bars`` raises, or nothing.
    """
    now = clock.now()
    version, found = _find_kept(service, answers, question, now)
    if found is not None:
        return found
    answer = service.find_bars(**_asked(question), now=now)
    if answer is None:
        return None
    return answers.keep(question, version, _encode(service, answer, native=native))


def _find_kept(
    service: DatafeedService, answers: FinishedAnswers, question: Question, now: datetime
) -> tuple[Hashable, bytes | None]:
    symbol, resolution, _, to_time, _ = question
    version = service.version_of(symbol=symbol, resolution=resolution, to_time=to_time, now=now)
    return version, answers.find(question, version)


def _asked(question: Question) -> dict[str, Any]:
    symbol, resolution, from_time, to_time, count_back = question
    return {
        "symbol": symbol,
        "resolution": resolution,
        "from_time": from_time,
        "to_time": to_time,
        "count_back": count_back,
    }


def _encode(service: DatafeedService, answer: BarsAnswer, *, native: bool) -> schemas.Pieces:
    encode = schemas.encode_bars if native else schemas.encode_history
    return encode(answer.market.instrument, answer.selection, service.texts)


def parse_query(model: type[Any], request: Request) -> Any:
    """Parse a URL's parameters as FastAPI would: the last of a repeated one counts.

    Raises:
        RequestValidationError: a parameter breaks a rule.
    """
    try:
        return parse_query_string(model, request.scope["query_string"])
    except ValidationError as error:
        raise RequestValidationError(
            [{**each, "loc": ("query", *each["loc"])} for each in error.errors()]
        ) from None


def parse_query_string(model: type[Any], query_string: bytes) -> Any:
    """Parse a query string as ``parse_query`` does.

    Raises:
        ValidationError: a parameter breaks a rule.
    """
    return _parse_query(cast("Any", model), query_string)


@lru_cache(maxsize=4096)
def _parse_query(model: Any, query_string: bytes) -> Any:
    # Many clients look at the same window, and a frozen model may be shared.
    return model.model_validate(dict(QueryParams(query_string)))


def _split(symbols: str) -> list[str]:
    return [symbol for symbol in symbols.split(",") if symbol]


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type=MEDIA_TYPE)
