"""Broker API v1: parse, one service call, view.

The account is named by ``accountId`` in the query or the header ``X-Account-Id``; without either
it is the user's first. Somebody else's account is answered like one that doesn't exist.
"""

from typing import Annotated, Any

from fastapi import Depends, Header, Query
from fastapi import Path as PathParameter
from starlette.responses import Response

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import (
    FieldError,
    IdempotencyKeyReusedError,
    InvalidInputError,
    PermissionDeniedError,
    RequestInProgressError,
)
from trading_api.modules.broker.domain.account import Account
from trading_api.modules.broker.domain.instrument import full_symbol
from trading_api.modules.broker.domain.order import OrderStatus
from trading_api.modules.broker.errors import (
    AccountLimitError,
    AccountNotFoundError,
    ClientOrderIdReusedError,
    InstrumentNotFoundError,
    InstrumentNotTradableError,
    InstrumentUnknownError,
    InsufficientMarginError,
    MarketUnavailableError,
    OrderClosedError,
    OrderInvalidError,
    OrderNotFoundError,
    PositionNotFoundError,
    ReduceOnlyError,
    StaleQuoteError,
)
from trading_api.modules.broker.schemas import (
    AccountRequest,
    AccountView,
    ClientOrderId,
    DoneView,
    EventView,
    ExecutionView,
    InstrumentView,
    OrderPatch,
    OrderRequest,
    OrderView,
    PlacedView,
    PositionView,
    PreviewView,
    StateView,
    encode,
)
from trading_api.modules.broker.service import AccountService, OrderService, ReportService
from trading_api.runtime.http import Access, CurrentPrincipal, IdempotencyKey, ModuleRouter
from trading_api.runtime.http.cursors import CursorInvalidError, Cursors
from trading_api.runtime.http.wire import Symbol, WireDecimal
from trading_api.runtime.identity import Principal

PAGE_DEFAULT = 100
PAGE_MAX = 1000
EVENTS_MAX = 1000

AccountIdText = Annotated[str, PathParameter(alias="accountId", min_length=1, max_length=64)]
OrderIdText = Annotated[str, PathParameter(alias="orderId", min_length=1, max_length=64)]
PositionIdText = Annotated[
    Symbol, PathParameter(alias="positionId", description="the symbol, such as `DEMO:AAPL`")
]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="rows at most")]
CursorText = Annotated[
    str | None,
    Query(min_length=1, max_length=512, description="the page before told it"),
]
SymbolFilter = Annotated[Symbol | None, Query(description="only this instrument")]


async def _account_of(
    by_query: Annotated[
        str | None,
        Query(alias="accountId", min_length=1, max_length=64, description="the trading account"),
    ] = None,
    by_header: Annotated[
        str | None, Header(alias="X-Account-Id", min_length=1, max_length=64)
    ] = None,
) -> str | None:
    if by_query is not None and by_header is not None and by_query != by_header:
        message = "the query and the header X-Account-Id name two accounts"
        raise InvalidInputError(message, errors=[FieldError("accountId", "disagree", message)])
    return by_query or by_header


AccountId = Annotated[str | None, Depends(_account_of)]

_READ = Access.scope("broker:read")
_TRADE = Access.scope("broker:trade")
_ORDER_ERRORS = (
    AccountNotFoundError,
    ClientOrderIdReusedError,
    IdempotencyKeyReusedError,
    InstrumentNotTradableError,
    InstrumentUnknownError,
    InsufficientMarginError,
    MarketUnavailableError,
    OrderInvalidError,
    ReduceOnlyError,
    RequestInProgressError,
    StaleQuoteError,
)
_REPLAYED: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "Idempotent-Replayed": {
                "description": "`true` on the answer to a repeat",
                "schema": {"type": "string"},
            }
        }
    }
}
_NEXT_CURSOR: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "X-Next-Cursor": {
                "description": "`cursor` of the next page; absent on the last",
                "schema": {"type": "string"},
            }
        }
    }
}
_OFFSETS: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "X-Account-Epoch": {
                "description": "changes when the sequence starts anew",
                "schema": {"type": "string"},
            },
            "X-Account-Offset": {
                "description": "number of the account's newest event",
                "schema": {"type": "integer"},
            },
        }
    }
}


