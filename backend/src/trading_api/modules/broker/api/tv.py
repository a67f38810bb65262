"""TradingView's Broker REST dialect: forms in, ``{"s": "ok", "d": …}`` out, errors in its shape.

Each route translates to and from the native one of the same name and calls the same services, so
that the two can't differ in what they do. ``requestId`` is the idempotency key of an order.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from fractions import Fraction
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Path as PathParameter
from fastapi import Query
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import (
    FieldError,
    IdempotencyKeyReusedError,
    InvalidInputError,
    RateLimitedError,
    RequestInProgressError,
    TokenInvalidError,
    UnavailableError,
)
from trading_api.modules.broker.api.v1.orders import confirm_id_of, confirmed
from trading_api.modules.broker.api.v1.parts import (
    ORDER_ERRORS,
    READ,
    TRADE,
    PositionIdText,
    user_of,
)
from trading_api.modules.broker.domain.instrument import full_symbol
from trading_api.modules.broker.errors import (
    AccountNotFoundError,
    LeverageDeniedError,
    LeverageInvalidError,
    MarketUnavailableError,
    OrderClosedError,
    OrderNotFoundError,
    PositionNotFoundError,
    StreamsExceededError,
)
from trading_api.modules.broker.ports import SignIn
from trading_api.modules.broker.schemas import (
    ExecutionView,
    InstrumentView,
    LeverageInfoView,
    LeveragePreviewView,
    LeverageRequest,
    OrderPatch,
    OrderRequest,
    OrderView,
    PositionRequest,
    PositionView,
    PreviewView,
    StateView,
    encode,
    tv,
)
from trading_api.modules.broker.schemas.wire import SIDES, rounded
from trading_api.modules.broker.service import AccountService, OrderService, ReportService
from trading_api.modules.broker.service.leverage import LeverageService
from trading_api.modules.broker.service.markets import MarketService
from trading_api.modules.broker.service.positions import PositionService
from trading_api.modules.broker.service.streaming import Batches, MarketStream
from trading_api.runtime.http import Access, CurrentPrincipal, ModuleRouter
from trading_api.runtime.http.cursors import Cursors
from trading_api.runtime.http.problems import Problem, field_errors, status_of
from trading_api.runtime.http.routing import Declaration
from trading_api.runtime.http.wire import Symbol

M = TypeVar("M", bound=BaseModel)

COUNT_DEFAULT = 100
COUNT_MAX = 1000
SYMBOLS_MAX = 100

Account = Annotated[str, PathParameter(alias="accountId", min_length=1, max_length=64)]
OrderId = Annotated[str, PathParameter(alias="orderId", min_length=1, max_length=64)]
Locale = Annotated[
    str | None, Query(max_length=16, description="texts are in English whatever it says")
]
RequestId = Annotated[
    str | None,
    Query(
        alias="requestId",
        pattern=r"^[\x21-\x7e]{1,200}$",
        description="repeat the request with the same id and get the first answer",
    ),
]
ConfirmId = Annotated[
    str | None, Query(alias="confirmId", max_length=512, description="of the preview")
]
MaxCount = Annotated[
    int, Query(alias="maxCount", ge=1, le=COUNT_MAX, description="rows at most, newest first")
]

_MARKET = [AccountNotFoundError, MarketUnavailableError]
_REPEATS = [IdempotencyKeyReusedError, RequestInProgressError]
_NUMBERS = {
    "qty": "qty",
    "limitPrice": "limitPrice",
    "stopPrice": "stopPrice",
    "stopLoss": "stopLoss",
    "takeProfit": "takeProfit",
    "trailingStopPips": "trailingStopPips",
}
_OPTIONAL = (
    "qty",
    "limitPrice",
    "stopPrice",
    "durationType",
    "durationDateTime",
    "stopLoss",
    "takeProfit",
    "trailingStopPips",
    "isClose",
    "currentAsk",
    "currentBid",
    "digitalSignature",
)
_IGNORED = {"digitalSignature", "currentAsk", "currentBid", "locale"}


def tv_error(problem: Problem) -> Response:
    """Return any error in the dialect's shape; the status and our code stay beside it."""
    headers = {"Cache-Control": "no-store"}
    if problem.status == 401:
        headers["WWW-Authenticate"] = f'Bearer error="{problem.code}"'
    body = {"s": "error", "errmsg": problem.detail, "code": problem.code}
    return Response(
        orjson.dumps(body),
        status_code=problem.status,
        headers=headers,
        media_type="application/json",
    )


