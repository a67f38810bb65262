"""Margin calls and stop-outs at their exact levels, and financing once per night."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from trading_api.modules.broker.domain.account import PositionMode
from trading_api.modules.broker.domain.event import Notice, NoticeCode
from trading_api.modules.broker.domain.order import CloseReason, OrderStatus
from trading_api.modules.broker.domain.schedules import FinancingRate, days_to_finance
from trading_api.modules.broker.tests import builders
from trading_api.modules.broker.tests.builders import (
    AAPL,
    EURUSD,
    POLICY,
    SELL,
    FakeMarket,
    a_ticket,
    an_instrument,
)
from trading_api.modules.broker.tests.conftest import USER, Venue, build_venue
from trading_api.runtime.database import Database
from trading_api.testkit.clocks import FixedClock

RATES = {"stock": FinancingRate(36_500, 73_000), "forex": FinancingRate(-36_500, 36_500)}


async def notices(venue: Venue) -> list[Notice]:
    account_id = (await venue.state()).account.account_id
    _, events = await venue.reports.list_notices(
        user_id=USER, account_id=account_id, limit=20, now=venue.now
    )
    return [each.subject for each in events if isinstance(each.subject, Notice)]


async def watch(venue: Venue) -> int:
    return await venue.margin.watch(lease=await venue.lease(), now=venue.now)


async def test_call_is_told_once_and_again_only_after_the_account_was_safe(venue: Venue) -> None:
    # 100,000 - 40 commission; 2,000 at 200.00: margin is a fifth of the mark.
    await venue.place(a_ticket(2_000))
    assert await watch(venue) == 0
    # Equity 99,960 + 2,000 · (p - 200); margin 400 · p: equal at p = 187.525.
    venue.market.quote("187.53", "187.63")
    assert await watch(venue) == 0
    venue.market.quote("187.52", "187.62")
    assert await watch(venue) == 1
    assert await watch(venue) == 0
    venue.market.quote("188.00", "188.10")
    assert await watch(venue) == 0
    (called,) = await notices(venue)
    assert (called.code, called.is_error) == (NoticeCode.MARGIN_CALL, True)
    assert called.numbers["level"] == "99.98"
    # 120 %: equity = 480 · p at p = 197.3947…
    venue.market.quote("197.39", "197.49")
    assert await watch(venue) == 0
    venue.market.quote("197.40", "197.50")
    assert await watch(venue) == 1
    venue.market.quote("187.00", "187.10")
    assert await watch(venue) == 1
    assert [each.code for each in await notices(venue)] == [
        NoticeCode.MARGIN_CALL,
        NoticeCode.MARGIN_RESTORED,
        NoticeCode.MARGIN_CALL,
    ]
    await venue.verify()


async def test_stop_out_cancels_and_closes_the_largest_loss_first(
    venue: Venue, market: FakeMarket
) -> None:
    await venue.place(a_ticket(1_500))
    await venue.place(a_ticket(500_000, symbol=EURUSD))
    await venue.place(a_ticket(1, symbol="DEMO:EURUSD", limit="1.00000"))
    rests = await venue.placed(a_ticket(10, limit="120"))
    closes = await venue.placed(a_ticket(100, limit="250", side=SELL))
    market.quote("140.00", "140.10")
    assert await watch(venue) == 1
    state = await venue.state()
    assert [each.symbol for each in state.positions] == [EURUSD]
    assert (await venue.order(rests.order_id)).close_reason is CloseReason.STOP_OUT
    assert (await venue.order(closes.order_id)).status is OrderStatus.CANCELED
    stopped, called = await notices(venue)
    assert (called.code, stopped.code) == (NoticeCode.MARGIN_CALL, NoticeCode.STOP_OUT)
    assert (stopped.numbers["closed"], stopped.numbers["canceled"]) == (AAPL, "3")
    assert await watch(venue) == 0
    await venue.verify()


async def test_stop_out_waits_for_a_fresh_quote_and_an_open_market(
    venue: Venue, market: FakeMarket, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await venue.place(a_ticket(2_000))
    market.quote("150.00", "150.10")
    clock.advance(5)
    assert await watch(venue) == 1
    assert await watch(venue) == 0
    assert (await venue.position(AAPL)) is not None
    market.quote("150.00", "150.10")
    closed = an_instrument(session="0930-1000", time_zone="UTC")
    monkeypatch.setitem(builders.INSTRUMENTS, AAPL, closed)
    assert await watch(venue) == 0
    assert (await venue.position(AAPL)) is not None
    monkeypatch.setitem(builders.INSTRUMENTS, AAPL, an_instrument())
    assert await watch(venue) == 1
    assert (await venue.position(AAPL)) is None
    # All lost and more than that would be borne by the house; here something is left.
    state = await venue.state()
    assert state.valuation.equity_minor == state.valuation.cash_minor
    assert [each.code for each in await notices(venue)] == [
        NoticeCode.MARGIN_RESTORED,
        NoticeCode.STOP_OUT,
        NoticeCode.MARGIN_CALL,
    ]
    await venue.verify()


async def test_house_bears_what_a_gap_takes_below_zero(venue: Venue, market: FakeMarket) -> None:
    await venue.place(a_ticket(2_000))
    market.quote("100.00", "100.10")
    assert await watch(venue) == 1
    assert (await venue.state()).valuation.cash_minor == 0
    await venue.verify()


@pytest.fixture
def financed(database: Database, clock: FixedClock, market: FakeMarket) -> Venue:
    return build_venue(database, clock, market, policy=replace(POLICY, financing_by_kind=RATES))


async def charge(venue: Venue) -> int:
    return await venue.financing.charge(lease=await venue.lease(), now=venue.now)


async def test_night_is_charged_once_by_what_was_held_at_midnight(
    financed: Venue, market: FakeMarket, clock: FixedClock
) -> None:
    await financed.place(a_ticket(10))
    await financed.place(a_ticket(100, symbol=EURUSD))
    assert await charge(financed) == 0
    clock.advance(10 * 3600)
    market.quote("210.00", "210.10")
    market.quote("1.10000", "1.10010", EURUSD)
    # Bought after midnight: costs nothing for this night.
    await financed.place(a_ticket(90))
    before = (await financed.state()).valuation
    assert await charge(financed) == 1
    assert await charge(financed) == 0
    after = (await financed.state()).valuation
    # 10 · 210.00 · 3.65 % / 365 = 0.21; 100 · 1.10 earns 0.011, rounded down to 0.01.
    assert before.cash_minor - after.cash_minor == 21 - 1
    assert after.financing_minor == 20
    await financed.verify()


async def test_house_bears_what_a_night_takes_below_zero(
    financed: Venue, market: FakeMarket, clock: FixedClock
) -> None:
    await financed.place(a_ticket(2_000))
    clock.advance(24 * 3600)
    market.quote("150.05", "150.15")
    await financed.close(AAPL)
    # 100,000.00 less 40.00, 99,900.00 and 30.01; the night costs 30.01.
    assert (await financed.state()).valuation.cash_minor == 29_99
    assert await charge(financed) == 1
    assert (await financed.state()).valuation.cash_minor == 0
    await financed.verify()


async def test_missed_nights_and_closed_positions_are_charged_too(
    financed: Venue, market: FakeMarket, clock: FixedClock
) -> None:
    await financed.place(a_ticket(10, side=SELL))
    clock.advance(2 * 24 * 3600)
    market.quote("199.90", "200.00")
    await financed.close(AAPL)
    assert await charge(financed) == 1
    # Two nights short: 10 · 200.00 · 7.3 % / 365 = 0.40 each.
    assert (await financed.state()).valuation.financing_minor == 80
    clock.advance(24 * 3600)
    assert await charge(financed) == 0
    await financed.verify()


async def test_entries_of_a_hedging_account_are_charged_each_and_in_the_total(
    financed: Venue, market: FakeMarket, clock: FixedClock
) -> None:
    account, _ = await financed.accounts.open_account(
        user_id=USER,
        name="both ways",
        position_mode=PositionMode.HEDGING,
        idempotency_key=None,
        now=financed.now,
    )
    mine = account.account_id
    await financed.place(a_ticket(10), account_id=mine)
    await financed.place(a_ticket(10, side=SELL), account_id=mine)
    report = await financed.reports.get_state(user_id=USER, account_id=mine, now=financed.now)
    long = next(each for each in report.positions if each.signed_quantity > 0)
    clock.advance(24 * 3600)
    market.quote("199.90", "200.00")
    await financed.positions.close_position(
        user_id=USER,
        account_id=mine,
        position_id=long.position_id,
        quantity=None,
        idempotency_key=None,
        now=financed.now,
    )
    before = (
        await financed.reports.get_state(user_id=USER, account_id=mine, now=financed.now)
    ).valuation.cash_minor
    assert await charge(financed) == 1
    after = (
        await financed.reports.get_state(user_id=USER, account_id=mine, now=financed.now)
    ).valuation
    # The long was closed after midnight: 10 · 199.90 · 3.65 % / 365 = 0.1999; the short 0.40.
    assert before - after.cash_minor == after.financing_minor == 20 + 40
    assert await charge(financed) == 0
    await financed.verify()


def test_every_day_that_began_is_due() -> None:
    last = datetime(2026, 3, 2, tzinfo=UTC).date()
    assert days_to_finance(last, datetime(2026, 3, 2, 23, 59, tzinfo=UTC)) == []
    assert [
        each.isoformat() for each in days_to_finance(last, datetime(2026, 3, 4, tzinfo=UTC))
    ] == ["2026-03-03", "2026-03-04"]
