"""Brackets on orders and positions, as a chart sees them: every step is an event."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from trading_api.kernel.errors import TradingError
from trading_api.modules.broker import tables
from trading_api.modules.broker.adapters.paper_venue import PaperModel
from trading_api.modules.broker.domain.account import PositionMode, TradingState
from trading_api.modules.broker.domain.limits import RiskLimits
from trading_api.modules.broker.domain.order import (
    BracketRole,
    CloseReason,
    Order,
    OrderStatus,
    ParentType,
    TicketBrackets,
    TicketTrailing,
    TimeInForce,
)
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.errors import (
    OrderInvalidError,
    OrderRateError,
    PositionNotFoundError,
    TradingHaltedError,
)
from trading_api.modules.broker.service.orders import OrderChange
from trading_api.modules.broker.tests.builders import (
    AAPL,
    BUY,
    POLICY,
    SELL,
    FakeMarket,
    a_ticket,
    brackets_ticket,
    pips,
)
from trading_api.modules.broker.tests.conftest import USER, Venue, build_venue
from trading_api.runtime.database import Database
from trading_api.testkit.clocks import FixedClock

PROFIT, STOP = BracketRole.TAKE_PROFIT, BracketRole.STOP_LOSS


async def live(venue: Venue) -> dict[BracketRole | None, Order]:
    """The account's live orders by role."""
    found = await venue.reports.list_orders(user_id=USER, account_id=None, now=venue.now)
    orders = [each for each in found.orders if each.is_live]
    assert len({each.role for each in orders}) == len(orders), orders
    return {each.role: each for each in orders}


async def told(venue: Venue, *, since: int = 0) -> list[tuple[Any, ...]]:
    """What the account's events say of orders and positions."""
    account_id = (await venue.state()).account.account_id
    _, events = await venue.reports.list_events(
        user_id=USER, account_id=account_id, since=since, limit=500, now=venue.now
    )
    shown: list[tuple[Any, ...]] = []
    for event in events:
        match event.subject:
            case Order() as order:
                shown.append((order.role, order.status.value, order.quantity))
            case Position() as position:
                shown.append(("position", position.signed_quantity))
            case _:
                pass
    return shown


async def offset(venue: Venue) -> int:
    return (await venue.state()).account.event_sequence


async def set_brackets(venue: Venue, wanted: TicketBrackets, position_id: str = AAPL) -> Position:
    return await venue.positions.set_brackets(
        user_id=USER, account_id=None, position_id=position_id, wanted=wanted, now=venue.now
    )


async def modify(venue: Venue, order_id: str, change: OrderChange) -> Order:
    return await venue.orders.modify_order(
        user_id=USER, account_id=None, order_id=order_id, change=change, now=venue.now
    )


def move(venue: Venue, bid: str, ask: str) -> Any:
    venue.clock.advance(0.5)
    return venue.meet(venue.market.quote(bid, ask))


async def test_resting_entry_holds_its_legs_and_shows_them(venue: Venue) -> None:
    entry = await venue.placed(a_ticket(10, limit="195", take_profit="210", stop_loss="190"))

    found = await live(venue)
    profit, stop = found[PROFIT], found[STOP]
    assert (entry.brackets.take_profit, entry.brackets.stop_loss) == (21000, 19000)
    assert [each.status for each in (profit, stop)] == [OrderStatus.HELD, OrderStatus.HELD]
    assert [(each.parent_id, each.parent_type) for each in (profit, stop)] == [
        (entry.order_id, ParentType.ORDER)
    ] * 2
    assert (profit.side, profit.limit_price, profit.quantity) == (SELL, 21000, 10)
    assert (stop.side, stop.trigger_price, stop.quantity) == (SELL, 19000, 10)
    assert await told(venue) == [
        (None, "ACCEPTED", 10),
        (PROFIT, "HELD", 10),
        (STOP, "HELD", 10),
    ]
    await venue.verify()


