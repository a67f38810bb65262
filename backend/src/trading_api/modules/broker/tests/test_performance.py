"""Equity over time: samples, growth without deposits, drawdown, days, and what never drifts."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from trading_api.modules.broker.domain.performance import (
    EquityPoint,
    compute_curve,
    compute_days,
    thin,
)
from trading_api.modules.broker.errors import AccountNotFoundError
from trading_api.modules.broker.service.performance import Performance
from trading_api.modules.broker.tests.builders import AAPL, EURUSD, FakeMarket, a_ticket
from trading_api.modules.broker.tests.conftest import USER, Venue, build_venue
from trading_api.runtime.database import Database
from trading_api.testkit.clocks import FixedClock

DAY = datetime(2026, 3, 2, tzinfo=UTC)


def a_point(hours: float, equity: int, flows: int = 1000) -> EquityPoint:
    return EquityPoint(
        at=DAY + timedelta(hours=hours),
        cash_minor=equity,
        equity_minor=equity,
        flows_minor=flows,
        margin_minor=0,
        exposure_minor=0,
        sequence=1,
    )


def test_growth_leaves_deposits_out_and_drawdown_counts_from_the_best() -> None:
    curve = compute_curve(
        [a_point(0, 1000), a_point(1, 1200), a_point(2, 2200, 2000), a_point(3, 1650, 2000)]
    )
    assert [each.growth for each in curve] == [Decimal(text) for text in ("1", "1.2", "1.2", "0.9")]
    assert [each.drawdown for each in curve] == [Decimal(text) for text in ("0", "0", "0", "0.25")]


def test_day_begins_where_the_one_before_ended() -> None:
    days = compute_days(
        [a_point(1, 1000), a_point(20, 1100), a_point(25, 1600, 1500), a_point(47, 1050, 1500)]
    )
    assert [(each.day, each.start_minor, each.end_minor) for each in days] == [
        (date(2026, 3, 2), 1000, 1100),
        (date(2026, 3, 3), 1100, 1050),
    ]
    assert [each.profit_minor for each in days] == [100, -550]
    assert sum(each.profit_minor for each in days) == 1050 - 1000 - 500


def test_nothing_at_all_is_no_growth_and_losing_more_than_all_is_losing_all() -> None:
    assert compute_curve([]) == []
    assert compute_days([]) == []
    assert [each.growth for each in compute_curve([a_point(0, 0), a_point(1, 10)])] == [1, 1]
    assert compute_curve([a_point(0, 10), a_point(1, -5)])[-1].growth == 0


def test_thinning_keeps_both_ends() -> None:
    curve = compute_curve([a_point(each, 1000 + each) for each in range(100)])
    thinned = thin(curve, 10)
    assert len(thinned) == 10
    assert (thinned[0], thinned[-1]) == (curve[0], curve[-1])


async def sample(venue: Venue) -> int:
    return await venue.performance.sample(lease=await venue.lease(), now=venue.now)


async def report(venue: Venue) -> Performance:
    account_id = (await venue.state()).account.account_id
    return await venue.performance.get_performance(
        user_id=USER, account_id=account_id, from_=None, to=None, now=venue.now
    )


async def test_curve_follows_the_market_and_sums_up(
    venue: Venue, market: FakeMarket, clock: FixedClock
) -> None:
    await venue.state()
    clock.advance(1)
    await venue.place(a_ticket(100))
    assert await sample(venue) == 1
    for bid, ask in (("209.90", "210.00"), ("189.90", "190.00")):
        clock.advance(60)
        market.quote(bid, ask)
        assert await sample(venue) == 1
    clock.advance(60)
    market.quote("199.90", "200.00")
    market.quote("1.09990", "1.10000", EURUSD)
    await venue.place(a_ticket(1_000, symbol=EURUSD))
    await venue.close(AAPL)
    found = await report(venue)
    state = (await venue.state()).valuation
    assert found.worth == state
    assert found.flows_minor == 0
    assert found.profit_minor == found.curve[-1].point.equity_minor - (
        found.curve[0].point.equity_minor
    )
    # Its beginning is the first point, and was written with the account.
    assert [each.point.equity_minor for each in found.curve] == [
        100_000_00,
        100_000_00 - 200 - 1000,
        100_000_00 - 200 + 99_000,
        100_000_00 - 200 - 101_000,
        state.equity_minor,
    ]
    best, worst = (found.curve[each].point.equity_minor for each in (2, 3))
    assert found.drawdown_max == (1 - Decimal(worst) / Decimal(best)).quantize(Decimal("1e-8"))
    assert [(each.symbol, each.executions, each.closes) for each in found.symbols] == [
        (AAPL, 2, 1),
        (EURUSD, 1, 0),
    ]
    assert sum(each.realized_minor for each in found.symbols) == state.realized_minor
    assert found.exposure_minor == 1_099_90
    assert [each.day for each in found.days] == [venue.now.date()]
    with pytest.raises(AccountNotFoundError):
        await venue.performance.get_performance(
            user_id="usr_stranger",
            account_id=found.account.account_id,
            from_=None,
            to=None,
            now=venue.now,
        )
    await venue.verify()


async def test_reset_begins_another_curve(venue: Venue, clock: FixedClock) -> None:
    await venue.place(a_ticket(100))
    await sample(venue)
    clock.advance(60)
    venue.market.quote("150.00", "150.10")
    account_id = (await venue.state()).account.account_id
    await venue.resets.reset_account(
        user_id=USER, account_id=account_id, idempotency_key=None, now=venue.now
    )
    clock.advance(60)
    found = await report(venue)
    assert (found.growth, found.drawdown_max) == (Decimal(1), Decimal(0))
    assert list(found.symbols) == []


async def test_quiet_account_is_sampled_once_and_equity_never_drifts(
    venue: Venue, database: Database, clock: FixedClock
) -> None:
    await venue.state()
    clock.advance(1)
    await venue.place(a_ticket(100))
    before = (await venue.state()).valuation
    for _ in range(3):
        clock.advance(60)
        assert await sample(venue) == 1
    # P6: no quote, no order, no change. P7: a restart changes no number.
    found = await report(venue)
    assert {each.point.equity_minor for each in found.curve[1:]} == {before.equity_minor}
    restarted = build_venue(database, clock, venue.market)
    assert (await restarted.state()).valuation == before
    venue.market.quote("199.90", "200.00")
    await venue.close(AAPL)
    assert await sample(venue) == 1
    assert await sample(venue) == 0
    await venue.verify()


async def test_old_samples_are_thinned_out(venue: Venue, clock: FixedClock) -> None:
    await venue.place(a_ticket(100))
    for _ in range(4):
        clock.advance(1200)
        await sample(venue)
    lease = await venue.lease()
    assert await venue.performance.thin_out(lease=lease, now=venue.now) == 0
    clock.advance(8 * 24 * 3600)
    # 14:30, 14:50, 15:10, 15:30, 15:50: the last of each hour stays.
    assert await venue.performance.thin_out(lease=lease, now=venue.now) == 3
    clock.advance(90 * 24 * 3600)
    assert await venue.performance.thin_out(lease=lease, now=venue.now) == 1
    assert await venue.performance.thin_out(lease=lease, now=venue.now) == 0
