"""Instruments: anybody who may read market data sees them, operators change them."""

from typing import Annotated

from fastapi import Path, Query, Response

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import IdempotencyKeyReusedError, RequestInProgressError
from trading_api.modules.datafeed import schemas
from trading_api.modules.datafeed.errors import (
    InstrumentChangedError,
    InstrumentExistsError,
    InstrumentInvalidError,
    InstrumentNotFoundError,
    InstrumentTradableError,
    MarketDataMissingError,
)
from trading_api.modules.datafeed.service import DatafeedService, InstrumentService
from trading_api.runtime.http import Access, CurrentPrincipal, IdempotencyKey, ModuleRouter

_MANAGE = Access.scope("datafeed:manage")
_SymbolPath = Annotated[str, Path(min_length=1, max_length=64, description="DEMO:AAPL or AAPL")]


def build_instruments_router(
    *, service: DatafeedService, instruments: InstrumentService, clock: Clock, access: Access
) -> ModuleRouter:
    """Build the routes of instruments.

    Args:
        service: what looks them up.
        instruments: what changes them.
        clock: where "now" comes from.
        access: who may read market data.
    """
    router = ModuleRouter(tags=["datafeed"])

    @router.get(
        "/instruments",
        access=access,
        response_model=list[schemas.InstrumentView],
        errors=[MarketDataMissingError],
        summary="List every instrument",
    )
    async def list_instruments() -> list[schemas.InstrumentView]:
        markets = await service.list_markets()
        return [schemas.instrument_view(each.instrument) for each in markets]

    @router.post(
        "/instruments",
        access=_MANAGE,
        status_code=201,
        response_model=schemas.InstrumentView,
        errors=[
            InstrumentExistsError,
            InstrumentInvalidError,
            IdempotencyKeyReusedError,
            RequestInProgressError,
        ],
        summary="List an instrument over a stored series",
    )
    async def list_instrument(
        request: schemas.InstrumentRequest,
        principal: CurrentPrincipal,
        response: Response,
        idempotency_key: IdempotencyKey = None,
    ) -> schemas.InstrumentView:
        result = await instruments.list_instrument(
            instrument=request.instrument(),
            operator_id=principal.user_id,
            idempotency_key=idempotency_key,
            now=clock.now(),
        )
        if result.replayed:
            response.headers["Idempotent-Replayed"] = "true"
        return schemas.instrument_view(result.instrument)

    @router.get(
        "/instruments/{symbol}",
        access=access,
        response_model=schemas.InstrumentView,
        errors=[InstrumentNotFoundError, MarketDataMissingError],
        summary="Read an instrument",
    )
    async def read_instrument(symbol: _SymbolPath) -> schemas.InstrumentView:
        return schemas.instrument_view((await service.resolve(symbol=symbol)).instrument)

    @router.patch(
        "/instruments/{symbol}",
        access=_MANAGE,
        response_model=schemas.InstrumentView,
        errors=[InstrumentNotFoundError, InstrumentChangedError, InstrumentInvalidError],
        summary="Change an instrument; a repeat changes nothing further",
    )
    async def change_instrument(
        symbol: _SymbolPath,
        request: schemas.InstrumentChangeRequest,
        principal: CurrentPrincipal,
    ) -> schemas.InstrumentView:
        result = await instruments.change_instrument(
            symbol=symbol,
            changes=request.changes(),
            version=request.version,
            operator_id=principal.user_id,
            now=clock.now(),
        )
        return schemas.instrument_view(result.instrument)

    @router.get(
        "/instruments/{symbol}/dividends",
        access=access,
        response_model=list[schemas.DividendView],
        errors=[InstrumentNotFoundError, MarketDataMissingError],
        summary="List an instrument's dividends by ex-date",
    )
    async def list_dividends(symbol: _SymbolPath) -> list[schemas.DividendView]:
        instrument = (await service.resolve(symbol=symbol)).instrument
        found = await service.dividends_of(symbol=symbol)
        return [schemas.dividend_view(each, instrument) for each in found]

    @router.put(
        "/instruments/{symbol}/dividends",
        access=_MANAGE,
        response_model=list[schemas.DividendView],
        errors=[InstrumentNotFoundError, InstrumentChangedError, InstrumentInvalidError],
        summary="Say which dividends an instrument has; a repeat changes nothing further",
    )
    async def replace_dividends(
        symbol: _SymbolPath, request: schemas.DividendsRequest, principal: CurrentPrincipal
    ) -> list[schemas.DividendView]:
        instrument = (await service.resolve(symbol=symbol)).instrument
        found = await instruments.replace_dividends(
            symbol=symbol,
            dividends=request.found(),
            version=request.version,
            operator_id=principal.user_id,
            now=clock.now(),
        )
        return [schemas.dividend_view(each, instrument) for each in found]

    @router.delete(
        "/instruments/{symbol}",
        access=_MANAGE,
        status_code=204,
        errors=[InstrumentNotFoundError, InstrumentChangedError, InstrumentTradableError],
        summary="Retire an instrument that takes no orders; its symbol is never given again",
    )
    async def retire_instrument(
        symbol: _SymbolPath,
        principal: CurrentPrincipal,
        version: Annotated[int | None, Query(ge=1, description="only if it is this one")] = None,
    ) -> None:
        await instruments.retire_instrument(
            symbol=symbol, version=version, operator_id=principal.user_id, now=clock.now()
        )

    return router