async def test_entry_fills_then_its_legs_work_for_the_position(venue: Venue) -> None:
    await venue.place(a_ticket(10, limit="195", take_profit="210", stop_loss="190"))
    before = await offset(venue)
    await move(venue, "194.80", "194.90")

    found = await live(venue)
    assert set(found) == {PROFIT, STOP}
    assert {(each.parent_id, each.parent_type) for each in found.values()} == {
        (AAPL, ParentType.POSITION)
    }
    assert await told(venue, since=before) == [
        (None, "FILLED", 10),
        ("position", 10),
        (PROFIT, "ACCEPTED", 10),
        (STOP, "ACCEPTED", 10),
    ]
    position = await venue.position(AAPL)
    assert position is not None
    assert (position.brackets.take_profit, position.brackets.stop_loss) == (21000, 19000)
    await venue.verify()


@pytest.mark.parametrize(
    ("bid", "ask", "filled", "canceled"),
    [("210.10", "210.20", PROFIT, STOP), ("189.90", "190.10", STOP, PROFIT)],
)
async def test_one_leg_fills_and_cancels_the_other(
    venue: Venue, bid: str, ask: str, filled: BracketRole, canceled: BracketRole
) -> None:
    await venue.place(a_ticket(10, take_profit="210", stop_loss="190"))
    legs = await live(venue)
    before = await offset(venue)
    await move(venue, bid, ask)

    assert await live(venue) == {}
    assert await venue.position(AAPL) is None
    done, gone = [await venue.order(legs[role].order_id) for role in (filled, canceled)]
    assert done.status is OrderStatus.FILLED
    assert (gone.status, gone.close_reason) == (OrderStatus.CANCELED, CloseReason.SIBLING_FILLED)
    assert ("position", 0) in await told(venue, since=before)
    await venue.verify()


async def test_stop_goes_first_where_one_quote_hits_both_legs(venue: Venue) -> None:
    await venue.place(a_ticket(10, take_profit="210", stop_loss="190"))
    legs = await live(venue)
    # No request leads there, so the stop is moved by hand to where the same quote hits it too.
    async with venue.database.transaction() as transaction:
        await transaction.execute(
            sa.update(tables.orders)
            .where(tables.orders.c.order_id == legs[STOP].order_id)
            .values(trigger_price=21500)
        )
    assert legs[PROFIT].order_id < legs[STOP].order_id
    await move(venue, "212.00", "212.10")

    assert (await venue.order(legs[STOP].order_id)).status is OrderStatus.FILLED
    gone = await venue.order(legs[PROFIT].order_id)
    assert (gone.filled_quantity, gone.close_reason) == (0, CloseReason.SIBLING_FILLED)


async def test_leg_never_moves_across_the_market(venue: Venue) -> None:
    await venue.place(a_ticket(10, take_profit="210", stop_loss="190"))
    legs = await live(venue)
    with pytest.raises(OrderInvalidError, match="at once"):
        await modify(venue, legs[PROFIT].order_id, OrderChange(limit_price=Decimal("199.50")))
    with pytest.raises(OrderInvalidError, match="at once"):
        await modify(venue, legs[STOP].order_id, OrderChange(trigger_price=Decimal(205)))
    await modify(venue, legs[STOP].order_id, OrderChange(trigger_price=Decimal(195)))
    position = await venue.position(AAPL)
    assert position is not None
    assert position.brackets.stop_loss == 19500
    await venue.verify()


async def test_canceled_entry_takes_its_legs_along(venue: Venue) -> None:
    entry = await venue.placed(a_ticket(10, limit="195", take_profit="210", stop_loss="190"))
    await venue.cancel(entry.order_id)

    assert await live(venue) == {}
    assert [each[1] for each in await told(venue)][-3:] == ["CANCELED"] * 3
    await venue.verify()


async def test_canceled_leg_takes_nothing_along(venue: Venue) -> None:
    entry = await venue.placed(a_ticket(10, limit="195", take_profit="210", stop_loss="190"))
    await venue.cancel((await live(venue))[STOP].order_id)

    assert set(await live(venue)) == {None, PROFIT}
    assert (await venue.order(entry.order_id)).brackets.stop_loss is None
    await move(venue, "194.80", "194.90")
    await venue.cancel((await live(venue))[PROFIT].order_id)
    position = await venue.position(AAPL)
    assert position is not None
    assert position.brackets.is_empty
    await venue.verify()


async def test_expired_entry_takes_its_legs_along(venue: Venue) -> None:
    await venue.place(
        a_ticket(
            10,
            limit="195",
            take_profit="210",
            time_in_force=TimeInForce.DAY,
        )
    )
    venue.clock.advance(12 * 3600)
    await venue.matching.expire(lease=await venue.lease(), now=venue.now)

    assert await live(venue) == {}
    await venue.verify()


