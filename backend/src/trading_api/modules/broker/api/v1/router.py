"""All routes of v1."""

from typing import Annotated

from fastapi import Path as PathParameter
from starlette.responses import Response

from trading_api.kernel.clock import Clock
from trading_api.modules.broker.api.v1.accounts import add_accounts
from trading_api.modules.broker.api.v1.controls import add_controls, add_leverage, add_resets
from trading_api.modules.broker.api.v1.orders import add_orders
from trading_api.modules.broker.api.v1.parts import READ, json_of
from trading_api.modules.broker.api.v1.performance import add_performance
from trading_api.modules.broker.api.v1.positions import add_positions
from trading_api.modules.broker.domain.instrument import full_symbol
from trading_api.modules.broker.errors import (
    InstrumentNotFoundError,
    MarketUnavailableError,
)
from trading_api.modules.broker.schemas import (
    InstrumentView,
)
from trading_api.modules.broker.service import (
    AccountService,
    OrderService,
    PositionService,
    ReportService,
)
from trading_api.modules.broker.service.controls import ControlService
from trading_api.modules.broker.service.leverage import LeverageService
from trading_api.modules.broker.service.performance import PerformanceService
from trading_api.modules.broker.service.resets import ResetService
from trading_api.runtime.http import ModuleRouter
from trading_api.runtime.http.cursors import Cursors
from trading_api.runtime.http.wire import Symbol


def build_router(
    *,
    accounts: AccountService,
    orders: OrderService,
    positions: PositionService,
    reports: ReportService,
    leverage: LeverageService,
    resets: ResetService,
    controls: ControlService,
    performance: PerformanceService,
    tv: ModuleRouter | None = None,
    clock: Clock,
    cursors: Cursors,
) -> ModuleRouter:
    """Declare the routes of v1."""
    router = ModuleRouter(tags=["broker"])
    add_orders(router, orders, reports, clock, cursors)
    add_positions(router, positions, reports, clock, cursors)
    add_accounts(router, accounts, reports, clock)
    add_leverage(router, leverage, clock)
    add_resets(router, resets, clock)
    add_controls(router, controls, clock)
    add_performance(router, performance, clock)
    if tv is not None:
        router.include(tv, prefix="/tv")

    @router.get(
        "/instruments/{symbol}",
        access=READ,
        summary="Rules of an instrument: sizes, ticks, leverage, durations",
        response_model=InstrumentView,
        errors=[InstrumentNotFoundError, MarketUnavailableError],
    )
    async def get_instrument(symbol: Annotated[Symbol, PathParameter()]) -> Response:
        instrument, quote = await reports.get_instrument(symbol=full_symbol(symbol))
        return json_of(InstrumentView.of(instrument, reports.policy, quote))

    return router