def build_tv_router(
    *,
    accounts: AccountService,
    orders: OrderService,
    positions: PositionService,
    reports: ReportService,
    leverage: LeverageService,
    markets: MarketService,
    stream: MarketStream,
    sign_in: SignIn,
    clock: Clock,
    cursors: Cursors,
) -> ModuleRouter:
    """Declare the routes of the dialect."""
    router = ModuleRouter(tags=["broker TradingView"], error_shape=tv_error)
    _add_sign_in(router, sign_in, clock)
    _add_configuration(router, accounts, markets, clock)
    _add_orders(router, orders, reports, clock, cursors)
    _add_positions(router, positions, reports, clock)
    _add_leverage(router, leverage, clock)
    _add_market(router, markets, stream, clock)
    for declaration in router.declarations:
        own = declaration.options.get("responses", {})
        declaration.options["responses"] = {**_error_responses(declaration), **own}
    return router


def _error_responses(declaration: Declaration) -> dict[int | str, dict[str, Any]]:
    """Document the errors that this process answers; a body or address too long, nginx does."""
    statuses = {400, 422, 429, 503, *map(status_of, declaration.errors)}
    if declaration.access.kind != "public":
        statuses |= {401, 403}
    if declaration.method in ("POST", "PUT"):
        statuses.add(415)
    return {status: {"model": tv.ErrorAnswer} for status in sorted(statuses)}


def _add_sign_in(router: ModuleRouter, sign_in: SignIn, clock: Clock) -> None:
    @router.post(
        "/authorize",
        access=Access.public(),
        rate="login",
        body="form",
        summary="Sign in with login and password; every call gives a new token",
        response_model=tv.Answer[tv.Token],
        errors=[TokenInvalidError, RateLimitedError, UnavailableError],
        openapi_extra=_form("login", "password"),
    )
    async def authorize(request: Request, locale: Locale = None) -> Response:
        form = await _read_form(request)
        missing = [name for name in ("login", "password") if not form.get(name)]
        if missing:
            raise _invalid([FieldError(name, "missing", "is needed") for name in missing])
        token, seconds = await sign_in.sign_in(login=form["login"], password=form["password"])
        expiration = int(clock.now().timestamp()) + seconds
        return _ok(tv.Token(access_token=token, expiration=expiration))

    @router.post(
        "/logout",
        access=Access.user(),
        body="any",
        summary="End the sign-in",
        response_model=tv.Done,
        errors=[UnavailableError],
    )
    async def log_out(request: Request, principal: CurrentPrincipal) -> Response:
        credential = _credential(request)
        if credential is None:
            raise TokenInvalidError("send the token as a bearer")
        await sign_in.sign_out(credential=credential)
        return _done()


def _add_configuration(
    router: ModuleRouter, accounts: AccountService, markets: MarketService, clock: Clock
) -> None:
    @router.get(
        "/config",
        access=READ,
        summary="Tell what the broker shows and how often to ask",
        response_model=tv.Answer[tv.Config],
    )
    async def get_config(locale: Locale = None) -> Response:
        return _ok(tv.config())

    @router.get(
        "/mapping",
        access=Access.public(),
        summary="Tell which of the broker's symbols is which of TradingView's",
        response_model=tv.SymbolMapping,
        errors=[MarketUnavailableError],
    )
    async def get_mapping() -> Response:
        return _json(tv.mapping(await markets.list_instruments()))

    @router.get(
        "/accounts",
        access=READ,
        summary="The user's trading accounts",
        response_model=tv.Answer[list[tv.TvAccount]],
    )
    async def list_accounts(principal: CurrentPrincipal, locale: Locale = None) -> Response:
        found = await accounts.list_accounts(user_id=user_of(principal), now=clock.now())
        return _ok([tv.account_of(each) for each in found])

    @router.get(
        "/accounts/{accountId}/instruments",
        access=READ,
        summary="Rules of everything that an account can trade",
        response_model=tv.Answer[list[tv.TvInstrument]],
        errors=_MARKET,
    )
    async def list_instruments(
        account_id: Account, principal: CurrentPrincipal, locale: Locale = None
    ) -> Response:
        found = await markets.list_for_account(
            user_id=user_of(principal), account_id=account_id, now=clock.now()
        )
        views = []
        for instrument, in_force in found:
            view = InstrumentView.of(instrument, markets.policy, None)
            rate = {"margin_rate": rounded(Fraction(1, in_force))}
            views.append(tv.instrument_of(view.model_copy(update=rate)))
        return _ok(views)


