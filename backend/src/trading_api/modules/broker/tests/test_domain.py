"""The rules themselves: transitions, matching, positions, margin; thousands of cases a second."""

from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_api.modules.broker.domain.account import compute_valuation
from trading_api.modules.broker.domain.arithmetic import divide_half_even, divide_up, rescale
from trading_api.modules.broker.domain.instrument import COST_SCALE, full_symbol
from trading_api.modules.broker.domain.margin import compute_reservation, compute_reserve_price
from trading_api.modules.broker.domain.matching import match
from trading_api.modules.broker.domain.order import (
    CLOSED,
    OPEN,
    TRANSITIONS,
    BracketRole,
    CloseReason,
    Order,
    OrderSide,
    OrderStatus,
    OrderType,
    TimeInForce,
    day_end,
    measure,
)
from trading_api.modules.broker.domain.position import Position, apply_fill
from trading_api.modules.broker.errors import OrderInvalidError
from trading_api.modules.broker.tests.builders import (
    AAPL,
    BUY,
    INSTRUMENTS,
    NOW,
    SELL,
    a_quote,
    a_ticket,
    an_order,
    terms,
)

sides = st.sampled_from(OrderSide)
quantities = st.integers(1, 10_000)
prices = st.integers(1, 1_000_000)
fills = st.lists(st.tuples(sides, quantities, prices), min_size=1, max_size=12)

SPECIFIED = """
NEW -> REJECTED ACCEPTED HELD
HELD -> ACCEPTED CANCELED REJECTED
ACCEPTED -> TRIGGERED PARTIALLY_FILLED FILLED PENDING_REPLACE PENDING_CANCEL CANCELED EXPIRED
TRIGGERED -> PARTIALLY_FILLED FILLED PENDING_REPLACE PENDING_CANCEL CANCELED EXPIRED REJECTED
PARTIALLY_FILLED -> PARTIALLY_FILLED FILLED PENDING_REPLACE PENDING_CANCEL CANCELED EXPIRED
PENDING_REPLACE -> ACCEPTED TRIGGERED PARTIALLY_FILLED FILLED CANCELED EXPIRED PENDING_CANCEL
PENDING_CANCEL -> CANCELED PARTIALLY_FILLED FILLED EXPIRED ACCEPTED TRIGGERED
REJECTED ->
FILLED ->
CANCELED ->
EXPIRED ->
"""


def flat(symbol: str = AAPL) -> Position:
    return Position("acc_1", terms(symbol), NOW)


def held(*done: tuple[OrderSide, int, int]) -> Position:
    position = flat()
    for side, quantity, price in done:
        position, _ = apply_fill(position, side=side, quantity=quantity, price=price, now=NOW)
    return position


def test_transitions_are_exactly_those_specified() -> None:
    specified = {
        (source, target)
        for line in SPECIFIED.strip().splitlines()
        for source, _, targets in [line.partition(" ->")]
        for target in targets.split()
    }
    allowed = {
        (source.value, to.value) for source, targets in TRANSITIONS.items() for to in targets
    }
    assert allowed == specified
    assert {status.value for status in TRANSITIONS} == {status.value for status in OrderStatus}
    assert not CLOSED & OPEN


def _plain(order: Order) -> Order:
    # Only an order without a trigger fills in any of the states that the table has for it.
    return replace(order, type=OrderType.MARKET, trigger_price=None)