async def test_partial_entry_protects_what_is_filled_and_keeps_it_when_canceled(
    database: Database, clock: FixedClock, market: FakeMarket
) -> None:
    # 0.4 participation of a volume between 1000 and 3000 USD: two to six of ten each time.
    model = PaperModel(seed=7, volume_by_kind={"stock": 2000}, participation_ppm=400_000)
    venue = build_venue(database, clock, market, model=model)
    entry = await venue.placed(a_ticket(10, take_profit="210", stop_loss="190"))
    assert entry.status is OrderStatus.PARTIALLY_FILLED

    legs = await live(venue)
    assert legs[PROFIT].leaves_quantity == legs[STOP].leaves_quantity == entry.filled_quantity
    assert legs[PROFIT].status is OrderStatus.ACCEPTED
    await venue.cancel(entry.order_id)
    assert set(await live(venue)) == {PROFIT, STOP}
    await venue.verify()
    # The take-profit fills in part as well: its sibling shrinks with the position.
    filled = entry.filled_quantity
    await move(venue, "210.00", "210.10")
    while (position := await venue.position(AAPL)) is not None:
        legs = await live(venue)
        held = position.signed_quantity
        assert held < filled
        assert legs[PROFIT].leaves_quantity == legs[STOP].leaves_quantity == held
        await venue.verify()
        filled = held
        await move(venue, "210.00", "210.10")
    assert await live(venue) == {}
    await venue.verify()


async def test_position_grows_and_shrinks_with_its_pair(venue: Venue) -> None:
    await venue.place(a_ticket(10, take_profit="210", stop_loss="190"))
    await venue.place(a_ticket(5))
    assert {each.quantity for each in (await live(venue)).values()} == {15}
    await venue.close(AAPL, "6")
    assert {each.leaves_quantity for each in (await live(venue)).values()} == {9}
    await venue.verify()


async def test_new_entry_with_brackets_replaces_the_pair(venue: Venue) -> None:
    await venue.place(a_ticket(10, take_profit="210", stop_loss="190"))
    old = await live(venue)
    await venue.place(a_ticket(5, take_profit="220"))

    new = await live(venue)
    assert set(new) == {PROFIT}
    assert (new[PROFIT].limit_price, new[PROFIT].quantity) == (22000, 15)
    for leg in old.values():
        gone = await venue.order(leg.order_id)
        assert gone.close_reason is CloseReason.BRACKETS_REPLACED
    await venue.verify()


async def test_flip_cancels_the_pair_and_attaches_the_entry_s_own(venue: Venue) -> None:
    await venue.place(a_ticket(10, take_profit="210", stop_loss="190"))
    await venue.place(a_ticket(15, side=SELL, take_profit="180", stop_loss="205"))

    legs = await live(venue)
    assert {(each.side, each.quantity) for each in legs.values()} == {(BUY, 5)}
    position = await venue.position(AAPL)
    assert position is not None
    assert (position.brackets.take_profit, position.brackets.stop_loss) == (18000, 20500)
    await venue.verify()


async def test_entry_that_only_reduces_leaves_no_legs(venue: Venue) -> None:
    await venue.place(a_ticket(10, take_profit="210"))
    await venue.place(a_ticket(4, side=SELL, take_profit="180"))

    legs = await live(venue)
    assert [(each.side, each.quantity) for each in legs.values()] == [(SELL, 6)]
    await venue.verify()


async def test_position_s_brackets_are_set_changed_and_removed(venue: Venue) -> None:
    await venue.place(a_ticket(10))
    before = await offset(venue)
    await set_brackets(venue, brackets_ticket("210", "190"))
    legs = await live(venue)
    assert {each.status for each in legs.values()} == {OrderStatus.ACCEPTED}
    assert await told(venue, since=before) == [
        ("position", 10),
        (PROFIT, "ACCEPTED", 10),
        (STOP, "ACCEPTED", 10),
    ]
    before = await offset(venue)
    await set_brackets(venue, brackets_ticket("210", "190"))
    assert await told(venue, since=before) == [], "a repeat changes nothing"

    await set_brackets(venue, brackets_ticket("211"))
    assert await told(venue, since=before) == [
        ("position", 10),
        (STOP, "CANCELED", 10),
        (PROFIT, "ACCEPTED", 10),
    ]
    assert (await live(venue))[PROFIT].order_id == legs[PROFIT].order_id
    await set_brackets(venue, brackets_ticket())
    assert await live(venue) == {}
    await venue.verify()


