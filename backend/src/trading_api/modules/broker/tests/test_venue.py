"""The paper venue: depth, slippage, latency, hours; the same seed gives the same bytes."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from trading_api.modules.broker import tables
from trading_api.modules.broker.adapters.paper_venue import PaperModel, PaperVenue
from trading_api.modules.broker.domain.account import Account
from trading_api.modules.broker.domain.matching import Depth, Liquidity, match
from trading_api.modules.broker.domain.order import OrderSide, OrderStatus, TimeInForce
from trading_api.modules.broker.domain.session import parse_hours
from trading_api.modules.broker.errors import MarketClosedError, PostOnlyError
from trading_api.modules.broker.repository import BrokerRepository
from trading_api.modules.broker.tests import builders
from trading_api.modules.broker.tests.builders import (
    AAPL,
    INSTRUMENTS,
    SELL,
    FakeMarket,
    a_quote,
    a_ticket,
    an_instrument,
    an_order,
    pips,
)
from trading_api.modules.broker.tests.conftest import USER, Venue, build_venue
from trading_api.runtime.database import Database, Transaction
from trading_api.testkit.clocks import FixedClock
from trading_api.testkit.migrated import migrate

THIN = PaperModel(
    seed=11, volume_by_kind={"stock": 4000}, participation_ppm=500_000, impact_ppm=1000
)


class CountedIds:
    """Ids that count, so that two runs can be compared to the byte."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def new(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers):026d}"


@given(
    quantity=st.integers(1, 5000),
    quantity_max=st.none() | st.integers(1, 2000),
    impact_ppm=st.integers(0, 20_000),
    side=st.sampled_from(OrderSide),
    limit=st.none() | st.integers(19_000, 21_000),
)
def test_fill_is_never_beyond_depth_limit_or_declared_slippage(
    quantity: int, quantity_max: int | None, impact_ppm: int, side: OrderSide, limit: int | None
) -> None:
    quote = a_quote()
    order = an_order(quantity, side=side, limit_price=limit).accept()
    found = match(order, quote, Depth(quantity_max, impact_ppm), is_new=True)
    if found.price is None:
        assert limit is not None
        assert side.sign * (limit - quote.touch(side)) < 0
        return
    assert 0 < found.quantity <= min(quantity, quantity_max or quantity)
    assert found.slippage >= 0
    assert side.sign * (found.price - quote.touch(side)) == found.slippage
    assert found.slippage * 10**6 <= quote.touch(side) * impact_ppm
    if limit is not None:
        assert side.sign * (limit - found.price) >= 0


def test_resting_limit_makes_and_never_slips() -> None:
    order = an_order(10, limit_price=20100).accept()
    found = match(order, a_quote(sequence=2), Depth(10, 5000))
    assert (found.price, found.slippage, found.liquidity) == (20000, 0, Liquidity.MAKER)


@given(ingest=st.integers(1, 10**6), sequence=st.integers(1, 10**9))
def test_depth_depends_on_seed_and_sequences_alone(ingest: int, sequence: int) -> None:
    quote = a_quote(sequence=sequence)
    order = an_order(10**6)
    object.__setattr__(order, "ingest_sequence", ingest)
    taken = [
        PaperVenue(THIN).meet(order.accept(), quote, INSTRUMENTS[AAPL], is_new=True).quantity
        for _ in range(2)
    ]
    assert taken[0] == taken[1]
    # Half of 2,000 to 6,000 USD at 200 each.
    assert 5 <= taken[0] <= 15


HOURS = {
    "24x7": [("2026-03-01T03:00", True)],
    "0930-1600": [
        ("2026-03-02T14:29", False),  # Monday 09:29 in New York
        ("2026-03-02T14:30", True),
        ("2026-03-02T20:59", True),
        ("2026-03-02T21:00", False),
        ("2026-03-01T15:00", False),  # Sunday
    ],
    "1700-1700:23456": [
        ("2026-03-01T21:59", False),  # Sunday 16:59
        ("2026-03-01T22:00", True),
        ("2026-03-06T21:59", True),  # Friday 16:59
        ("2026-03-06T22:00", False),
    ],
    "0900-1200,1300-1500:2|1000-1100:7": [
        ("2026-03-02T17:30", False),  # Monday 12:30
        ("2026-03-02T18:30", True),
        ("2026-03-07T15:30", True),  # Saturday 10:30
        ("2026-03-03T15:30", False),
    ],
}