def test_every_move_outside_the_table_is_a_programmer_s_error() -> None:
    moves = {
        OrderStatus.ACCEPTED: lambda order: order.accept(),
        OrderStatus.CANCELED: lambda order: order.cancel(CloseReason.BY_CLIENT, NOW),
        OrderStatus.EXPIRED: lambda order: order.expire(NOW),
        OrderStatus.REJECTED: lambda order: order.reject(CloseReason.INSUFFICIENT_MARGIN, NOW),
        OrderStatus.TRIGGERED: lambda order: order.trigger(NOW),
        OrderStatus.HELD: lambda order: replace(order, role=BracketRole.STOP_LOSS).hold(),
        OrderStatus.PARTIALLY_FILLED: lambda order: _plain(order).fill(1, 20000, NOW),
        OrderStatus.FILLED: lambda order: _plain(order).fill(10, 20000, NOW),
    }
    for status in OrderStatus:
        for target, move in moves.items():
            order = replace(an_order(trigger_price=1), status=status)
            if target in TRANSITIONS[status]:
                assert move(order).status is target
            else:
                with pytest.raises(AssertionError):
                    move(order)


@given(st.lists(st.integers(1, 40), max_size=20), prices)
def test_fills_add_up_and_never_exceed_the_order(sizes: list[int], price: int) -> None:
    order = an_order(100).accept()
    for size in sizes:
        if size > order.leaves_quantity:
            with pytest.raises(AssertionError):
                order.fill(size, price, NOW)
            continue
        order = order.fill(size, price, NOW)
        assert order.filled_value == order.filled_quantity * price
        assert (order.status is OrderStatus.FILLED) == (order.filled_quantity == 100)
        assert order.average_fill_price() == price * 10**6
    assert order.leaves_quantity == 100 - order.filled_quantity


@given(sides, prices, prices, st.integers(0, 1000), st.none() | prices, st.none() | prices)
def test_no_fill_is_ever_worse_than_the_limit_or_before_the_trigger(
    side: OrderSide, bid: int, base: int, spread: int, limit: int | None, trigger: int | None
) -> None:
    order = an_order(side=side, limit_price=limit, trigger_price=trigger).accept()
    quote = a_quote(bid, bid + spread)
    found = match(order, quote)
    touch = quote.ask if side is BUY else quote.bid
    if found.price is not None:
        assert found.price == touch
        assert limit is None or (touch <= limit if side is BUY else touch >= limit)
        assert trigger is None or (touch >= trigger if side is BUY else touch <= trigger)
    else:
        is_beyond = limit is not None and (touch > limit if side is BUY else touch < limit)
        waits = trigger is not None and (touch < trigger if side is BUY else touch > trigger)
        assert is_beyond or waits
    assert base > 0


@given(st.lists(st.tuples(sides, quantities, prices), min_size=2, max_size=5))
def test_any_order_of_the_same_fills_gives_the_same_position_and_worth(
    done: list[tuple[OrderSide, int, int]],
) -> None:
    outcomes = set()
    for each in permutations(done):
        position, realized = flat(), 0
        for side, quantity, price in each:
            position, effect = apply_fill(
                position, side=side, quantity=quantity, price=price, now=NOW
            )
            realized += effect.realized
        # Which part is realized depends on the order; what it all is worth does not.
        mark = terms().compute_value(position.signed_quantity, 5000)
        outcomes.add((position.signed_quantity, realized + mark - position.cost))
    assert len(outcomes) == 1


@given(fills, prices)
def test_results_are_cash_flow_and_value_to_the_last_digit(
    done: list[tuple[OrderSide, int, int]], mark: int
) -> None:
    position, realized, paid = flat(), 0, 0
    for side, quantity, price in done:
        before = position
        position, effect = apply_fill(position, side=side, quantity=quantity, price=price, now=NOW)
        realized += effect.realized
        paid += terms().compute_value(side.sign * quantity, price)
        assert position.signed_quantity == before.signed_quantity + side.sign * quantity
        assert 0 <= effect.closed_quantity <= min(quantity, abs(before.signed_quantity))
        assert (position.opened_at is None) == position.is_flat == (position.signed_quantity == 0)
        assert position.cost * position.signed_quantity >= 0
    unrealized = terms().compute_value(position.signed_quantity, mark) - position.cost
    value = terms().compute_value(position.signed_quantity, mark)
    assert realized + unrealized == value - paid
    if position.is_flat:
        assert position.cost == 0