async def test_brackets_on_the_wrong_side_are_refused(venue: Venue) -> None:
    await venue.place(a_ticket(10))
    for wanted in (
        brackets_ticket(take_profit="199"),
        brackets_ticket(stop_loss="201"),
        brackets_ticket(take_profit="190", stop_loss="210"),
        brackets_ticket("210", "190", pips(10)),
        brackets_ticket(trailing_stop=TicketTrailing()),
        brackets_ticket(take_profit="210.001"),
    ):
        with pytest.raises(OrderInvalidError):
            await set_brackets(venue, wanted)
    with pytest.raises(OrderInvalidError):
        await venue.place(a_ticket(10, limit="195", take_profit="194"))
    with pytest.raises(OrderInvalidError):
        await venue.place(a_ticket(10, limit="195", side=SELL, stop_loss="190"))
    with pytest.raises(PositionNotFoundError):
        await set_brackets(venue, brackets_ticket("210"), "DEMO:EURUSD")
    assert await live(venue) == {}


async def test_legs_of_an_entry_are_changed_with_it(venue: Venue) -> None:
    entry = await venue.placed(a_ticket(10, limit="195", take_profit="210", stop_loss="190"))
    changed = await modify(
        venue,
        entry.order_id,
        OrderChange(quantity=Decimal(12), take_profit=Decimal(211), stop=None),
    )

    legs = await live(venue)
    assert set(legs) == {None, PROFIT}
    assert (legs[PROFIT].limit_price, legs[PROFIT].quantity) == (21100, 12)
    assert (changed.quantity, changed.brackets.stop_loss) == (12, None)
    await modify(venue, entry.order_id, OrderChange(stop=Decimal(189)))
    assert (await live(venue))[STOP].trigger_price == 18900
    await modify(venue, legs[PROFIT].order_id, OrderChange(limit_price=Decimal(212)))
    assert (await venue.order(entry.order_id)).brackets.take_profit == 21200
    with pytest.raises(OrderInvalidError):
        await modify(venue, legs[PROFIT].order_id, OrderChange(quantity=Decimal(3)))
    await venue.verify()


async def test_trailing_stop_follows_the_market_one_way(venue: Venue) -> None:
    await venue.place(a_ticket(10, trailing_stop=pips(100)))
    stop = (await live(venue))[STOP]
    assert stop.trigger_price == 19890, "a dollar behind the bid it was filled on"
    await move(venue, "205.00", "205.10")
    assert (await venue.order(stop.order_id)).trigger_price == 20400
    await move(venue, "204.50", "204.60")
    assert (await venue.order(stop.order_id)).trigger_price == 20400
    await venue.verify()
    await move(venue, "203.95", "204.05")
    assert (await venue.order(stop.order_id)).status is OrderStatus.FILLED
    assert await venue.position(AAPL) is None
    await venue.verify()


async def test_trailing_stop_order_by_percent(venue: Venue) -> None:
    order = await venue.placed(a_ticket(10, trail=TicketTrailing(percent=Decimal("1.5"))))
    assert order.trigger_price == 20300, "a buy trails above the ask, rounded up"
    await move(venue, "180.00", "180.10")
    order = await venue.order(order.order_id)
    assert order.trigger_price == 18281
    await move(venue, "182.80", "182.90")
    assert (await venue.order(order.order_id)).status is OrderStatus.FILLED
    await venue.verify()


async def test_reversed_position_has_no_brackets(venue: Venue) -> None:
    await venue.place(a_ticket(10, take_profit="210", stop_loss="190"))
    for _ in range(2):
        await venue.positions.reverse_position(
            user_id=USER,
            account_id=None,
            position_id=AAPL,
            idempotency_key="turn",
            now=venue.now,
        )
    position = await venue.position(AAPL)
    assert position is not None
    assert position.signed_quantity == -10
    assert await live(venue) == {}
    await venue.verify()


