"""Any sequence of requests and quotes: every invariant holds, and the same again does the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trading_api.kernel.errors import TradingError
from trading_api.modules.broker.domain.order import OrderSide, TimeInForce
from trading_api.modules.broker.service.orders import OrderChange
from trading_api.modules.broker.tests.builders import AAPL, a_ticket
from trading_api.modules.broker.tests.conftest import Venue

prices = st.integers(19_500, 20_500).map(lambda raw: str(Decimal(raw).scaleb(-2)))
quantities = st.integers(1, 800)


@dataclass(frozen=True)
class Place:
    quantity: int
    side: OrderSide
    limit: str | None
    stop: str | None
    time_in_force: TimeInForce
    reduce_only: bool


@dataclass(frozen=True)
class Modify:
    which: int
    quantity: int | None
    price: str | None


@dataclass(frozen=True)
class Cancel:
    which: int


@dataclass(frozen=True)
class Close:
    quantity: int | None


@dataclass(frozen=True)
class Tick:
    bid: str
    spread: int


actions = st.one_of(
    st.builds(
        Place,
        quantity=quantities,
        side=st.sampled_from(OrderSide),
        limit=st.none() | prices,
        stop=st.none() | prices,
        time_in_force=st.sampled_from(
            [TimeInForce.GTC, TimeInForce.DAY, TimeInForce.IOC, TimeInForce.FOK]
        ),
        reduce_only=st.booleans(),
    ),
    st.builds(Tick, bid=prices, spread=st.integers(0, 50)),
    st.builds(Tick, bid=prices, spread=st.integers(0, 50)),
    st.builds(
        Modify, which=st.integers(0, 5), quantity=st.none() | quantities, price=st.none() | prices
    ),
    st.builds(Cancel, which=st.integers(0, 5)),
    st.builds(Close, quantity=st.none() | quantities),
)


async def act(
    venue: Venue, action: object, users: Sequence[str], placed: dict[str, list[str]]
) -> None:
    if isinstance(action, Tick):
        bid = Decimal(action.bid)
        ask = bid + Decimal(action.spread).scaleb(-2)
        await venue.meet(venue.market.quote(str(bid), str(ask)))
        return
    for user_id in users:
        try:
            await _ask(venue, action, user_id, placed[user_id])
        except TradingError:
            continue


async def _ask(venue: Venue, action: object, user_id: str, placed: list[str]) -> None:
    who: dict[str, Any] = {"user_id": user_id, "account_id": None, "now": venue.now}
    match action:
        case Place():
            ticket = a_ticket(
                action.quantity,
                side=action.side,
                limit=action.limit,
                stop=action.stop,
                time_in_force=action.time_in_force,
                reduce_only=action.reduce_only,
            )
            placed.append((await venue.place(ticket, user_id=user_id)).order_id)
        case Modify() if placed:
            change = OrderChange(
                quantity=None if action.quantity is None else Decimal(action.quantity),
                limit_price=None if action.price is None else Decimal(action.price),
            )
            order_id = placed[action.which % len(placed)]
            await venue.orders.modify_order(**who, order_id=order_id, change=change)
        case Cancel() if placed:
            await venue.orders.cancel_order(**who, order_id=placed[action.which % len(placed)])
        case Close():
            quantity = None if action.quantity is None else Decimal(action.quantity)
            await venue.positions.close_position(
                **who, position_id=AAPL, quantity=quantity, idempotency_key=None
            )


async def shown(venue: Venue, user_id: str) -> list[Any]:
    """What an account went through, without the names that differ by account."""
    fills = await venue.reports.list_executions(
        user_id=user_id, account_id=None, limit=1000, now=venue.now
    )
    state = await venue.reports.get_state(user_id=user_id, account_id=None, now=venue.now)
    return [
        state.valuation,
        state.account.event_sequence,
        [
            (each.sequence, each.side, each.quantity, each.price, each.realized, each.liquidity)
            for each in fills.executions
        ],
    ]


_runs = iter(range(10**9))


@pytest.mark.timeout(300)
@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(actions, min_size=4, max_size=14))
async def test_invariants_hold_after_any_sequence_and_equal_requests_have_equal_ends(
    venue: Venue, sequence: list[object]
) -> None:
    run = next(_runs)
    users = [f"usr_{run}_a", f"usr_{run}_b"]
    placed: dict[str, list[str]] = {user_id: [] for user_id in users}
    venue.market.quote("199.90", "200.00")
    for action in sequence:
        venue.clock.advance(0.5)
        await act(venue, action, users, placed)
    venue.market.quote("199.90", "200.00")
    assert await shown(venue, users[0]) == await shown(venue, users[1])
    await venue.verify()
    assert await venue.matching.reconcile(now=venue.now) == 0