def _add_orders(
    router: ModuleRouter,
    orders: OrderService,
    reports: ReportService,
    clock: Clock,
    cursors: Cursors,
) -> None:
    @router.get(
        "/accounts/{accountId}/state",
        access=READ,
        summary="What an account is worth",
        response_model=tv.Answer[tv.TvState],
        errors=[AccountNotFoundError],
    )
    async def get_state(
        account_id: Account, principal: CurrentPrincipal, locale: Locale = None
    ) -> Response:
        report = await reports.get_state(
            user_id=user_of(principal), account_id=account_id, now=clock.now()
        )
        return _ok(tv.state_of(StateView.of(report)))

    @router.get(
        "/accounts/{accountId}/balances",
        access=READ,
        summary="The account's money",
        response_model=tv.Answer[list[tv.TvBalance]],
        errors=[AccountNotFoundError],
    )
    async def list_balances(
        account_id: Account, principal: CurrentPrincipal, locale: Locale = None
    ) -> Response:
        report = await reports.get_state(
            user_id=user_of(principal), account_id=account_id, now=clock.now()
        )
        return _ok([tv.balance_of(StateView.of(report))])

    @router.get(
        "/accounts/{accountId}/orders",
        access=READ,
        summary="Orders of this session and all that still live",
        response_model=tv.Answer[list[tv.TvOrder]],
        errors=[AccountNotFoundError],
    )
    async def list_orders(
        account_id: Account, principal: CurrentPrincipal, locale: Locale = None
    ) -> Response:
        found = await reports.list_orders(
            user_id=user_of(principal), account_id=account_id, now=clock.now()
        )
        return _ok([tv.order_of(_fields(OrderView.of(each))) for each in found.orders])

    @router.get(
        "/accounts/{accountId}/ordersHistory",
        access=READ,
        summary="Orders in their final state, newest first",
        response_model=tv.Answer[list[tv.TvOrder]],
        errors=[AccountNotFoundError],
    )
    async def list_order_history(
        account_id: Account,
        principal: CurrentPrincipal,
        max_count: MaxCount = COUNT_DEFAULT,
        locale: Locale = None,
    ) -> Response:
        found = await reports.list_order_history(
            user_id=user_of(principal),
            account_id=account_id,
            limit=max_count,
            before=None,
            symbol=None,
            now=clock.now(),
        )
        return _ok([tv.order_of(_fields(OrderView.of(each))) for each in found])

    @router.post(
        "/accounts/{accountId}/orders",
        access=TRADE,
        body="form",
        summary="Place an order",
        response_model=tv.Answer[tv.TvPlaced],
        errors=ORDER_ERRORS,
        openapi_extra=_form("instrument", "side", "type", "qty", optional=_OPTIONAL),
    )
    async def place_order(
        request: Request,
        account_id: Account,
        principal: CurrentPrincipal,
        request_id: RequestId = None,
        confirm_id: ConfirmId = None,
        locale: Locale = None,
    ) -> Response:
        form = await _read_form(request)
        wanted = _order_request(form if confirm_id is None else {**form, "confirmId": confirm_id})
        placed = await orders.place_order(
            user_id=user_of(principal),
            account_id=account_id,
            ticket=confirmed(wanted, cursors),
            client_order_id=None,
            idempotency_key=None if request_id is None else f"tv:{account_id}:{request_id}",
            now=clock.now(),
        )
        return _ok(tv.TvPlaced(order_id=placed.order_id))

    @router.post(
        "/accounts/{accountId}/previewOrder",
        access=READ,
        body="form",
        summary="Reckon what an order would cost; nothing is placed",
        response_model=tv.Answer[tv.TvPreview],
        errors=ORDER_ERRORS,
        openapi_extra=_form("instrument", "side", "type", "qty", optional=(*_OPTIONAL, "id")),
    )
    async def preview_order(
        request: Request, account_id: Account, principal: CurrentPrincipal, locale: Locale = None
    ) -> Response:
        form = await _read_form(request)
        form.pop("id", None)
        ticket = _order_request(form).to_ticket()
        preview = await orders.preview_order(
            user_id=user_of(principal), account_id=account_id, ticket=ticket, now=clock.now()
        )
        return _ok(PreviewView.of(preview, confirm_id=confirm_id_of(ticket, cursors)))

    @router.put(
        "/accounts/{accountId}/orders/{orderId}",
        access=TRADE,
        body="form",
        summary="Change an order that still lives",
        response_model=tv.Done,
        errors=[*ORDER_ERRORS, OrderClosedError, OrderNotFoundError],
        openapi_extra=_form(optional=_OPTIONAL),
    )
    async def modify_order(
        request: Request,
        account_id: Account,
        order_id: OrderId,
        principal: CurrentPrincipal,
        confirm_id: ConfirmId = None,
        locale: Locale = None,
    ) -> Response:
        change = _order_patch(await _read_form(request))
        await orders.modify_order(
            user_id=user_of(principal),
            account_id=account_id,
            order_id=order_id,
            change=change.to_change(),
            now=clock.now(),
        )
        return _done()

    @router.delete(
        "/accounts/{accountId}/orders/{orderId}",
        access=TRADE,
        summary="Cancel what is left of an order",
        response_model=tv.Done,
        errors=[AccountNotFoundError, OrderClosedError, OrderNotFoundError],
    )
    async def cancel_order(
        account_id: Account, order_id: OrderId, principal: CurrentPrincipal, locale: Locale = None
    ) -> Response:
        await orders.cancel_order(
            user_id=user_of(principal),
            account_id=account_id,
            order_id=order_id,
            now=clock.now(),
        )
        return _done()


