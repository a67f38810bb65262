"""Executions for charts: the acting user's own, by symbol and time, for other modules alone."""

from datetime import timedelta
from typing import Any

import httpx

from trading_api.contracts.broker import EXECUTION_MARKS_PATH, ExecutionMarksAnswer
from trading_api.kernel.clock import to_us
from trading_api.modules.broker.api.internal import build_internal_router
from trading_api.modules.broker.domain.order import OrderSide
from trading_api.modules.broker.repository.marks import MarkRepository
from trading_api.modules.broker.service.marks import MarkService
from trading_api.modules.broker.tests.builders import a_ticket
from trading_api.modules.broker.tests.conftest import USER, Venue
from trading_api.runtime.identity import ServiceTokens
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.clocks import FixedClock
from trading_api.testkit.http import access_token, client_of


async def test_execution_marks_are_the_acting_users_own(
    venue: Venue, settings: PlatformSettings, clock: FixedClock
) -> None:
    router = build_internal_router(
        marks=MarkService(database=venue.database, repository=MarkRepository())
    )
    tokens = ServiceTokens(settings=settings, module="datafeed", clock=clock)
    began = venue.now
    await venue.place(a_ticket(side=OrderSide.BUY))
    clock.advance(60)
    venue.market.quote("200.90", "201.00")
    await venue.close("DEMO:AAPL")

    async def ask(user_id: str, **changes: Any) -> ExecutionMarksAnswer:
        params = {
            "symbol": "DEMO:AAPL",
            "from_us": to_us(began),
            "to_us": to_us(venue.now + timedelta(seconds=1)),
            **changes,
        }
        token = tokens.token(acting_for=user_id)
        async with client_of(
            router, prefix="", settings=settings, clock=clock, token=token
        ) as client:
            answer = await client.get(EXECUTION_MARKS_PATH, params=params)
        assert answer.status_code == 200, answer.text
        return ExecutionMarksAnswer.model_validate_json(answer.content)

    sold, bought = (await ask(USER)).executions
    assert (bought.side, bought.is_closing, sold.side, sold.is_closing) == (
        "BUY", False, "SELL", True,
    )  # fmt: skip
    assert bought.quantity > 0
    assert (await ask(USER, limit=1)).executions == (sold,)
    assert (await ask(USER, to_us=to_us(began + timedelta(seconds=1)))).executions == (bought,)
    assert (await ask(USER, symbol="DEMO:MSFT")).executions == ()
    assert (await ask("usr_somebody")).executions == ()

    token = access_token(settings, clock, user_id=USER, scopes=("broker:read",))
    async with client_of(router, prefix="", settings=settings, clock=clock, token=token) as person:
        refused: httpx.Response = await person.get(EXECUTION_MARKS_PATH)
    assert refused.status_code == 403