@given(fills)
def test_entry_price_lies_between_the_prices_that_made_it(
    done: list[tuple[OrderSide, int, int]],
) -> None:
    position = held(*done)
    average = position.average_entry_price()
    if average is not None:
        theirs = [price for side, _, price in done if side.sign * position.signed_quantity > 0]
        assert min(theirs) - 1 <= average * 100 <= max(theirs) + 1


def test_flip_passes_through_zero() -> None:
    position = held((BUY, 10, 20000))
    after, effect = apply_fill(position, side=SELL, quantity=25, price=21000, now=NOW)
    assert (effect.closed_quantity, effect.realized_minor) == (10, 100_00)
    assert (after.signed_quantity, after.average_entry_price()) == (-15, Fraction(210))


def test_partial_closes_take_their_share_of_the_cost_and_the_last_takes_the_rest() -> None:
    position = held((BUY, 1, 10001), (BUY, 2, 10000))
    earned = 0
    for _ in range(3):
        position, effect = apply_fill(position, side=SELL, quantity=1, price=10000, now=NOW)
        earned += effect.realized
    assert (position.cost, earned) == (0, -(10**6))


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**12))
def test_half_even_is_the_nearest_and_up_is_never_below(numerator: int, denominator: int) -> None:
    exact = Fraction(numerator, denominator)
    assert divide_half_even(numerator, denominator) == round(exact)
    assert 0 <= divide_up(numerator, denominator) - exact < 1


def test_rescaling_loses_only_what_does_not_fit() -> None:
    assert rescale(12345, 2, 8) == 12345 * 10**6
    assert [rescale(value, 2, 1) for value in (25, 35, 26, -25)] == [2, 4, 3, -2]


def test_margin_of_the_rules_example() -> None:
    # 100,000 EURUSD at 1.10, 30:1.
    assert terms("DEMO:EURUSD").compute_margin(100_000, 110_000) == 3666_67


def test_commission_is_rounded_up_to_the_cent() -> None:
    assert terms().compute_commission(1, 1) == 1
    assert terms().compute_commission(100, 10000) == 100
    assert terms().compute_commission(100, 10001) == 101


@given(
    st.integers(-5000, 5000),
    st.lists(st.tuples(sides, st.integers(1, 3000), st.integers(1, 50_000)), max_size=6),
)
def test_reservation_covers_the_worst_that_open_orders_can_do(
    signed: int, asked: list[tuple[OrderSide, int, int]]
) -> None:
    position = flat()
    if signed:
        side = BUY if signed > 0 else SELL
        position = held((side, abs(signed), 10_000))
    orders = [
        an_order(quantity, side=side, reserve_price=price, order_id=f"ord_{number}").accept()
        for number, (side, quantity, price) in enumerate(asked)
    ]
    reserved = compute_reservation(position, orders)
    buys = sum(quantity for side, quantity, _ in asked if side is BUY)
    sells = sum(quantity for side, quantity, _ in asked if side is SELL)
    beyond = max(abs(signed + buys), abs(signed - sells)) - abs(signed)
    cheapest = min((price for _, _, price in asked), default=0)
    dearest = max((price for _, _, price in asked), default=0)
    if beyond <= 0:
        assert reserved == 0
    else:
        assert reserved >= terms().compute_margin(beyond, cheapest)
        # Each order's margin and commission are rounded up by themselves.
        ceiling = terms().compute_margin(beyond, dearest) + terms().compute_commission(
            beyond, dearest
        )
        assert reserved <= ceiling + 2 * len(orders)


def test_closing_and_reduce_only_orders_reserve_nothing() -> None:
    position = held((BUY, 10, 20000))
    closing = an_order(20, side=SELL).accept()
    beyond = an_order(21, side=SELL).accept()
    reducing = an_order(21, side=SELL, reduce_only=True).accept()
    assert compute_reservation(position, [closing]) == 0
    assert compute_reservation(position, [beyond]) == terms().compute_margin(1, 20000) + 2
    assert compute_reservation(position, [reducing]) == 0