@pytest.mark.parametrize("mode", PositionMode)
async def test_position_turns_once_however_often_it_is_asked_for(
    database: Database, clock: FixedClock, market: FakeMarket, mode: PositionMode
) -> None:
    model = PaperModel(seed=7, volume_by_kind={"stock": 2000}, participation_ppm=400_000)
    venue = build_venue(database, clock, market, model=model)
    account, _ = await venue.accounts.open_account(
        user_id=USER, name=None, position_mode=mode, idempotency_key=None, now=venue.now
    )

    async def held() -> dict[str, int]:
        report = await venue.reports.get_state(
            user_id=USER, account_id=account.account_id, now=venue.now
        )
        return {each.position_id: each.signed_quantity for each in report.positions}

    await venue.place(a_ticket(10), account_id=account.account_id)
    while sum((await held()).values()) < 10:
        await move(venue, "199.90", "200.00")
    (position_id,) = await held()
    for _ in range(2):
        # It fills in parts, so the second comes while the first still turns it.
        await venue.positions.change_position(
            user_id=USER,
            account_id=account.account_id,
            position_id=position_id,
            side=SELL,
            wanted=brackets_ticket(None, "230"),
            now=venue.now,
        )
        assert 0 < (await held())[position_id] < 10
    for _ in range(20):
        await move(venue, "199.90", "200.00")
    assert list((await held()).values()) == [-10]
    found = await venue.reports.list_orders(
        user_id=USER, account_id=account.account_id, now=venue.now
    )
    assert [each.trigger_price for each in found.orders if each.is_live] == [23000]
    await venue.verify()


@pytest.fixture
async def hedging(venue: Venue) -> str:
    account, _ = await venue.accounts.open_account(
        user_id=USER,
        name="both ways",
        position_mode=PositionMode.HEDGING,
        idempotency_key=None,
        now=venue.now,
    )
    return account.account_id


async def test_hedging_has_one_position_per_entry_each_with_its_pair(
    venue: Venue, hedging: str
) -> None:
    await venue.place(a_ticket(10, take_profit="210", stop_loss="190"), account_id=hedging)
    await venue.place(a_ticket(4, side=SELL, stop_loss="205"), account_id=hedging)
    report = await venue.reports.get_state(user_id=USER, account_id=hedging, now=venue.now)
    long, short = sorted(report.positions, key=lambda each: -each.signed_quantity)
    assert (long.signed_quantity, short.signed_quantity) == (10, -4)
    assert long.position_id != short.position_id
    # Both sides need margin: 10 at the bid and 4 at the ask, a fifth each.
    assert report.valuation.margin_minor == 399_80 + 160_00
    await venue.verify()

    await venue.positions.close_position(
        user_id=USER,
        account_id=hedging,
        position_id=long.position_id,
        quantity=Decimal(3),
        idempotency_key=None,
        now=venue.now,
    )
    found = await venue.reports.list_orders(user_id=USER, account_id=hedging, now=venue.now)
    legs = [each for each in found.orders if each.is_live]
    assert {(each.parent_id, each.leaves_quantity) for each in legs} == {
        (long.position_id, 7),
        (short.position_id, 4),
    }
    assert {each.parent_type for each in legs} == {ParentType.TRADE}
    await venue.verify()

    await move(venue, "210.00", "210.10")
    report = await venue.reports.get_state(user_id=USER, account_id=hedging, now=venue.now)
    assert report.positions == (), "the long's profit was taken, the short was stopped"
    # 3 at 199.90, 7 at 210, bought at 200; 4 sold at 199.90, bought at 210.10.
    assert report.valuation.realized_minor == -30 + 70_00 - 40_80
    await venue.verify()
    assert await venue.matching.reconcile(now=venue.now) == 0


async def test_hedging_reverse_closes_one_and_opens_the_other(venue: Venue, hedging: str) -> None:
    await venue.place(a_ticket(10), account_id=hedging)
    report = await venue.reports.get_state(user_id=USER, account_id=hedging, now=venue.now)
    await venue.positions.reverse_position(
        user_id=USER,
        account_id=hedging,
        position_id=report.positions[0].position_id,
        idempotency_key=None,
        now=venue.now,
    )
    report = await venue.reports.get_state(user_id=USER, account_id=hedging, now=venue.now)
    assert [each.signed_quantity for each in report.positions] == [-10]
    with pytest.raises(OrderInvalidError):
        await venue.place(a_ticket(1, reduce_only=True), account_id=hedging)
    await venue.verify()


