"""The route of performance."""

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from trading_api.kernel.clock import Clock
from trading_api.modules.broker.api.v1.parts import SHARED, AccountIdText, json_of, user_of
from trading_api.modules.broker.errors import AccountNotFoundError
from trading_api.modules.broker.schemas.performance import PerformanceView
from trading_api.modules.broker.schemas.wire import instant_of
from trading_api.modules.broker.service.performance import PerformanceService
from trading_api.runtime.http import CurrentPrincipal, ModuleRouter


def add_performance(router: ModuleRouter, performance: PerformanceService, clock: Clock) -> None:
    """Declare the route of performance."""

    @router.get(
        "/accounts/{accountId}/performance",
        access=SHARED,
        summary="Equity curve, returns, drawdown, exposure, by symbol and day",
        response_model=PerformanceView,
        errors=[AccountNotFoundError],
    )
    async def get_performance(
        account_id: AccountIdText,
        principal: CurrentPrincipal,
        from_time: Annotated[
            int | None,
            Query(alias="from", ge=0, le=4_102_444_800_000, description="its beginning if absent"),
        ] = None,
        to_time: Annotated[
            int | None, Query(alias="to", ge=0, le=4_102_444_800_000, description="now if absent")
        ] = None,
    ) -> Response:
        found = await performance.get_performance(
            user_id=user_of(principal),
            account_id=account_id,
            from_=instant_of(from_time),
            to=instant_of(to_time),
            now=clock.now(),
        )
        return json_of(PerformanceView.of(found))
