"""Routes of orders."""

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import FieldError
from trading_api.modules.broker.api.v1.parts import (
    NEXT_CURSOR,
    OFFSETS,
    ORDER_ERRORS,
    PAGE_DEFAULT,
    READ,
    REPLAYED,
    SHARED,
    TRADE,
    AccountId,
    CursorText,
    Limit,
    OrderIdText,
    SymbolFilter,
    json_of,
    offsets,
    replayed,
    user_of,
)
from trading_api.modules.broker.domain.instrument import full_symbol
from trading_api.modules.broker.domain.order import OrderStatus, OrderTicket
from trading_api.modules.broker.errors import (
    AccountNotFoundError,
    InstrumentNotTradableError,
    InstrumentUnknownError,
    InsufficientMarginError,
    MarketUnavailableError,
    OrderClosedError,
    OrderInvalidError,
    OrderNotFoundError,
    PostOnlyError,
)
from trading_api.modules.broker.schemas import (
    CanceledView,
    ClientOrderId,
    DoneView,
    OrderPatch,
    OrderRequest,
    OrderView,
    PlacedView,
    PreviewView,
)
from trading_api.modules.broker.schemas.wire import SIDES, SideText
from trading_api.modules.broker.service import OrderService, ReportService
from trading_api.modules.broker.service.orders import canonical
from trading_api.runtime.http import CurrentPrincipal, IdempotencyKey, ModuleRouter
from trading_api.runtime.http.cursors import CursorInvalidError, Cursors


def confirm_id_of(ticket: OrderTicket, cursors: Cursors) -> str:
    """Return what names a previewed ticket: placing it with this id places nothing else."""
    return cursors.encode({}, filters=_named(ticket))


def confirmed(request: OrderRequest, cursors: Cursors) -> OrderTicket:
    """Return a request's ticket, which a given confirmId must have been made for.

    Raises:
        OrderInvalidError: the preview was of another order.
    """
    ticket = request.to_ticket()
    if request.confirm_id is not None:
        try:
            cursors.decode(request.confirm_id, filters=_named(ticket))
        except CursorInvalidError as error:
            message = "belongs to the preview of another order"
            raise OrderInvalidError(
                f"confirmId: {message}", errors=[FieldError("confirmId", "mismatch", message)]
            ) from error
    return ticket


def _named(ticket: OrderTicket) -> dict[str, str]:
    return {"preview": repr(canonical(ticket, None, ""))}


def add_orders(
    router: ModuleRouter,
    orders: OrderService,
    reports: ReportService,
    clock: Clock,
    cursors: Cursors,
) -> None:
    """Declare the routes of orders."""

    @router.post(
        "/orders",
        access=TRADE,
        summary="Place an order",
        response_model=PlacedView,
        responses=REPLAYED,
        errors=ORDER_ERRORS,
    )
    async def place_order(
        request: OrderRequest,
        principal: CurrentPrincipal,
        account_id: AccountId,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        placed = await orders.place_order(
            user_id=user_of(principal),
            account_id=account_id,
            ticket=confirmed(request, cursors),
            client_order_id=request.client_order_id,
            idempotency_key=idempotency_key,
            now=clock.now(),
        )
        return json_of(PlacedView(order_id=placed.order_id), replayed(placed.is_replay))

    @router.post(
        "/orders/preview",
        access=READ,
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
        ticket = request.to_ticket()
        preview = await orders.preview_order(
            user_id=user_of(principal), account_id=account_id, ticket=ticket, now=clock.now()
        )
        return json_of(PreviewView.of(preview, confirm_id=confirm_id_of(ticket, cursors)))

    @router.get(
        "/orders",
        access=SHARED,
        summary="Open orders and those closed since 00:00 UTC, newest first, at most 1000",
        response_model=list[OrderView],
        responses=OFFSETS,
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
            user_id=user_of(principal),
            account_id=account_id,
            client_order_id=client_order_id,
            now=clock.now(),
        )
        return json_of([OrderView.of(each) for each in found.orders], offsets(found.account))

    @router.get(
        "/orders/history",
        rate="history",
        access=SHARED,
        summary="Closed orders, newest first",
        response_model=list[OrderView],
        responses=NEXT_CURSOR,
        errors=[AccountNotFoundError, CursorInvalidError],
    )
    async def list_order_history(
        principal: CurrentPrincipal,
        account_id: AccountId,
        limit: Limit = PAGE_DEFAULT,
        cursor: CursorText = None,
        symbol: SymbolFilter = None,
    ) -> Response:
        user_id = user_of(principal)
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
        return json_of([OrderView.of(each) for each in found[:limit]], headers)

    @router.delete(
        "/orders",
        access=TRADE,
        summary="Cancel every order of an instrument and a side, or all",
        response_model=CanceledView,
        errors=[AccountNotFoundError],
    )
    async def cancel_orders(
        principal: CurrentPrincipal,
        account_id: AccountId,
        symbol: SymbolFilter = None,
        side: Annotated[SideText | None, Query(description="1 buy, -1 sell")] = None,
    ) -> Response:
        order_ids = await orders.cancel_orders(
            user_id=user_of(principal),
            account_id=account_id,
            symbol=symbol and full_symbol(symbol),
            side=None if side is None else SIDES[side],
            now=clock.now(),
        )
        message = f"{len(order_ids)} orders are canceled"
        return json_of(CanceledView(message=message, order_ids=order_ids))

    @router.get(
        "/orders/{orderId}",
        access=SHARED,
        summary="One order",
        response_model=OrderView,
        errors=[AccountNotFoundError, OrderNotFoundError],
    )
    async def get_order(
        order_id: OrderIdText, principal: CurrentPrincipal, account_id: AccountId
    ) -> Response:
        found = await reports.get_order(
            user_id=user_of(principal),
            account_id=account_id,
            order_id=order_id,
            now=clock.now(),
        )
        return json_of(OrderView.of(found))

    @router.put(
        "/orders/{orderId}",
        access=TRADE,
        summary="Change an open order",
        response_model=DoneView,
        errors=[
            AccountNotFoundError,
            InsufficientMarginError,
            MarketUnavailableError,
            OrderClosedError,
            OrderInvalidError,
            OrderNotFoundError,
            PostOnlyError,
        ],
    )
    async def modify_order(
        order_id: OrderIdText,
        request: OrderPatch,
        principal: CurrentPrincipal,
        account_id: AccountId,
    ) -> Response:
        order = await orders.modify_order(
            user_id=user_of(principal),
            account_id=account_id,
            order_id=order_id,
            change=request.to_change(),
            now=clock.now(),
        )
        return json_of(DoneView(message="the order is changed", order_id=order.order_id))

    @router.delete(
        "/orders/{orderId}",
        access=TRADE,
        summary="Cancel what is left of an order",
        response_model=DoneView,
        errors=[AccountNotFoundError, OrderClosedError, OrderNotFoundError],
    )
    async def cancel_order(
        order_id: OrderIdText, principal: CurrentPrincipal, account_id: AccountId
    ) -> Response:
        order = await orders.cancel_order(
            user_id=user_of(principal),
            account_id=account_id,
            order_id=order_id,
            now=clock.now(),
        )
        assert order.status is OrderStatus.CANCELED, "else it raises"
        return json_of(DoneView(message="the order is canceled", order_id=order.order_id))