@pytest.mark.parametrize("notation", HOURS)
def test_trading_hours(notation: str) -> None:
    hours = parse_hours(notation, "America/New_York")
    for text, expected in HOURS[notation]:
        at = datetime.fromisoformat(text).replace(tzinfo=UTC)
        assert hours.is_open(at) is expected, (notation, text)


def test_hours_that_nobody_understands_are_refused() -> None:
    with pytest.raises(ValueError, match="not trading hours"):
        parse_hours("whenever", "UTC")


async def test_closed_market_takes_resting_orders_only(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = an_instrument(session="0930-1000", time_zone="UTC")
    monkeypatch.setitem(builders.INSTRUMENTS, AAPL, closed)
    with pytest.raises(MarketClosedError) as caught:
        await venue.place(a_ticket(10))
    assert caught.value.context["ordRejReason"] == 2
    resting = await venue.placed(a_ticket(10, limit="210"))
    assert resting.status is OrderStatus.ACCEPTED
    assert await venue.meet(venue.market.quote("199.90", "200.00")) == 0
    monkeypatch.setitem(builders.INSTRUMENTS, AAPL, an_instrument())
    assert await venue.meet(venue.market.quote("199.90", "200.00")) == 1
    await venue.verify()


class CountingRepository(BrokerRepository):
    """Counts how often accounts are stored."""

    stored = 0

    async def save_account(self, transaction: Transaction, account: Account) -> None:
        self.stored += 1
        await super().save_account(transaction, account)


async def test_quote_that_moves_no_trailing_stop_writes_nothing(
    database: Database, clock: FixedClock, market: FakeMarket
) -> None:
    repository = CountingRepository()
    venue = build_venue(database, clock, market, repository=repository)
    await venue.place(a_ticket(10))
    await venue.place(a_ticket(10, side=SELL, trail=pips(100)))
    before, stored = (await venue.state()).account, repository.stored
    assert await venue.meet(market.quote("199.80", "199.90")) == 0
    assert (repository.stored, (await venue.state()).account) == (stored, before)
    assert await venue.meet(market.quote("200.80", "200.90")) == 1
    assert repository.stored == stored + 1
    await venue.verify()


async def test_post_only_never_takes(venue: Venue) -> None:
    with pytest.raises(PostOnlyError):
        await venue.place(a_ticket(10, limit="200", post_only=True), client_order_id="maker")
    order = await venue.placed(a_ticket(10, limit="199.95", post_only=True))
    await venue.meet(venue.market.quote("199.80", "199.90"))
    (fill,) = (
        await venue.reports.list_executions(
            user_id=USER, account_id=None, limit=9, order_id=order.order_id, now=venue.now
        )
    ).executions
    assert fill.liquidity is Liquidity.MAKER
    await venue.verify()


async def test_large_market_order_fills_in_parts_and_slips(
    database: Database, clock: FixedClock, market: FakeMarket
) -> None:
    venue = build_venue(database, clock, market, model=THIN)
    order = await venue.placed(a_ticket(40))
    assert order.status is OrderStatus.PARTIALLY_FILLED
    quote = market.quotes[AAPL]
    assert await venue.meet(quote) == 0, "the quote it took from has nothing more for it"
    while (order := await venue.order(order.order_id)).is_open:
        clock.advance(0.5)
        await venue.meet(market.quote("199.90", "200.00"))
        await venue.verify()
    fills = (
        await venue.reports.list_executions(user_id=USER, account_id=None, limit=99, now=venue.now)
    ).executions
    assert len(fills) >= 3
    assert {fill.slippage for fill in fills} >= {20}, "all of the depth costs a thousandth"
    assert sum(fill.quantity for fill in fills) == 40


async def test_what_must_fill_at_once_doesn_t_rest(
    database: Database, clock: FixedClock, market: FakeMarket
) -> None:
    venue = build_venue(database, clock, market, model=THIN)
    killed = await venue.placed(a_ticket(40, time_in_force=TimeInForce.FOK))
    assert (killed.status, killed.filled_quantity) == (OrderStatus.CANCELED, 0)
    cut = await venue.placed(a_ticket(40, time_in_force=TimeInForce.IOC))
    assert cut.status is OrderStatus.CANCELED
    assert 0 < cut.filled_quantity < 40
    await venue.verify()


async def test_latency_keeps_orders_from_quotes_before_they_arrive(
    database: Database, clock: FixedClock, market: FakeMarket
) -> None:
    slow = PaperModel(
        latency=timedelta(milliseconds=200), latency_jitter=timedelta(milliseconds=100)
    )
    venue = build_venue(database, clock, market, model=slow)
    order = await venue.placed(a_ticket(10))
    cut = await venue.placed(a_ticket(10, limit="150", time_in_force=TimeInForce.IOC))
    assert {each.status for each in (order, cut)} == {OrderStatus.ACCEPTED}
    clock.advance(0.1)
    assert await venue.meet(market.quote("201.00", "201.10")) == 0
    clock.advance(0.2)
    assert await venue.meet(market.quote("202.00", "202.10")) == 2
    order = await venue.order(order.order_id)
    assert order.average_fill_price() == 202_10000000
    assert (await venue.order(cut.order_id)).status is OrderStatus.CANCELED
    await venue.verify()


async def _trade(venue: Venue) -> None:
    """A stretch of trading with everything that chance has a part in."""
    await venue.place(a_ticket(30, take_profit="203", trailing_stop=pips(150)))
    await venue.place(a_ticket(25, limit="199.50", stop_loss="190"))
    await venue.place(a_ticket(20, side=SELL, stop="199.00"))
    for step in range(24):
        venue.clock.advance(0.5)
        bid = Decimal(19990 + (step * 37) % 400 - 150).scaleb(-2)
        await venue.meet(venue.market.quote(str(bid), str(bid + Decimal("0.10"))))
        if step == 12:
            await venue.place(a_ticket(18, side=SELL, time_in_force=TimeInForce.IOC))


async def _dump(venue: Venue) -> dict[str, Sequence[Any]]:
    names = (
        tables.orders,
        tables.executions,
        tables.positions,
        tables.account_events,
        tables.ledger.postings,
    )
    async with venue.database.snapshot() as snapshot:
        return {
            table.name: [
                tuple(row)
                for row in await snapshot.all(sa.select(table).order_by(*table.primary_key.columns))
            ]
            for table in names
        }


async def _run(database: Database, seed: int) -> dict[str, Sequence[Any]]:
    clock = FixedClock()
    market = FakeMarket(clock.now)
    market.quote("199.90", "200.00")
    venue = build_venue(database, clock, market, model=replace(THIN, seed=seed), ids=CountedIds())
    await _trade(venue)
    await venue.verify()
    return await _dump(venue)


async def test_same_seed_same_orders_same_fills_to_the_byte(
    database: Database, tmp_path: Path
) -> None:
    """On another database too, whatever its kind."""
    ran = await _run(database, seed=11)
    assert len(ran["executions"]) > 10
    assert any(row.slippage for row in await _fills(database))
    for name, seed in (("again", 11), ("other", 12)):
        second = Database(f"sqlite+aiosqlite:///{tmp_path / name}.db", schema="broker")
        try:
            await migrate(second, "broker")
            assert (await _run(second, seed) == ran) is (seed == 11)
        finally:
            await second.close()


async def _fills(database: Database) -> Sequence[Any]:
    async with database.snapshot() as snapshot:
        return await snapshot.all(sa.select(tables.executions.c.slippage))
