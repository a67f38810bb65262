"""What goes on by itself: the matching loop, the equity feed, channels, the consumer."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest

from trading_api.contracts.auth import UserRegistered
from trading_api.contracts.envelope import Envelope
from trading_api.modules.broker import tables
from trading_api.modules.broker.consumers import (
    AccountFeed,
    MatchingLoop,
    build_consumers,
    read_equity,
)
from trading_api.modules.broker.domain.order import OrderStatus, TimeInForce
from trading_api.modules.broker.errors import AccountNotFoundError
from trading_api.modules.broker.tests.builders import AAPL, SELL, a_ticket
from trading_api.modules.broker.tests.conftest import USER, Venue
from trading_api.modules.broker.ws.v1 import EQUITY_FEED, AccountParameters, build_channels
from trading_api.runtime.identity import Principal
from trading_api.runtime.ws.frames import encode_json
from trading_api.testkit.bus import eventually

PRINCIPAL = Principal(
    user_id=USER,
    session_id="ses_1",
    roles=frozenset(),
    scopes=frozenset({"broker:read"}),
    carrier="bearer",
    expires_at_seconds=2**40,
)


@asynccontextmanager
async def running(venue: Venue) -> AsyncIterator[None]:
    loop = MatchingLoop(venue.matching, venue.market, clock=venue.clock)
    task = asyncio.create_task(loop.run(await venue.lease()))
    # Until it waits for quotes for the first time.
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def changed(venue: Venue, count: int) -> None:
    """Wait until the account was woken that many times."""
    await eventually(lambda: len(venue.wakes) >= count, within_seconds=10)


async def test_quotes_wake_the_loop(venue: Venue) -> None:
    order = await venue.placed(a_ticket(10, limit="199.00"))
    woken = len(venue.wakes)
    async with running(venue):
        venue.market.quote("198.90", "199.10")
        venue.market.quote("198.80", "198.90")
        venue.market.quote("199.90", "200.00")
        await changed(venue, woken + 1)
    order = await venue.order(order.order_id)
    # On the second of three quotes, however many came at once.
    assert (order.status, order.filled_value) == (OrderStatus.FILLED, 10 * 19890)
    await venue.verify()


async def test_without_pushed_quotes_the_loop_asks(venue: Venue) -> None:
    await venue.placed(a_ticket(10, limit="199.00"))
    venue.market.is_pushed = False
    venue.market.refreshed.clear()
    async with running(venue):
        await eventually(lambda: {AAPL} in venue.market.refreshed)


async def test_loop_ends_orders_whose_time_is_over(venue: Venue) -> None:
    order = await venue.placed(
        a_ticket(
            1,
            limit="150",
            time_in_force=TimeInForce.GTD,
            expires_at=venue.now + timedelta(seconds=1),
        )
    )
    woken = len(venue.wakes)
    async with running(venue):
        venue.clock.advance(2)
        await changed(venue, woken + 1)
    assert (await venue.order(order.order_id)).status is OrderStatus.EXPIRED
    await venue.verify()


async def test_reconciling_a_sound_account_changes_nothing(venue: Venue) -> None:
    await venue.place(a_ticket(10))
    await venue.place(a_ticket(10, limit="150"))
    before = await venue.state()
    assert await venue.matching.reconcile(now=venue.now) == 0
    assert await venue.state() == before


async def test_reconciling_restores_a_reservation(venue: Venue) -> None:
    await venue.place(a_ticket(10, limit="150"))
    right = (await venue.state()).valuation.reserved_minor
    async with venue.database.transaction() as transaction:
        await transaction.execute(tables.positions.update().values(reserved_minor=1))
    assert [violation.id for violation in await venue.reports.verify()] == ["O12"]
    assert await venue.matching.reconcile(now=venue.now) == 1
    assert (await venue.state()).valuation.reserved_minor == right
    await venue.verify()


async def test_equity_is_published_when_it_changes_and_somebody_listens(venue: Venue) -> None:
    await venue.place(a_ticket(10))
    account_id = (await venue.state()).account.account_id
    listened: list[str] = []
    published: list[tuple[str, Any]] = []
    feed = AccountFeed(
        read_equity(venue.reports, venue.market),
        prefix=EQUITY_FEED,
        listened=lambda: listened,
        publish=lambda name, payload: published.append((name, json.loads(payload))),
    )
    await feed.publish_changes()
    assert published == []
    listened.append(f"equity:{account_id}")
    await feed.publish_changes()
    await feed.publish_changes()
    venue.market.quote("209.90", "210.00")
    await feed.publish_changes()
    assert [(name, view["unrealizedPl"]) for name, view in published] == [
        (f"equity:{account_id}", -1),
        (f"equity:{account_id}", 99),
    ]


async def test_channels_show_one_sequence_and_start_where_their_state_ends(venue: Venue) -> None:
    channels: dict[str, Any] = {
        channel.route: channel
        for channel in build_channels(
            accounts=venue.accounts, reports=venue.reports, clock=venue.clock
        )
    }
    assert set(channels) == {
        "orders",
        "positions",
        "executions",
        "equity",
        "notifications",
        "cash",
        "broker-connection",
    }
    account_id = (await venue.state()).account.account_id
    params = AccountParameters(accountId=account_id)
    orders = channels["orders"]
    await orders.authorize(PRINCIPAL, params)
    before = await orders.snapshot(PRINCIPAL, params)
    assert (before.offset, encode_json(before.payload)) == (1, b"[]")

    await venue.place(a_ticket(10))
    await venue.place(a_ticket(10, side=SELL))

    stream = orders.stream(PRINCIPAL, params)
    events = await orders.read(stream, after=before.offset, limit=100)
    assert [event.offset for event in events] == list(range(2, 2 + len(events)))
    assert {event.route for event in events} == {"orders", "executions", "positions", "cash"}
    shown = [(event.route, json.loads(encode_json(event.payload))) for event in events]
    assert [view["status"] for route, view in shown if route == "orders"] == [6, 2, 6, 2]
    assert [view["qty"] for route, view in shown if route == "positions"] == [10, 0]
    for route in ("orders", "positions", "executions", "cash"):
        after = await channels[route].snapshot(PRINCIPAL, params)
        assert after.offset == events[-1].offset
    executions = await channels["executions"].snapshot(PRINCIPAL, params)
    assert len(json.loads(encode_json(executions.payload))) == 2
    equity = await channels["equity"].snapshot(PRINCIPAL, params)
    (state,) = json.loads(encode_json(equity))
    assert state["balance"] == 99998.6


async def test_channels_of_somebody_else_s_account_don_t_exist(venue: Venue) -> None:
    await venue.accounts.list_accounts(user_id="usr_other", now=venue.now)
    theirs = (await venue.accounts.list_accounts(user_id="usr_other", now=venue.now))[0]
    for channel in build_channels(
        accounts=venue.accounts, reports=venue.reports, clock=venue.clock
    ):
        for account_id in (theirs.account_id, "acc_none"):
            with pytest.raises(AccountNotFoundError):
                await channel.authorize(PRINCIPAL, AccountParameters(accountId=account_id))


async def test_registered_user_has_an_account_once(venue: Venue) -> None:
    (consumer,) = build_consumers(venue.accounts, clock=venue.clock)
    event = UserRegistered(user_id="usr_new", email="new@example.com", full_name="New")
    envelope = Envelope(
        id="evt_1",
        type=event.TYPE,
        version=1,
        producer="auth",
        key="usr_new",
        sequence=1,
        occurred_at=venue.now,
        recorded_at=venue.now,
        data=event.model_dump(),
    )
    for _ in range(3):
        await consumer.handle(envelope, event)
    assert len(await venue.accounts.list_accounts(user_id="usr_new", now=venue.now)) == 1
    await venue.verify()
