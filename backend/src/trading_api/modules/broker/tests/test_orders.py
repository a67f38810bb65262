"""Placing, filling, changing and canceling orders, on both databases."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest
import sqlalchemy as sa

from trading_api.kernel.errors import IdempotencyKeyReusedError
from trading_api.modules.broker import tables
from trading_api.modules.broker.domain.order import CloseReason, Order, OrderStatus, TimeInForce
from trading_api.modules.broker.errors import (
    AccountLimitError,
    AccountNotFoundError,
    ClientOrderIdReusedError,
    InstrumentNotTradableError,
    InstrumentUnknownError,
    InsufficientMarginError,
    OrderClosedError,
    OrderInvalidError,
    PositionNotFoundError,
    ReduceOnlyError,
    StaleQuoteError,
)
from trading_api.modules.broker.service.orders import OrderChange
from trading_api.modules.broker.tests.builders import AAPL, EURUSD, SELL, a_ticket
from trading_api.modules.broker.tests.conftest import USER, Venue
from trading_api.runtime.database.leases import LeaseLostError


async def count(venue: Venue, table: sa.Table) -> int:
    async with venue.database.snapshot() as snapshot:
        return int(await snapshot.scalar(sa.select(sa.func.count()).select_from(table)) or 0)


async def modify(venue: Venue, order_id: str, change: OrderChange) -> Order:
    return await venue.orders.modify_order(
        user_id=USER, account_id=None, order_id=order_id, change=change, now=venue.now
    )


async def kinds(venue: Venue) -> list[str]:
    account_id = (await venue.state()).account.account_id
    _, events = await venue.reports.list_events(
        user_id=USER, account_id=account_id, since=0, limit=100, now=venue.now
    )
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    return [type(event.subject).__name__ for event in events]


async def test_market_buy_fills_at_the_ask_in_one_transaction(venue: Venue) -> None:
    order = await venue.placed(a_ticket(10))

    assert order.status is OrderStatus.FILLED
    assert order.average_fill_price() == 200_00000000
    state = await venue.state()
    (position,) = state.positions
    assert (position.signed_quantity, position.cost) == (10, 2000 * 10**8)
    # 2000 USD at 100 ppm cost 0.20; the bid is 0.10 below the ask.
    assert state.valuation.cash_minor == 100_000_00 - 20
    assert state.valuation.unrealized_minor == -100
    assert state.valuation.margin_minor == 399_80
    assert state.valuation.reserved_minor == 0
    assert await kinds(venue) == [
        "CashChange",
        "Order",
        "Execution",
        "Order",
        "Position",
        "CashChange",
    ]
    assert venue.wakes[-1] == (f"broker:{state.account.account_id}", 6)
    await venue.verify()


async def test_facts_are_in_the_outbox_in_the_account_s_order(venue: Venue) -> None:
    await venue.place(a_ticket(10))

    async with venue.database.snapshot() as snapshot:
        rows = await snapshot.all(sa.select(tables.outbox_table).order_by(sa.text("id")))
    assert [(row.type, row.key_sequence) for row in rows] == [
        ("broker.account.opened", 1),
        ("broker.order.accepted", 2),
        ("broker.execution.recorded", 3),
        ("broker.order.filled", 4),
    ]


async def test_sell_realizes_the_result_in_cash(venue: Venue) -> None:
    await venue.place(a_ticket(10))
    venue.market.quote("210.00", "210.10")
    await venue.place(a_ticket(4, side=SELL))

    state = await venue.state()
    (position,) = state.positions
    assert position.signed_quantity == 6
    assert position.realized_minor == 40_00
    # 0.20 and 4 x 210 at 100 ppm, rounded up: 0.09.
    assert state.valuation.cash_minor == 100_000_00 + 40_00 - 20 - 9
    await venue.verify()


async def test_flip_starts_a_new_entry_price(venue: Venue) -> None:
    await venue.place(a_ticket(10))
    venue.market.quote("190.00", "190.10")
    await venue.place(a_ticket(15, side=SELL))

    position = await venue.position(AAPL)
    assert position is not None
    assert (position.signed_quantity, position.cost) == (-5, -950 * 10**8)
    assert position.realized_minor == -100_00
    assert position.average_entry_price() == 190
    await venue.verify()


async def test_margin_of_a_forex_position_is_a_thirtieth(venue: Venue) -> None:
    venue.market.quote("1.10000", "1.10010", EURUSD)
    await venue.place(a_ticket(100_000, symbol=EURUSD))

    assert (await venue.state()).valuation.margin_minor == 3666_67


async def test_order_beyond_the_margin_is_refused_and_leaves_nothing(venue: Venue) -> None:
    await venue.state()
    before = await count(venue, tables.account_events)
    with pytest.raises(InsufficientMarginError) as caught:
        await venue.place(a_ticket(2500), client_order_id="big")
    assert caught.value.context["available"] == "100000.00"
    assert await count(venue, tables.orders) == 0
    assert await count(venue, tables.account_events) == before
    # The id is free again.
    assert not (await venue.place(a_ticket(1), client_order_id="big")).is_replay
    await venue.verify()


async def test_closing_is_accepted_whatever_the_margin(venue: Venue) -> None:
    await venue.place(a_ticket(2400))
    venue.market.quote("165.00", "165.10")
    assert (await venue.state()).valuation.available_minor < 0
    with pytest.raises(InsufficientMarginError):
        await venue.place(a_ticket(1))

    await venue.close(AAPL)

    assert (await venue.state()).positions == ()
    await venue.verify()


async def test_flat_and_negative_is_borne_by_the_house(venue: Venue) -> None:
    await venue.place(a_ticket(2400))
    venue.market.quote("100.00", "100.10")
    await venue.close(AAPL)

    assert (await venue.state()).valuation.cash_minor == 0
    await venue.verify()


async def test_stale_quote_refuses_market_orders_but_not_limits(venue: Venue) -> None:
    venue.clock.advance(2)
    with pytest.raises(StaleQuoteError):
        await venue.place(a_ticket(1))
    with pytest.raises(StaleQuoteError):
        await venue.place(a_ticket(1, limit="250", time_in_force=TimeInForce.IOC))
    order = await venue.placed(a_ticket(1, limit="250"))
    assert order.status is OrderStatus.ACCEPTED


async def test_marketable_limit_fills_at_the_better_price(venue: Venue) -> None:
    order = await venue.placed(a_ticket(10, limit="205"))
    assert (order.status, order.filled_value) == (OrderStatus.FILLED, 10 * 20000)


async def test_resting_limit_fills_on_a_later_quote_only(venue: Venue) -> None:
    order = await venue.placed(a_ticket(10, limit="199.95"))
    assert order.status is OrderStatus.ACCEPTED
    reserved = (await venue.state()).valuation.reserved_minor
    # At the dearer of limit and ask, a fifth of it and its commission.
    assert reserved == 400_00 + 20

    assert await venue.meet(venue.market.quotes[AAPL]) == 0
    assert await venue.meet(venue.market.quote("199.86", "199.96")) == 0
    assert await venue.meet(venue.market.quote("199.80", "199.90")) == 1

    order = await venue.order(order.order_id)
    assert (order.status, order.filled_value) == (OrderStatus.FILLED, 10 * 19990)
    assert (await venue.state()).valuation.reserved_minor == 0
    assert await venue.meet(venue.market.quotes[AAPL]) == 0
    await venue.verify()


async def test_quotes_of_the_past_fill_nothing(venue: Venue) -> None:
    await venue.place(a_ticket(10, limit="199.95"))
    missed = venue.market.quote("199.00", "199.10")
    venue.clock.advance(2)
    assert await venue.meet(missed) == 0


async def test_matching_without_the_lease_changes_nothing(venue: Venue) -> None:
    order = await venue.placed(a_ticket(10, limit="199.95"))
    lost = await venue.lease()
    async with venue.database.transaction() as transaction:
        await transaction.execute(tables.leases_table.update().values(owner="other", fencing=7))
    quote = venue.market.quote("199.00", "199.10")
    with pytest.raises(LeaseLostError):
        await venue.matching.on_quote(quote=quote, lease=lost, now=venue.now)
    assert (await venue.order(order.order_id)).status is OrderStatus.ACCEPTED


async def test_stop_triggers_on_the_bid_and_fills_on_the_same_quote(venue: Venue) -> None:
    await venue.place(a_ticket(10))
    stop = await venue.placed(a_ticket(10, side=SELL, stop="195"))
    assert (await venue.state()).valuation.reserved_minor == 0

    assert await venue.meet(venue.market.quote("195.01", "195.11")) == 0
    assert await venue.meet(venue.market.quote("194.50", "194.60")) == 1

    stop = await venue.order(stop.order_id)
    assert (stop.status, stop.filled_value) == (OrderStatus.FILLED, 10 * 19450)
    await venue.verify()


async def test_stop_limit_rests_once_triggered(venue: Venue) -> None:
    order = await venue.placed(a_ticket(10, stop="201", limit="201.50"))
    assert await venue.meet(venue.market.quote("201.90", "202.00")) == 1
    assert (await venue.order(order.order_id)).status is OrderStatus.TRIGGERED
    assert await venue.meet(venue.market.quote("201.00", "201.10")) == 1
    assert (await venue.order(order.order_id)).status is OrderStatus.FILLED
    await venue.verify()


async def test_stop_that_the_account_can_t_carry_is_rejected_at_its_trigger(
    venue: Venue,
) -> None:
    await venue.place(a_ticket(1500))
    stop = await venue.placed(a_ticket(600, stop="201"))
    venue.clock.advance(1)
    venue.market.quote("150.00", "150.10")
    assert await venue.meet(venue.market.quote("160.00", "201.10")) == 1
    stop = await venue.order(stop.order_id)
    assert (stop.status, stop.close_reason) == (
        OrderStatus.REJECTED,
        CloseReason.INSUFFICIENT_MARGIN,
    )
    await venue.verify()


@pytest.mark.parametrize("time_in_force", [TimeInForce.IOC, TimeInForce.FOK])
async def test_at_once_or_not_at_all(venue: Venue, time_in_force: TimeInForce) -> None:
    missed = await venue.placed(a_ticket(10, limit="199.95", time_in_force=time_in_force))
    filled = await venue.placed(a_ticket(10, limit="200.00", time_in_force=time_in_force))
    assert (missed.status, missed.close_reason) == (
        OrderStatus.CANCELED,
        CloseReason.NOT_FILLED_AT_ONCE,
    )
    assert filled.status is OrderStatus.FILLED
    await venue.verify()


async def test_at_once_begins_for_a_stop_with_its_trigger(venue: Venue) -> None:
    venue.clock.advance(3)
    order = await venue.placed(
        a_ticket(10, stop="201", limit="201.50", time_in_force=TimeInForce.IOC)
    )
    assert order.status is OrderStatus.ACCEPTED
    with pytest.raises(OrderInvalidError):
        await modify(venue, order.order_id, OrderChange(time_in_force=TimeInForce.FOK))
    await venue.meet(venue.market.quote("201.90", "202.00"))
    assert (await venue.order(order.order_id)).status is OrderStatus.CANCELED
    await venue.verify()


async def test_open_orders_are_found_by_the_partial_indexes(venue: Venue) -> None:
    if venue.database.dialect != "sqlite":
        pytest.skip("PostgreSQL plans by size")
    async with venue.database.snapshot() as snapshot:
        own = "account_id = 'acc_1' AND symbol = 'DEMO:AAPL'"
        for condition, index in [
            (f"symbol = 'DEMO:AAPL' AND {tables.IS_OPEN}", "ix_orders_open"),
            (f"{own} AND {tables.IS_LIVE}", "ix_orders_live_of_account"),
        ]:
            rows = await snapshot.all(
                sa.text(f"EXPLAIN QUERY PLAN SELECT * FROM broker.orders WHERE {condition}")
            )
            assert any(f"USING INDEX {index} " in row.detail for row in rows), rows


async def test_orders_expire_at_their_time(venue: Venue) -> None:
    day = await venue.placed(a_ticket(1, limit="150", time_in_force=TimeInForce.DAY))
    dated = await venue.placed(
        a_ticket(
            1,
            limit="150",
            time_in_force=TimeInForce.GTD,
            expires_at=venue.now + timedelta(minutes=1),
        )
    )
    assert day.expires_at is not None
    assert (day.expires_at.hour, day.expires_at.date()) == (
        0,
        venue.now.date() + timedelta(days=1),
    )
    venue.clock.advance(61)
    assert await venue.matching.expire(lease=await venue.lease(), now=venue.now) == 1
    assert (await venue.order(dated.order_id)).status is OrderStatus.EXPIRED
    assert (await venue.order(day.order_id)).status is OrderStatus.ACCEPTED
    await venue.verify()


async def test_cancel_frees_the_reservation_and_is_final(venue: Venue) -> None:
    order = await venue.placed(a_ticket(10, limit="150"))
    assert (await venue.cancel(order.order_id)).status is OrderStatus.CANCELED
    events = await count(venue, tables.account_events)
    assert (await venue.cancel(order.order_id)).status is OrderStatus.CANCELED
    assert await count(venue, tables.account_events) == events
    assert (await venue.state()).valuation.reserved_minor == 0
    assert await venue.meet(venue.market.quote("100.00", "100.10")) == 0
    await venue.verify()


async def test_filled_order_can_t_be_canceled_or_changed(venue: Venue) -> None:
    order = await venue.placed(a_ticket(10))
    with pytest.raises(OrderClosedError):
        await venue.cancel(order.order_id)
    with pytest.raises(OrderClosedError):
        await venue.orders.modify_order(
            user_id=USER,
            account_id=None,
            order_id=order.order_id,
            change=OrderChange(quantity=Decimal(20)),
            now=venue.now,
        )


async def test_modified_order_reserves_anew_and_meets_later_quotes(venue: Venue) -> None:
    order = await venue.placed(a_ticket(10, limit="150"))
    venue.market.quote("149.00", "149.50")
    changed = await venue.orders.modify_order(
        user_id=USER,
        account_id=None,
        order_id=order.order_id,
        change=OrderChange(quantity=Decimal(20), limit_price=Decimal("149.60")),
        now=venue.now,
    )
    assert (changed.quantity, changed.limit_price) == (20, 14960)
    await venue.verify()
    assert await venue.meet(venue.market.quotes[AAPL]) == 0
    assert await venue.meet(venue.market.quote("149.00", "149.50")) == 1
    with pytest.raises(OrderInvalidError):
        await venue.placed(a_ticket(0))


async def test_repeat_by_client_order_id_gives_the_first_answer(venue: Venue) -> None:
    first = await venue.place(a_ticket(10), client_order_id="mine")
    again = await venue.place(a_ticket("10.0"), client_order_id="mine")
    assert (again.order_id, again.is_replay) == (first.order_id, True)
    with pytest.raises(ClientOrderIdReusedError) as caught:
        await venue.place(a_ticket(11), client_order_id="mine")
    assert [error.field for error in caught.value.errors] == ["qty"]
    assert await count(venue, tables.orders) == 1
    # Other accounts have ids of their own.
    other = await venue.place(a_ticket(11), client_order_id="mine", user_id="usr_other")
    assert not other.is_replay


async def test_repeat_needs_no_market(venue: Venue) -> None:
    first = await venue.place(a_ticket(10), client_order_id="mine", key="k1")
    venue.clock.advance(60)
    again = await venue.place(a_ticket(10), client_order_id="mine", key="k1")
    by_id = await venue.place(a_ticket(10), client_order_id="mine", key="k2")
    assert {again.order_id, by_id.order_id} == {first.order_id}


async def test_key_and_client_order_id_must_agree(venue: Venue) -> None:
    await venue.place(a_ticket(10), client_order_id="a", key="k1")
    with pytest.raises(IdempotencyKeyReusedError) as caught:
        await venue.place(a_ticket(10), client_order_id="b", key="k1")
    assert [error.field for error in caught.value.errors] == ["clientOrderId"]


async def test_rivals_with_one_key_place_one_order(venue: Venue) -> None:
    outcomes = await asyncio.gather(
        *(venue.place(a_ticket(1), client_order_id="same", key="k") for _ in range(20))
    )
    assert len({each.order_id for each in outcomes}) == 1
    assert sum(not each.is_replay for each in outcomes) == 1
    assert await count(venue, tables.executions) == 1
    await venue.verify()


async def test_many_orders_at_once_never_overdraw_the_margin(venue: Venue) -> None:
    async def attempt() -> bool:
        try:
            await venue.place(a_ticket(500))
        except InsufficientMarginError:
            return False
        return True

    outcomes = await asyncio.gather(*(attempt() for _ in range(12)))
    # 500 x 200 / 5 = 20,000 each: four fit, a fifth lacks its commission.
    assert sum(outcomes) == 4
    assert (await venue.state()).valuation.available_minor >= 0
    await venue.verify()


async def test_close_in_parts_then_the_rest(venue: Venue) -> None:
    await venue.place(a_ticket(10))
    await venue.close(AAPL, "4")
    position = await venue.position(AAPL)
    assert position is not None
    assert position.signed_quantity == 6
    with pytest.raises(ReduceOnlyError):
        await venue.close(AAPL, "7")
    await venue.close(AAPL)
    with pytest.raises(PositionNotFoundError):
        await venue.close(AAPL)
    await venue.verify()


@pytest.mark.parametrize(
    ("symbol", "error"),
    [("HIST:AAPL", InstrumentNotTradableError), ("DEMO:NONE", InstrumentUnknownError)],
)
async def test_what_is_not_tradable_is_refused(
    venue: Venue, symbol: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await venue.place(a_ticket(1, symbol=symbol))


async def test_first_account_is_one_however_it_is_asked_for(venue: Venue) -> None:
    found = await asyncio.gather(
        venue.accounts.on_user_registered(user_id=USER, event_id="evt_1", now=venue.now),
        *(venue.accounts.list_accounts(user_id=USER, now=venue.now) for _ in range(5)),
        venue.accounts.on_user_registered(user_id=USER, event_id="evt_1", now=venue.now),
    )
    assert len({account.account_id for each in found if each for account in each}) == 1
    assert (await venue.state()).valuation.cash_minor == 100_000_00
    await venue.verify()


async def test_further_accounts_are_apart_and_limited(venue: Venue) -> None:
    first = (await venue.accounts.list_accounts(user_id=USER, now=venue.now))[0]
    second, _ = await venue.accounts.open_account(
        user_id=USER, name="Test", idempotency_key="k", now=venue.now
    )
    again, is_replay = await venue.accounts.open_account(
        user_id=USER, name="Test", idempotency_key="k", now=venue.now
    )
    assert (again.account_id, is_replay) == (second.account_id, True)
    await venue.place(a_ticket(10), account_id=second.account_id)
    assert await venue.position(AAPL) is None
    await venue.accounts.open_account(user_id=USER, name=None, idempotency_key=None, now=venue.now)
    with pytest.raises(AccountLimitError):
        await venue.accounts.open_account(
            user_id=USER, name=None, idempotency_key=None, now=venue.now
        )
    with pytest.raises(AccountNotFoundError):
        await venue.place(a_ticket(1), account_id=first.account_id, user_id="usr_other")
    await venue.verify()