def _add_positions(
    router: ModuleRouter, positions: PositionService, reports: ReportService, clock: Clock
) -> None:
    @router.get(
        "/accounts/{accountId}/positions",
        access=READ,
        summary="What is held, marked to the newest quotes",
        response_model=tv.Answer[list[tv.TvPosition]],
        errors=[AccountNotFoundError],
    )
    async def list_positions(
        account_id: Account, principal: CurrentPrincipal, locale: Locale = None
    ) -> Response:
        found = await reports.list_positions(
            user_id=user_of(principal), account_id=account_id, now=clock.now()
        )
        views = [PositionView.of(each, found.quotes) for each in found.positions]
        return _ok([tv.position_of(_fields(each)) for each in views])

    @router.put(
        "/accounts/{accountId}/positions/{positionId}",
        access=TRADE,
        body="form",
        summary="Have a position on `side`, reversed if need be, with exactly these brackets",
        response_model=tv.Done,
        errors=[*ORDER_ERRORS, PositionNotFoundError],
        openapi_extra=_form(optional=("stopLoss", "takeProfit", "trailingStopPips", "side")),
    )
    async def change_position(
        request: Request,
        account_id: Account,
        position_id: PositionIdText,
        principal: CurrentPrincipal,
        locale: Locale = None,
    ) -> Response:
        wish = _valid(PositionRequest, await _read_form(request))
        if wish.side is not None:
            await positions.change_position(
                user_id=user_of(principal),
                account_id=account_id,
                position_id=position_id,
                side=SIDES[wish.side],
                wanted=wish.to_brackets(),
                now=clock.now(),
            )
            return _done()
        await positions.set_brackets(
            user_id=user_of(principal),
            account_id=account_id,
            position_id=position_id,
            wanted=wish.to_brackets(),
            now=clock.now(),
        )
        return _done()

    @router.delete(
        "/accounts/{accountId}/positions/{positionId}",
        access=TRADE,
        body="form",
        summary="Close a position, or a part of it, at the market",
        response_model=tv.Done,
        errors=[*ORDER_ERRORS, PositionNotFoundError],
        openapi_extra=_form(optional=("amount",)),
    )
    async def close_position(
        request: Request,
        account_id: Account,
        position_id: PositionIdText,
        principal: CurrentPrincipal,
        amount: Annotated[str | None, Query(max_length=32, description="or in the body")] = None,
        locale: Locale = None,
    ) -> Response:
        text = (await _read_form(request)).get("amount", amount)
        await positions.close_position(
            user_id=user_of(principal),
            account_id=account_id,
            position_id=position_id,
            quantity=None if text is None else _amount(text),
            idempotency_key=None,
            now=clock.now(),
        )
        return _done()

    @router.get(
        "/accounts/{accountId}/executions",
        access=READ,
        summary="Fills, newest first",
        response_model=tv.Answer[list[tv.TvExecution]],
        errors=[AccountNotFoundError],
    )
    async def list_executions(
        account_id: Account,
        principal: CurrentPrincipal,
        instrument: Annotated[Symbol | None, Query(description="only this one")] = None,
        max_count: MaxCount = COUNT_DEFAULT,
        locale: Locale = None,
    ) -> Response:
        found = await reports.list_executions(
            user_id=user_of(principal),
            account_id=account_id,
            limit=max_count,
            symbol=None if instrument is None else full_symbol(instrument),
            now=clock.now(),
        )
        views = [ExecutionView.of(each) for each in found.executions]
        return _ok([tv.execution_of(_fields(each)) for each in views])