def test_canceled_orders_reserve_nothing() -> None:
    canceled = an_order(10).accept().cancel(CloseReason.BY_CLIENT, NOW)
    assert compute_reservation(flat(), [canceled]) == 0


@given(fills, prices, st.integers(0, 100))
def test_worth_is_constant_while_nothing_moves(
    done: list[tuple[OrderSide, int, int]], bid: int, spread: int
) -> None:
    quotes = {AAPL: a_quote(bid, bid + spread)}
    worths = {
        compute_valuation(cash_minor=10**7, positions=[held(*done)], quotes=quotes)
        for _ in range(3)
    }
    assert len(worths) == 1
    (worth,) = worths
    assert worth.equity_minor == worth.cash_minor + worth.unrealized_minor
    assert worth.withdrawable_minor >= 0
    assert worth.withdrawable_minor <= max(0, worth.available_minor)


@pytest.mark.parametrize(
    ("limit", "trigger", "expected"),
    [(None, None, 20020), (19000, None, 20000), (21000, None, 21000), (None, 21000, 21021)],
)
def test_reserve_price_is_the_dearer_of_order_and_market(
    limit: int | None, trigger: int | None, expected: int
) -> None:
    order = an_order(limit_price=limit, trigger_price=trigger)
    price = compute_reserve_price(
        type_=order.type,
        limit_price=limit,
        trigger_price=trigger,
        quote=a_quote(19990, 20000),
        slippage_cap_ppm=1000,
    )
    assert price == expected


def test_every_fault_of_a_ticket_is_named() -> None:
    ticket = a_ticket("1.5", limit="1.001", time_in_force=TimeInForce.GTD)
    with pytest.raises(OrderInvalidError) as caught:
        measure(ticket, INSTRUMENTS[AAPL], a_quote(), NOW)
    assert [error.field for error in caught.value.errors] == [
        "qty", "limitPrice", "duration.datetime",
    ]  # fmt: skip


@given(st.integers(0, 10**6))
def test_day_ends_within_a_day_at_midnight(seconds: int) -> None:
    now = NOW + timedelta(seconds=seconds)
    end = day_end(now)
    assert timedelta(0) < end - now <= timedelta(days=1)
    assert (end.hour, end.minute, end.second, end.microsecond) == (0, 0, 0, 0)


def test_bare_tickers_are_the_demo_market_s() -> None:
    assert [full_symbol(each) for each in ("AAPL", "HIST:AAPL")] == ["DEMO:AAPL", "HIST:AAPL"]


def test_quote_is_fresh_for_two_seconds() -> None:
    quote = a_quote()
    assert quote.is_fresh(NOW + timedelta(seconds=1.999999))
    assert not quote.is_fresh(NOW + timedelta(seconds=2))


@given(st.lists(st.tuples(sides, st.integers(1, 10**8), st.integers(1, 10**7)), max_size=8))
def test_fine_quantities_lose_at_most_the_last_digit(
    done: list[tuple[OrderSide, int, int]],
) -> None:
    # Bitcoin: eight decimals of quantity and two of price are more than cost keeps.
    position, realized, paid = flat("DEMO:BTCUSD"), 0, Fraction(0)
    for side, quantity, price in done:
        position, effect = apply_fill(position, side=side, quantity=quantity, price=price, now=NOW)
        realized += effect.realized
        paid += Fraction(side.sign * quantity * price, 100)
    assert abs(position.cost - realized - paid) <= 2 * len(done)
    assert COST_SCALE == 8


def test_order_type_is_kept_by_every_move() -> None:
    order: Order = an_order(limit_price=20000).accept()
    assert order.fill(10, 19000, NOW).type is order.type