async def test_closing_order_names_a_position_of_its_own_instrument(
    venue: Venue, market: FakeMarket, hedging: str
) -> None:
    market.quote("60000.00", "60010.00", "DEMO:BTCUSD")
    await venue.place(a_ticket("0.1", symbol="DEMO:BTCUSD", side=SELL), account_id=hedging)
    report = await venue.reports.get_state(user_id=USER, account_id=hedging, now=venue.now)
    short = report.positions[0]
    # The instruments' own positions are flat under hedging; unknown ones aren't held at all.
    for named in (short.position_id, "DEMO:BTCUSD", "pos_elsewhere"):
        with pytest.raises(OrderInvalidError) as refusal:
            await venue.place(a_ticket(1, reduce_only=True, position_id=named), account_id=hedging)
        assert [each.field for each in refusal.value.errors] == ["positionId"]
    after = await venue.reports.get_state(user_id=USER, account_id=hedging, now=venue.now)
    assert [each.signed_quantity for each in after.positions] == [short.signed_quantity]
    await venue.verify()


async def test_changes_of_legs_pass_the_gate_of_orders(
    database: Database, clock: FixedClock, market: FakeMarket
) -> None:
    limits = RiskLimits(orders_per_second=1, orders_burst=2, price_band_ppm=100_000)
    venue = build_venue(database, clock, market, policy=replace(POLICY, limits=limits))
    await venue.place(a_ticket(10))
    entry = await venue.placed(a_ticket(5, limit="195", take_profit="210", stop_loss="190"))
    held = (await live(venue))[STOP]
    account_id = (await venue.state()).account.account_id

    async def move_leg(price: int) -> None:
        await modify(venue, held.order_id, OrderChange(trigger_price=Decimal(price)))

    async def move_entry_s(price: int) -> None:
        await modify(venue, entry.order_id, OrderChange(stop=Decimal(price)))

    async def move_position_s(price: int) -> None:
        await set_brackets(venue, brackets_ticket(None, str(price)))

    async def refuses(error: type[TradingError], price: int) -> None:
        before = await venue.state()
        for move_to in (move_leg, move_entry_s, move_position_s):
            with pytest.raises(error):
                await move_to(price)
        assert await venue.state() == before

    async def turn(state: TradingState) -> None:
        await venue.controls.set_account(
            account_id=account_id, state=state, reason="why", operator_id="usr_op", now=venue.now
        )

    await refuses(OrderRateError, 180)
    # A repeat and taking a leg away count for nothing.
    await modify(venue, entry.order_id, OrderChange(stop=Decimal(190)))
    await modify(venue, entry.order_id, OrderChange(take_profit=None))
    clock.advance(10)
    with pytest.raises(OrderInvalidError, match="at once"):
        # Above its entry, though below the market.
        await move_leg(196)
    await turn(TradingState.REDUCE_ONLY)
    # Out of the band of prices, which binds what opens alone.
    for move_to in (move_leg, move_position_s):
        await move_to(150)
    clock.advance(10)
    await move_entry_s(151)
    await turn(TradingState.HALTED)
    clock.advance(10)
    await refuses(TradingHaltedError, 160)
    await set_brackets(venue, brackets_ticket())
    await modify(venue, entry.order_id, OrderChange(stop=None))
    assert list(await live(venue)) == [None]
    await venue.verify()


async def test_orders_of_a_symbol_and_side_are_canceled_together(venue: Venue) -> None:
    await venue.place(a_ticket(10, limit="195", take_profit="210", stop_loss="190"))
    await venue.place(a_ticket(5, limit="196"))
    sell = await venue.placed(a_ticket(5, side=SELL, limit="250"))

    async def cancel(**which: Any) -> list[str]:
        return await venue.orders.cancel_orders(
            user_id=USER, account_id=None, now=venue.now, **which
        )

    assert await cancel(symbol="DEMO:EURUSD", side=None) == []
    assert len(await cancel(symbol=AAPL, side=BUY)) == 2
    assert set(await live(venue)) == {None}, "the legs went with their entry"
    assert await cancel(symbol=None, side=None) == [sell.order_id]
    await venue.verify()