def _add_leverage(router: ModuleRouter, leverage: LeverageService, clock: Clock) -> None:
    errors = [*_MARKET, LeverageInvalidError, LeverageDeniedError]
    fields = ("instrument", "side", "orderType")

    @router.post(
        "/accounts/{accountId}/getLeverage",
        access=READ,
        body="form",
        summary="The leverage in force on an instrument, and what may be chosen",
        response_model=tv.Answer[tv.TvLeverageInfo],
        errors=_MARKET,
        openapi_extra=_form(*fields),
    )
    async def get_leverage(
        request: Request, account_id: Account, principal: CurrentPrincipal, locale: Locale = None
    ) -> Response:
        wanted = _leverage_request({"leverage": "1", **await _read_form(request)})
        info = await leverage.get_info(
            user_id=user_of(principal),
            account_id=account_id,
            symbol=wanted.instrument,
            now=clock.now(),
        )
        return _ok(LeverageInfoView.of(info))

    @router.post(
        "/accounts/{accountId}/setLeverage",
        access=TRADE,
        body="form",
        summary="Put a leverage in force",
        response_model=tv.Answer[tv.TvLeverage],
        errors=errors,
        openapi_extra=_form(*fields, "leverage"),
    )
    async def set_leverage(
        request: Request, account_id: Account, principal: CurrentPrincipal, locale: Locale = None
    ) -> Response:
        wanted = _leverage_request(await _read_form(request))
        info = await leverage.set_leverage(
            user_id=user_of(principal),
            account_id=account_id,
            symbol=wanted.instrument,
            leverage=wanted.leverage,
            now=clock.now(),
        )
        return _ok({"leverage": info.leverage})

    @router.post(
        "/accounts/{accountId}/previewLeverage",
        access=READ,
        body="form",
        summary="Reckon what a leverage would mean; nothing changes",
        response_model=tv.Answer[tv.TvLeveragePreview],
        errors=errors,
        openapi_extra=_form(*fields, "leverage"),
    )
    async def preview_leverage(
        request: Request, account_id: Account, principal: CurrentPrincipal, locale: Locale = None
    ) -> Response:
        wanted = _leverage_request(await _read_form(request))
        preview = await leverage.preview_leverage(
            user_id=user_of(principal),
            account_id=account_id,
            symbol=wanted.instrument,
            leverage=wanted.leverage,
            now=clock.now(),
        )
        return _ok(LeveragePreviewView.of(preview))


