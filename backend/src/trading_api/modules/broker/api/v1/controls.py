"""Routes of leverage, resets and kill switches."""

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import IdempotencyKeyReusedError, RequestInProgressError
from trading_api.modules.broker.api.v1.parts import (
    READ,
    REPLAYED,
    TRADE,
    AccountId,
    AccountIdText,
    json_of,
    replayed,
    user_of,
)
from trading_api.modules.broker.domain.instrument import full_symbol
from trading_api.modules.broker.errors import (
    AccountNotFoundError,
    AccountNotResettableError,
    InstrumentNotTradableError,
    InstrumentUnknownError,
    LeverageDeniedError,
    LeverageInvalidError,
    MarketClosedError,
    MarketUnavailableError,
    StaleQuoteError,
    TradingHaltedError,
)
from trading_api.modules.broker.schemas import (
    AccountView,
    ControlRequest,
    ControlView,
    LeverageInfoView,
    LeveragePreviewView,
    LeverageRequest,
    LeverageView,
)
from trading_api.modules.broker.service.controls import ControlService
from trading_api.modules.broker.service.leverage import LeverageService
from trading_api.modules.broker.service.resets import ResetService
from trading_api.runtime.http import Access, CurrentPrincipal, IdempotencyKey, ModuleRouter
from trading_api.runtime.http.wire import Symbol

_OPERATE = Access.roles("operator", "admin")
_LEVERAGE_ERRORS = (
    AccountNotFoundError,
    InstrumentNotTradableError,
    InstrumentUnknownError,
    MarketUnavailableError,
)


def add_leverage(router: ModuleRouter, leverage: LeverageService, clock: Clock) -> None:
    """Declare the routes of leverage."""

    @router.get(
        "/leverage/info",
        access=READ,
        summary="The leverage in force on an instrument, and what may be chosen",
        response_model=LeverageInfoView,
        errors=_LEVERAGE_ERRORS,
    )
    async def get_leverage(
        principal: CurrentPrincipal,
        account_id: AccountId,
        symbol: Annotated[Symbol, Query()],
        side: Annotated[
            str | None,
            Query(pattern=r"^(1|-1|buy|sell)$", description="the same for both sides"),
        ] = None,
        order_type: Annotated[
            str | None,
            Query(
                alias="orderType",
                pattern=r"^([1-4]|limit|market|stop|stoplimit)$",
                description="the same for every type",
            ),
        ] = None,
    ) -> Response:
        info = await leverage.get_info(
            user_id=user_of(principal),
            account_id=account_id,
            symbol=full_symbol(symbol),
            now=clock.now(),
        )
        return json_of(LeverageInfoView.of(info))

    @router.put(
        "/leverage/set",
        access=TRADE,
        summary="Put a leverage in force: for what is held, what is ordered and what comes",
        response_model=LeverageView,
        errors=[*_LEVERAGE_ERRORS, LeverageDeniedError, LeverageInvalidError],
    )
    async def set_leverage(
        request: LeverageRequest, principal: CurrentPrincipal, account_id: AccountId
    ) -> Response:
        info = await leverage.set_leverage(
            user_id=user_of(principal),
            account_id=account_id,
            symbol=request.instrument,
            leverage=request.leverage,
            now=clock.now(),
        )
        return json_of(LeverageView(leverage=info.leverage))

    @router.post(
        "/leverage/preview",
        access=READ,
        summary="Reckon what a leverage would mean; nothing changes",
        response_model=LeveragePreviewView,
        errors=[*_LEVERAGE_ERRORS, LeverageInvalidError],
    )
    async def preview_leverage(
        request: LeverageRequest, principal: CurrentPrincipal, account_id: AccountId
    ) -> Response:
        preview = await leverage.preview_leverage(
            user_id=user_of(principal),
            account_id=account_id,
            symbol=request.instrument,
            leverage=request.leverage,
            now=clock.now(),
        )
        return json_of(LeveragePreviewView.of(preview))


def add_resets(router: ModuleRouter, resets: ResetService, clock: Clock) -> None:
    """Declare the route of resets."""

    @router.post(
        "/accounts/{accountId}/reset",
        access=TRADE,
        summary="Begin a paper account anew: orders canceled, positions closed, starting cash",
        response_model=AccountView,
        responses=REPLAYED,
        errors=[
            AccountNotFoundError,
            AccountNotResettableError,
            IdempotencyKeyReusedError,
            MarketClosedError,
            MarketUnavailableError,
            RequestInProgressError,
            StaleQuoteError,
            TradingHaltedError,
        ],
    )
    async def reset_account(
        account_id: AccountIdText,
        principal: CurrentPrincipal,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        account, is_replay = await resets.reset_account(
            user_id=user_of(principal),
            account_id=account_id,
            idempotency_key=idempotency_key,
            now=clock.now(),
        )
        return json_of(AccountView.of(account), replayed(is_replay))


def add_controls(router: ModuleRouter, controls: ControlService, clock: Clock) -> None:
    """Declare the operators' routes of kill switches."""

    @router.get(
        "/controls/platform",
        access=_OPERATE,
        summary="The platform's kill switch",
        response_model=ControlView,
    )
    async def get_platform() -> Response:
        return json_of(ControlView.of(await controls.get_platform()))

    @router.put(
        "/controls/platform",
        access=_OPERATE,
        summary="Turn the platform's kill switch",
        response_model=ControlView,
    )
    async def set_platform(request: ControlRequest, principal: CurrentPrincipal) -> Response:
        control = await controls.set_platform(
            state=request.state,
            reason=request.reason,
            operator_id=user_of(principal),
            now=clock.now(),
        )
        return json_of(ControlView.of(control))

    @router.put(
        "/controls/accounts/{accountId}",
        access=_OPERATE,
        summary="Turn the kill switch of one account, whoever's",
        response_model=AccountView,
        errors=[AccountNotFoundError],
    )
    async def set_account(
        account_id: AccountIdText, request: ControlRequest, principal: CurrentPrincipal
    ) -> Response:
        account = await controls.set_account(
            account_id=account_id,
            state=request.state,
            reason=request.reason,
            operator_id=user_of(principal),
            now=clock.now(),
        )
        return json_of(AccountView.of(account))
