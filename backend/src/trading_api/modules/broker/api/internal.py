"""What other modules ask the broker; shapes in ``contracts.broker``."""

from typing import Annotated

from fastapi import Query

from trading_api.contracts.broker import (
    EXECUTION_MARKS_PATH,
    ExecutionMark,
    ExecutionMarksAnswer,
)
from trading_api.kernel.clock import from_us as instant_of
from trading_api.kernel.values import decimal_of
from trading_api.modules.broker.service.marks import MarkService
from trading_api.runtime.http import Access, CurrentPrincipal, ModuleRouter

EXECUTIONS_MAX = 1_000
TIME_MAX_US = 253_402_300_799_000_000
"""9999-12-31T23:59:59 UTC."""

_Instant = Annotated[int, Query(ge=0, le=TIME_MAX_US, description="microseconds since 1970 UTC")]


def build_internal_router(*, marks: MarkService) -> ModuleRouter:
    """Build the internal routes; they act for the user whom the asking module names."""
    router = ModuleRouter(tags=["internal"])

    @router.get(
        EXECUTION_MARKS_PATH,
        access=Access.internal(),
        response_model=ExecutionMarksAnswer,
        summary="Read the acting user's executions of a symbol, newest first",
    )
    async def list_executions(
        principal: CurrentPrincipal,
        symbol: Annotated[str, Query(min_length=1, max_length=64)],
        from_us: _Instant,
        to_us: _Instant,
        limit: Annotated[int, Query(ge=1, le=EXECUTIONS_MAX)] = EXECUTIONS_MAX,
    ) -> ExecutionMarksAnswer:
        found = await marks.list_executions(
            user_id=principal.user_id,
            symbol=symbol,
            from_=instant_of(from_us),
            to=instant_of(to_us),
            limit=limit,
        )
        return ExecutionMarksAnswer(
            executions=tuple(
                ExecutionMark(
                    execution_id=each.execution_id,
                    executed_at=each.executed_at,
                    side=each.side.value,
                    quantity=decimal_of(each.quantity, each.quantity_scale),
                    price=decimal_of(each.price, each.price_scale),
                    is_closing=each.closed_quantity > 0,
                )
                for each in found
            )
        )

    return router