def _add_market(
    router: ModuleRouter, markets: MarketService, stream: MarketStream, clock: Clock
) -> None:
    @router.get(
        "/quotes",
        access=READ,
        rate="history",
        summary="The newest quotes of some symbols",
        response_model=tv.Answer[list[tv.TvQuote]],
        errors=_MARKET,
    )
    async def list_quotes(
        principal: CurrentPrincipal,
        account_id: Annotated[str, Query(alias="accountId", min_length=1, max_length=64)],
        symbols: Annotated[str, Query(min_length=1, max_length=4096, description="by comma")],
        locale: Locale = None,
    ) -> Response:
        asked = [each.strip().upper() for each in symbols.split(",") if each.strip()]
        if len(asked) > SYMBOLS_MAX:
            message = f"may name {SYMBOLS_MAX} at most"
            raise _invalid([FieldError("symbols", "too_many", message)])
        found = await markets.list_quotes(
            user_id=user_of(principal),
            account_id=account_id,
            symbols=[full_symbol(each) for each in asked],
            now=clock.now(),
        )
        views = []
        for name, (_, instrument, quote) in zip(asked, found, strict=True):
            view = None
            if instrument is not None:
                view = InstrumentView.of(instrument, markets.policy, quote)
            views.append(tv.quote_of(name, quote, view))
        return _ok(views)

    @router.get(
        "/depth",
        access=READ,
        rate="history",
        summary="Prices and sizes of a symbol: the venue has one level",
        response_model=tv.Answer[tv.Depth],
        errors=_MARKET,
    )
    async def get_depth(
        principal: CurrentPrincipal,
        account_id: Annotated[str, Query(alias="accountId", min_length=1, max_length=64)],
        symbol: Annotated[Symbol, Query()],
        locale: Locale = None,
    ) -> Response:
        ((_, instrument, quote),) = await markets.list_quotes(
            user_id=user_of(principal),
            account_id=account_id,
            symbols=[full_symbol(symbol)],
            now=clock.now(),
        )
        if instrument is None:
            raise _invalid([FieldError("symbol", "unknown", "names no instrument")])
        return _ok(tv.depth_of(instrument, quote))

    @router.get(
        "/groups",
        access=READ,
        summary="The groups of symbols",
        response_model=tv.Answer[tv.Groups],
    )
    async def list_groups() -> Response:
        return _ok(tv.Groups(groups=[tv.Group(id=tv.GROUP)]))

    @router.get(
        "/permissions",
        access=READ,
        summary="The groups that the user may see",
        response_model=tv.Answer[tv.Permissions],
    )
    async def list_permissions() -> Response:
        return _ok(tv.Permissions(groups=[tv.GROUP]))

    @router.get(
        "/symbol_info",
        access=READ,
        summary="All about the symbols of a group, as columns",
        response_model=dict[str, Any],
        errors=[MarketUnavailableError],
    )
    async def get_symbol_info(
        group: Annotated[str | None, Query(max_length=64, description="all where absent")] = None,
    ) -> Response:
        if group not in (None, tv.GROUP):
            raise _invalid([FieldError("group", "unknown", f"there is {tv.GROUP} alone")])
        return _json(tv.symbol_columns(await markets.list_instruments()))

    @router.get(
        "/history",
        access=READ,
        rate="history",
        summary="Bars, both ends of the window included",
        response_model=tv.History,
        errors=[MarketUnavailableError],
    )
    async def read_history(
        request: Request,
        symbol: Annotated[Symbol, Query()],
        resolution: Annotated[str, Query(min_length=1, max_length=8)],
        from_: Annotated[int, Query(alias="from", ge=0, le=2**40)],
        to: Annotated[int, Query(ge=0, le=2**40)],
    ) -> Response:
        columns = await markets.read_history(
            symbol=full_symbol(symbol),
            resolution=resolution,
            from_=from_,
            to=to,
            credential=_credential(request),
        )
        return _json({"s": "ok", **columns})

    @router.get(
        "/streaming",
        access=READ,
        summary="Quotes, trades and daily bars of everything, one JSON per line, without an end",
        response_model=None,
        responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
        errors=[StreamsExceededError],
    )
    async def open_stream(request: Request, principal: CurrentPrincipal) -> Response:
        return _StreamResponse(
            await stream.open(user_id=user_of(principal), credential=_credential(request)),
            media_type="application/json",
            # Else nginx would gather lines until its buffer is full.
            headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"},
        )


class _StreamResponse(StreamingResponse):
    """Batches of lines as they come, closed with the answer however that ends."""

    def __init__(self, batches: Batches, **options: Any) -> None:
        super().__init__(_encode_lines(batches), **options)
        self._batches = batches

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._batches):
            await super().__call__(scope, receive, send)


async def _encode_lines(batches: Batches) -> AsyncIterator[bytes]:
    async for lines in batches:
        if lines:
            yield b"".join(orjson.dumps(each) + b"\n" for each in lines)


