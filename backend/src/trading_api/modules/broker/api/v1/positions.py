"""Routes of positions and executions."""

from typing import Annotated

from fastapi import Path as PathParameter
from fastapi import Query
from starlette.responses import Response

from trading_api.kernel.clock import Clock
from trading_api.modules.broker.api.v1.parts import (
    NEXT_CURSOR,
    OFFSETS,
    ORDER_ERRORS,
    PAGE_DEFAULT,
    REPLAYED,
    SHARED,
    TRADE,
    AccountId,
    CursorText,
    Limit,
    PositionIdText,
    SymbolFilter,
    json_of,
    offsets,
    replayed,
    user_of,
)
from trading_api.modules.broker.domain.instrument import full_symbol
from trading_api.modules.broker.errors import (
    AccountNotFoundError,
    InstrumentNotTradableError,
    InstrumentUnknownError,
    MarketUnavailableError,
    OrderInvalidError,
    PositionNotFoundError,
)
from trading_api.modules.broker.schemas import (
    BracketsRequest,
    DoneView,
    ExecutionView,
    PositionView,
)
from trading_api.modules.broker.service import PositionService, ReportService
from trading_api.runtime.http import CurrentPrincipal, IdempotencyKey, ModuleRouter
from trading_api.runtime.http.cursors import CursorInvalidError, Cursors
from trading_api.runtime.http.wire import Symbol, WireDecimal


def add_positions(
    router: ModuleRouter,
    positions: PositionService,
    reports: ReportService,
    clock: Clock,
    cursors: Cursors,
) -> None:
    """Declare the routes of positions and executions."""

    @router.get(
        "/positions",
        access=SHARED,
        summary="What is held, marked to the newest quotes",
        response_model=list[PositionView],
        responses=OFFSETS,
        errors=[AccountNotFoundError],
    )
    async def list_positions(principal: CurrentPrincipal, account_id: AccountId) -> Response:
        found = await reports.list_positions(
            user_id=user_of(principal), account_id=account_id, now=clock.now()
        )
        views = [PositionView.of(each, found.quotes) for each in found.positions]
        return json_of(views, offsets(found.account))

    @router.delete(
        "/positions/{positionId}",
        access=TRADE,
        summary="Close a position, or a part of it, at the market",
        response_model=DoneView,
        responses=REPLAYED,
        errors=[*ORDER_ERRORS, PositionNotFoundError],
    )
    async def close_position(
        position_id: PositionIdText,
        principal: CurrentPrincipal,
        account_id: AccountId,
        amount: Annotated[
            WireDecimal | None, Query(description="units to close; all where absent")
        ] = None,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        placed = await positions.close_position(
            user_id=user_of(principal),
            account_id=account_id,
            position_id=position_id,
            quantity=amount,
            idempotency_key=idempotency_key,
            now=clock.now(),
        )
        view = DoneView(message="closed at the market", order_id=placed.order_id)
        return json_of(view, replayed(placed.is_replay))

    @router.post(
        "/positions/{positionId}/reverse",
        access=TRADE,
        summary="Turn a position into one of equal size on the other side, at the market",
        response_model=DoneView,
        responses=REPLAYED,
        errors=[*ORDER_ERRORS, PositionNotFoundError],
    )
    async def reverse_position(
        position_id: PositionIdText,
        principal: CurrentPrincipal,
        account_id: AccountId,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        placed = await positions.reverse_position(
            user_id=user_of(principal),
            account_id=account_id,
            position_id=position_id,
            idempotency_key=idempotency_key,
            now=clock.now(),
        )
        view = DoneView(message="reversed at the market", order_id=placed.order_id)
        return json_of(view, replayed(placed.is_replay))

    @router.put(
        "/positions/{positionId}/brackets",
        access=TRADE,
        summary="Protect a position with these legs; those left out are canceled",
        response_model=DoneView,
        errors=[
            AccountNotFoundError,
            InstrumentNotTradableError,
            InstrumentUnknownError,
            MarketUnavailableError,
            OrderInvalidError,
            PositionNotFoundError,
        ],
    )
    async def set_brackets(
        position_id: PositionIdText,
        request: BracketsRequest,
        principal: CurrentPrincipal,
        account_id: AccountId,
    ) -> Response:
        await positions.set_brackets(
            user_id=user_of(principal),
            account_id=account_id,
            position_id=position_id,
            wanted=request.to_brackets(),
            now=clock.now(),
        )
        return json_of(DoneView(message="the position's brackets are set"))

    @router.get(
        "/executions/{symbol}",
        access=SHARED,
        summary="Fills of one instrument, newest first, at most 1000",
        response_model=list[ExecutionView],
        errors=[AccountNotFoundError],
    )
    async def list_executions_of(
        symbol: Annotated[Symbol, PathParameter()],
        principal: CurrentPrincipal,
        account_id: AccountId,
        limit: Limit = PAGE_DEFAULT,
    ) -> Response:
        found = await reports.list_executions(
            user_id=user_of(principal),
            account_id=account_id,
            limit=limit,
            symbol=full_symbol(symbol),
            now=clock.now(),
        )
        return json_of([ExecutionView.of(each) for each in found.executions])

    @router.get(
        "/executions",
        rate="history",
        access=SHARED,
        summary="Fills, newest first",
        response_model=list[ExecutionView],
        responses=NEXT_CURSOR,
        errors=[AccountNotFoundError, CursorInvalidError],
    )
    async def list_executions(
        principal: CurrentPrincipal,
        account_id: AccountId,
        limit: Limit = PAGE_DEFAULT,
        cursor: CursorText = None,
        symbol: SymbolFilter = None,
        order_id: Annotated[
            str | None,
            Query(alias="orderId", min_length=1, max_length=64, description="of this order only"),
        ] = None,
    ) -> Response:
        user_id = user_of(principal)
        filters = {
            "list": "executions",
            "user": user_id,
            "account": account_id,
            "symbol": symbol and full_symbol(symbol),
            "order": order_id,
        }
        found = await reports.list_executions(
            user_id=user_id,
            account_id=account_id,
            limit=limit + 1,
            before=(
                None if cursor is None else cursors.decode(cursor, filters=filters)["sequence"]
            ),
            symbol=filters["symbol"],
            order_id=order_id,
            now=clock.now(),
        )
        page, headers = found.executions[:limit], {}
        if len(found.executions) > limit:
            position = {"sequence": page[-1].sequence}
            headers["X-Next-Cursor"] = cursors.encode(position, filters=filters)
        return json_of([ExecutionView.of(each) for each in page], headers)