def build_router(
    *,
    accounts: AccountService,
    orders: OrderService,
    reports: ReportService,
    clock: Clock,
    cursors: Cursors,
) -> ModuleRouter:
    """Declare the routes of v1."""
    router = ModuleRouter(tags=["broker"])
    _add_orders(router, orders, reports, clock, cursors)
    _add_positions(router, orders, reports, clock, cursors)
    _add_accounts(router, accounts, reports, clock)

    @router.get(
        "/instruments/{symbol}",
        access=_READ,
        summary="Rules of an instrument: sizes, ticks, leverage, durations",
        response_model=InstrumentView,
        errors=[InstrumentNotFoundError, MarketUnavailableError],
    )
    async def get_instrument(symbol: Annotated[Symbol, PathParameter()]) -> Response:
        instrument, quote = await reports.get_instrument(symbol=full_symbol(symbol))
        return _json(InstrumentView.of(instrument, reports.policy, quote))

    return router


def _add_orders(
    router: ModuleRouter,
    orders: OrderService,
    reports: ReportService,
    clock: Clock,
    cursors: Cursors,
) -> None:
    @router.post(
        "/orders",
        access=_TRADE,
        summary="Place an order",
        response_model=PlacedView,
        responses=_REPLAYED,
        errors=_ORDER_ERRORS,
    )
    async def place_order(
        request: OrderRequest,
        principal: CurrentPrincipal,
        account_id: AccountId,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        placed = await orders.place_order(
            user_id=_user_of(principal),
            account_id=account_id,
            ticket=request.to_ticket(),
            client_order_id=request.client_order_id,
            idempotency_key=idempotency_key,
            now=clock.now(),
        )
        return _json(PlacedView(order_id=placed.order_id), _replayed(placed.is_replay))

    @router.post(
        "/orders/preview",
        access=_READ,
        summary="Reckon what an order would cost; nothing is placed",
        response_model=PreviewView,
        errors=[
            AccountNotFoundError,
            InstrumentNotTradableError,
            InstrumentUnknownError,
            MarketUnavailableError,
            OrderInvalidError,
        ],
    )
    async def preview_order(
        request: OrderRequest, principal: CurrentPrincipal, account_id: AccountId
    ) -> Response:
        preview = await orders.preview_order(
            user_id=_user_of(principal),
            account_id=account_id,
            ticket=request.to_ticket(),
            now=clock.now(),
        )
        return _json(PreviewView.of(preview))

    @router.get(
        "/orders",
        access=_READ,
        summary="Open orders and those closed since 00:00 UTC, newest first, at most 1000",
        response_model=list[OrderView],
        responses=_OFFSETS,
        errors=[AccountNotFoundError],
    )
    async def list_orders(
        principal: CurrentPrincipal,
        account_id: AccountId,
        client_order_id: Annotated[
            ClientOrderId | None,
            Query(alias="clientOrderId", description="that order alone, however old"),
        ] = None,
    ) -> Response:
        found = await reports.list_orders(
            user_id=_user_of(principal),
            account_id=account_id,
            client_order_id=client_order_id,
            now=clock.now(),
        )
        return _json([OrderView.of(each) for each in found.orders], _offsets(found.account))

    @router.get(
        "/orders/history",
        access=_READ,
        summary="Closed orders, newest first",
        response_model=list[OrderView],
        responses=_NEXT_CURSOR,
        errors=[AccountNotFoundError, CursorInvalidError],
    )
    async def list_order_history(
        principal: CurrentPrincipal,
        account_id: AccountId,
        limit: Limit = PAGE_DEFAULT,
        cursor: CursorText = None,
        symbol: SymbolFilter = None,
    ) -> Response:
        user_id = _user_of(principal)
        filters = {
            "list": "orders",
            "user": user_id,
            "account": account_id,
            "symbol": symbol and full_symbol(symbol),
        }
        found = await reports.list_order_history(
            user_id=user_id,
            account_id=account_id,
            limit=limit + 1,
            before=None if cursor is None else cursors.decode(cursor, filters=filters)["id"],
            symbol=filters["symbol"],
            now=clock.now(),
        )
        headers = {}
        if len(found) > limit:
            position = {"id": found[limit - 1].order_id}
            headers["X-Next-Cursor"] = cursors.encode(position, filters=filters)
        return _json([OrderView.of(each) for each in found[:limit]], headers)

    @router.get(
        "/orders/{orderId}",
        access=_READ,
        summary="One order",
        response_model=OrderView,
        errors=[AccountNotFoundError, OrderNotFoundError],
    )
    async def get_order(
        order_id: OrderIdText, principal: CurrentPrincipal, account_id: AccountId
    ) -> Response:
        found = await reports.get_order(
            user_id=_user_of(principal),
            account_id=account_id,
            order_id=order_id,
            now=clock.now(),
        )
        return _json(OrderView.of(found))

    @router.put(
        "/orders/{orderId}",
        access=_TRADE,
        summary="Change an open order",
        response_model=DoneView,
        errors=[
            AccountNotFoundError,
            InsufficientMarginError,
            MarketUnavailableError,
            OrderClosedError,
            OrderInvalidError,
            OrderNotFoundError,
        ],
    )
    async def modify_order(
        order_id: OrderIdText,
        request: OrderPatch,
        principal: CurrentPrincipal,
        account_id: AccountId,
    ) -> Response:
        order = await orders.modify_order(
            user_id=_user_of(principal),
            account_id=account_id,
            order_id=order_id,
            change=request.to_change(),
            now=clock.now(),
        )
        return _json(DoneView(message="the order is changed", order_id=order.order_id))

    @router.delete(
        "/orders/{orderId}",
        access=_TRADE,
        summary="Cancel what is left of an order",
        response_model=DoneView,
        errors=[AccountNotFoundError, OrderClosedError, OrderNotFoundError],
    )
    async def cancel_order(
        order_id: OrderIdText, principal: CurrentPrincipal, account_id: AccountId
    ) -> Response:
        order = await orders.cancel_order(
            user_id=_user_of(principal),
            account_id=account_id,
            order_id=order_id,
            now=clock.now(),
        )
        assert order.status is OrderStatus.CANCELED, "else it raises"
        return _json(DoneView(message="the order is canceled", order_id=order.order_id))


def _add_positions(
    router: ModuleRouter,
    orders: OrderService,
    reports: ReportService,
    clock: Clock,
    cursors: Cursors,
) -> None:
    @router.get(
        "/positions",
        access=_READ,
        summary="What is held, marked to the newest quotes",
        response_model=list[PositionView],
        responses=_OFFSETS,
        errors=[AccountNotFoundError],
    )
    async def list_positions(principal: CurrentPrincipal, account_id: AccountId) -> Response:
        found = await reports.list_positions(
            user_id=_user_of(principal), account_id=account_id, now=clock.now()
        )
        views = [PositionView.of(each, found.quotes) for each in found.positions]
        return _json(views, _offsets(found.account))

    @router.delete(
        "/positions/{positionId}",
        access=_TRADE,
        summary="Close a position, or a part of it, at the market",
        response_model=DoneView,
        responses=_REPLAYED,
        errors=[*_ORDER_ERRORS, PositionNotFoundError],
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
        placed = await orders.close_position(
            user_id=_user_of(principal),
            account_id=account_id,
            symbol=full_symbol(position_id),
            quantity=amount,
            idempotency_key=idempotency_key,
            now=clock.now(),
        )
        view = DoneView(message="closed at the market", order_id=placed.order_id)
        return _json(view, _replayed(placed.is_replay))

    @router.get(
        "/executions",
        access=_READ,
        summary="Fills, newest first",
        response_model=list[ExecutionView],
        responses=_NEXT_CURSOR,
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
        user_id = _user_of(principal)
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
        return _json([ExecutionView.of(each) for each in page], headers)


def _add_accounts(
    router: ModuleRouter, accounts: AccountService, reports: ReportService, clock: Clock
) -> None:
    @router.get(
        "/account",
        access=_READ,
        summary="The account and what it is worth",
        response_model=StateView,
        errors=[AccountNotFoundError],
    )
    async def get_account(principal: CurrentPrincipal, account_id: AccountId) -> Response:
        report = await reports.get_state(
            user_id=_user_of(principal), account_id=account_id, now=clock.now()
        )
        return _json(StateView.of(report))

    @router.get(
        "/accounts",
        access=_READ,
        summary="The user's trading accounts, the first one first",
        response_model=list[AccountView],
    )
    async def list_accounts(principal: CurrentPrincipal) -> Response:
        found = await accounts.list_accounts(user_id=_user_of(principal), now=clock.now())
        return _json([AccountView.of(each) for each in found])

    @router.post(
        "/accounts",
        access=_TRADE,
        status_code=201,
        summary="Open a further paper account",
        response_model=AccountView,
        errors=[AccountLimitError, IdempotencyKeyReusedError, RequestInProgressError],
    )
    async def open_account(
        request: AccountRequest,
        principal: CurrentPrincipal,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        account, is_replay = await accounts.open_account(
            user_id=_user_of(principal),
            name=request.name,
            idempotency_key=idempotency_key,
            now=clock.now(),
        )
        return _json(AccountView.of(account), _replayed(is_replay), status_code=201)

    @router.get(
        "/accounts/{accountId}/state",
        access=_READ,
        summary="What an account is worth, marked to the newest quotes",
        response_model=StateView,
        errors=[AccountNotFoundError],
    )
    async def get_state(account_id: AccountIdText, principal: CurrentPrincipal) -> Response:
        report = await reports.get_state(
            user_id=_user_of(principal), account_id=account_id, now=clock.now()
        )
        return _json(StateView.of(report))

    @router.get(
        "/accounts/{accountId}/events",
        access=_READ,
        summary="The account's gapless events behind a number, oldest first",
        response_model=list[EventView],
        responses=_OFFSETS,
        errors=[AccountNotFoundError],
    )
    async def list_events(
        account_id: AccountIdText,
        principal: CurrentPrincipal,
        since: Annotated[int, Query(ge=0, le=2**53, description="the last number seen")] = 0,
        limit: Annotated[int, Query(ge=1, le=EVENTS_MAX, description="events at most")] = 200,
    ) -> Response:
        account, events = await reports.list_events(
            user_id=_user_of(principal),
            account_id=account_id,
            since=since,
            limit=limit,
            now=clock.now(),
        )
        return _json([EventView.of(each) for each in events], _offsets(account))


def _user_of(principal: Principal) -> str:
    if not principal.user_id:
        raise PermissionDeniedError("a trading account belongs to a user; act for one")
    return principal.user_id


def _json(view: Any, headers: dict[str, str] | None = None, *, status_code: int = 200) -> Response:
    return Response(
        encode(view),
        status_code=status_code,
        headers={"Cache-Control": "no-store", **(headers or {})},
        media_type="application/json",
    )


def _replayed(is_replay: bool) -> dict[str, str]:
    return {"Idempotent-Replayed": "true"} if is_replay else {}


def _offsets(account: Account) -> dict[str, str]:
    return {
        "X-Account-Epoch": account.epoch,
        "X-Account-Offset": str(account.event_sequence),
    }