async def _read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form; empty without a body.

    Raises:
        InvalidInputError: a field comes twice, or is a file.
    """
    if not await request.body():
        return {}
    form = await request.form(max_files=0, max_fields=64)
    found: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            raise _invalid([FieldError(name, "file", "is no text")])
        if name in found:
            raise _invalid([FieldError(name, "duplicate_key", "may appear once")])
        if "\x00" in value:
            raise _invalid([FieldError(name, "text", "holds a NUL")])
        found[name] = value
    return {name: value for name, value in found.items() if name not in _IGNORED}


def _order_request(form: Mapping[str, str]) -> OrderRequest:
    fields = dict(form)
    body: dict[str, Any] = {
        "symbol": fields.pop("instrument", None),
        "side": fields.pop("side", None),
        "type": fields.pop("type", None),
    }
    body |= {"isClose": True} if fields.pop("isClose", "").lower() == "true" else {}
    body |= _shared(fields)
    return _valid(OrderRequest, {name: each for name, each in body.items() if each is not None})


def _order_patch(form: Mapping[str, str]) -> OrderPatch:
    fields = dict(form)
    for name in ("instrument", "side", "type"):
        # Clients repeat the whole order; what can't change is not asked for again.
        fields.pop(name, None)
    return _valid(OrderPatch, _shared(fields))


def _shared(fields: dict[str, str]) -> dict[str, Any]:
    """Translate the fields that placing and changing share; unknown ones are refused later."""
    body: dict[str, Any] = {
        native: fields.pop(name) for name, native in _NUMBERS.items() if name in fields
    }
    kind, until = fields.pop("durationType", None), fields.pop("durationDateTime", None)
    if kind is not None or until is not None:
        duration: dict[str, Any] = {} if kind is None else {"type": kind}
        if until is not None:
            if not (until.isascii() and until.isdigit() and len(until) <= 11):
                message = "must be seconds since 1970 UTC"
                raise _invalid([FieldError("durationDateTime", "integer", message)])
            # Some clients send it with every duration; it belongs to GTD alone.
            if kind is None or kind.upper() == "GTD":
                duration["datetime"] = int(until) * 1000
        body["duration"] = duration
    return {**body, **fields}


def _leverage_request(form: Mapping[str, str]) -> LeverageRequest:
    fields: dict[str, Any] = dict(form)
    fields["symbol"] = fields.pop("instrument", None)
    text = str(fields.get("leverage", ""))
    # Clients write whole numbers with a fraction of zeros too.
    whole = text.partition(".")[0] if not text.partition(".")[2].strip("0") else ""
    if not (whole.isascii() and whole.isdigit() and len(whole) <= 6):
        raise _invalid([FieldError("leverage", "integer", "must be a whole number")])
    fields["leverage"] = int(whole)
    return _valid(LeverageRequest, fields)


def _amount(text: str) -> Any:
    # The same reading as of every other number of the dialect.
    request = {"symbol": "X", "side": "buy", "type": "market", "qty": text}
    return _valid(OrderRequest, request).qty


def _valid(model: type[M], body: Mapping[str, Any]) -> M:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise _invalid(field_errors(list(error.errors()))) from None


def _invalid(errors: list[FieldError]) -> InvalidInputError:
    return InvalidInputError(
        "; ".join(f"{each.field}: {each.message}" for each in errors), errors=errors
    )


def _credential(request: Request) -> str | None:
    return request.headers.get("authorization")


def _fields(view: Any) -> dict[str, Any]:
    fields: dict[str, Any] = view.model_dump(by_alias=True, exclude_none=True)
    return fields


def _json(body: Any) -> Response:
    return Response(
        encode(body), headers={"Cache-Control": "no-store"}, media_type="application/json"
    )


def _ok(found: Any) -> Response:
    return _json({"s": "ok", "d": found})


def _done() -> Response:
    return _json({"s": "ok"})


def _form(*required: str, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "requestBody": {
            "required": bool(required),
            "content": {
                "application/x-www-form-urlencoded": {
                    "schema": {
                        "type": "object",
                        "required": list(required),
                        "properties": {name: {"type": "string"} for name in (*required, *optional)},
                    }
                }
            },
        }
    }
