"""Several accounts, resets, kill switches, leverage and the limits of risk."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from trading_api.kernel.errors import IdempotencyKeyReusedError, TradingError
from trading_api.modules.broker.domain.account import PositionMode, TradingState
from trading_api.modules.broker.domain.event import Notice, NoticeCode
from trading_api.modules.broker.domain.limits import RiskLimits
from trading_api.modules.broker.domain.order import CloseReason, OrderStatus
from trading_api.modules.broker.errors import (
    AccountCurrencyError,
    AccountNotFoundError,
    EventsGoneError,
    ExposureLimitError,
    LeverageDeniedError,
    LeverageInvalidError,
    MarketClosedError,
    OpenOrdersLimitError,
    OrderRateError,
    PositionLimitError,
    PriceBandError,
    StaleQuoteError,
    TradingHaltedError,
    TradingReduceOnlyError,
)
from trading_api.modules.broker.service.desk import stream_of
from trading_api.modules.broker.tests import builders
from trading_api.modules.broker.tests.builders import (
    AAPL,
    EURUSD,
    POLICY,
    SELL,
    a_ticket,
    an_instrument,
)
from trading_api.modules.broker.tests.conftest import USER, Venue, build_venue
from trading_api.runtime.database import Database
from trading_api.testkit.clocks import FixedClock

OPERATOR = "usr_operator"


async def notices(venue: Venue, account_id: str) -> list[Notice]:
    _, events = await venue.reports.list_notices(
        user_id=USER, account_id=account_id, limit=10, now=venue.now
    )
    return [each.subject for each in events if isinstance(each.subject, Notice)]


async def first(venue: Venue) -> str:
    return (await venue.state()).account.account_id


async def open_account(venue: Venue, **changes: Any) -> Any:
    wanted = {"user_id": USER, "name": None, "idempotency_key": None, "now": venue.now, **changes}
    return await venue.accounts.open_account(**wanted)


async def test_further_accounts_have_a_name_a_mode_and_cash_of_their_own(venue: Venue) -> None:
    account, is_replay = await open_account(venue, name="Second", idempotency_key="k1")
    assert (account.name, account.ordinal, account.position_mode, is_replay) == (
        "Second", 2, PositionMode.NETTING, False,
    )  # fmt: skip
    again, is_replay = await open_account(venue, name="Second", idempotency_key="k1")
    assert (again, is_replay) == (account, True)
    with pytest.raises(IdempotencyKeyReusedError):
        await open_account(venue, name="Other", idempotency_key="k1")
    with pytest.raises(AccountCurrencyError):
        await open_account(venue, currency_code="XAU")
    await venue.place(a_ticket(10), account_id=account.account_id)
    assert (await venue.state()).valuation.cash_minor == 100_000_00
    await venue.verify()


async def test_reset_begins_anew_and_keeps_the_history(venue: Venue) -> None:
    await venue.place(a_ticket(10))
    await venue.place(a_ticket(1_000, symbol=EURUSD, side=SELL))
    resting = await venue.placed(a_ticket(5, limit="150"))
    before = (await venue.state()).account
    account, is_replay = await venue.resets.reset_account(
        user_id=USER, account_id=before.account_id, idempotency_key="k1", now=venue.now
    )
    assert not is_replay
    state = await venue.state()
    assert state.account == account
    assert account.epoch != before.epoch
    assert account.event_sequence > before.event_sequence
    assert (state.valuation.cash_minor, state.positions) == (100_000_00, ())
    assert state.valuation.reserved_minor == 0
    canceled = await venue.order(resting.order_id)
    assert (canceled.status, canceled.close_reason) == (OrderStatus.CANCELED, CloseReason.RESET)
    executions = await venue.reports.list_executions(
        user_id=USER, account_id=None, limit=10, now=venue.now
    )
    assert len(executions.executions) == 4
    assert venue.renewed == [stream_of(account.account_id)]
    (notice,) = await notices(venue, account.account_id)
    assert notice.code is NoticeCode.RESET
    assert notice.numbers["startingCash"] == "100000.00"
    again, is_replay = await venue.resets.reset_account(
        user_id=USER, account_id=before.account_id, idempotency_key="k1", now=venue.now
    )
    assert (again, is_replay) == (account, True)
    await venue.verify()


async def test_reset_waits_for_market_and_switches_and_changes_nothing_without(
    venue: Venue, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await venue.place(a_ticket(10))
    await venue.place(a_ticket(5, limit="150"))
    before = await venue.state()
    account_id = before.account.account_id

    async def reset() -> None:
        await venue.resets.reset_account(
            user_id=USER, account_id=account_id, idempotency_key=None, now=venue.now
        )

    clock.advance(10)
    with pytest.raises(StaleQuoteError):
        await reset()
    venue.market.quote("199.90", "200.00")
    closed = an_instrument(session="0930-1000", time_zone="UTC")
    monkeypatch.setitem(builders.INSTRUMENTS, AAPL, closed)
    with pytest.raises(MarketClosedError):
        await reset()
    monkeypatch.setitem(builders.INSTRUMENTS, AAPL, an_instrument())
    assert await venue.state() == replace(before, quotes={AAPL: venue.market.quotes[AAPL]})
    await venue.controls.set_platform(
        state=TradingState.HALTED, reason="storm", operator_id=OPERATOR, now=venue.now
    )
    with pytest.raises(TradingHaltedError):
        await reset()
    assert len((await venue.state()).positions) == 1
    await venue.controls.set_platform(
        state=TradingState.REDUCE_ONLY, reason="over", operator_id=OPERATOR, now=venue.now
    )
    await reset()
    assert (await venue.state()).positions == ()
    await venue.verify()


async def test_account_switch_stops_what_grows_and_then_everything(venue: Venue) -> None:
    await venue.place(a_ticket(10))
    account_id = await first(venue)
    buys = await venue.placed(a_ticket(5, limit="199"))
    sells = await venue.placed(a_ticket(4, limit="201", side=SELL))

    async def turn(state: TradingState) -> None:
        await venue.controls.set_account(
            account_id=account_id, state=state, reason="why", operator_id=OPERATOR, now=venue.now
        )

    await turn(TradingState.REDUCE_ONLY)
    with pytest.raises(TradingReduceOnlyError) as caught:
        await venue.place(a_ticket(1))
    assert caught.value.context == {"scope": "account"}
    with pytest.raises(TradingReduceOnlyError):
        await venue.place(a_ticket(7, side=SELL))
    await venue.place(a_ticket(1, side=SELL))
    await venue.meet(venue.market.quote("198.00", "198.10"))
    assert (await venue.order(buys.order_id)).is_open
    await venue.meet(venue.market.quote("202.00", "202.10"))
    assert (await venue.order(sells.order_id)).status is OrderStatus.FILLED
    await turn(TradingState.HALTED)
    await turn(TradingState.HALTED)
    with pytest.raises(TradingHaltedError):
        await venue.close(AAPL)
    await venue.meet(venue.market.quote("198.00", "198.10"))
    await venue.cancel(buys.order_id)
    await turn(TradingState.ACTIVE)
    await venue.close(AAPL)
    assert [each.is_error for each in await notices(venue, account_id)] == [False, True, True]
    await venue.verify()


async def test_platform_switch_holds_for_every_account(venue: Venue) -> None:
    await venue.place(a_ticket(10))
    assert (await venue.controls.get_platform()).state is TradingState.ACTIVE
    await venue.controls.set_platform(
        state=TradingState.HALTED, reason="storm", operator_id=OPERATOR, now=venue.now
    )
    for user_id in (USER, "usr_other"):
        with pytest.raises(TradingHaltedError) as caught:
            await venue.place(a_ticket(1), user_id=user_id)
        assert caught.value.context == {"scope": "platform"}
    connection = await venue.reports.get_connection(account_id=await first(venue))
    assert connection.account.effective_state is TradingState.HALTED
    await venue.controls.set_platform(
        state=TradingState.ACTIVE, reason="over", operator_id=OPERATOR, now=venue.now
    )
    control = await venue.controls.get_platform()
    assert (control.reason, control.changed_by) == ("over", OPERATOR)
    await venue.place(a_ticket(1))


async def test_leverage_is_in_force_for_what_is_held_and_ordered(venue: Venue) -> None:
    async def set_to(leverage: int) -> int:
        info = await venue.leverage.set_leverage(
            user_id=USER, account_id=None, symbol=AAPL, leverage=leverage, now=venue.now
        )
        return info.leverage

    await venue.place(a_ticket(100))
    await venue.place(a_ticket(100, limit="190"))
    before = (await venue.state()).valuation
    assert (before.margin_minor, before.reserved_minor) == (3_998_00, 4_000_00 + 200)
    assert await set_to(2) == 2
    after = (await venue.state()).valuation
    assert (after.margin_minor, after.reserved_minor) == (9_995_00, 10_000_00 + 200)
    info = await venue.leverage.get_info(user_id=USER, account_id=None, symbol=AAPL, now=venue.now)
    assert (info.leverage, info.minimum, info.maximum) == (2, 1, 5)
    await venue.close(AAPL)
    await venue.place(a_ticket(10))
    position = await venue.position(AAPL)
    assert position is not None
    assert position.terms.leverage == 2
    with pytest.raises(LeverageInvalidError):
        await set_to(6)
    (notice,) = await notices(venue, await first(venue))
    assert notice.numbers == {"symbol": AAPL, "leverage": "2"}
    await venue.verify()


async def test_leverage_that_the_account_can_t_carry_is_refused(venue: Venue) -> None:
    await venue.place(a_ticket(2_000))
    preview = await venue.leverage.preview_leverage(
        user_id=USER, account_id=None, symbol=AAPL, leverage=1, now=venue.now
    )
    assert isinstance(preview.error, LeverageDeniedError)
    before = await venue.state()
    with pytest.raises(LeverageDeniedError) as caught:
        await venue.leverage.set_leverage(
            user_id=USER, account_id=None, symbol=AAPL, leverage=1, now=venue.now
        )
    assert caught.value.context["required"] == "399800.00"
    assert await venue.state() == before


LIMITS: dict[str, tuple[RiskLimits, type[TradingError], dict[str, object]]] = {
    "band": (
        RiskLimits(price_band_ppm=100_000),
        PriceBandError,
        {"price": "179.99", "lowest": "180", "highest": "220"},
    ),
    "position": (
        RiskLimits(position_value_max=3_000),
        PositionLimitError,
        {"value": "4000", "value_max": "3000", "currency": "USD"},
    ),
    "exposure": (
        RiskLimits(exposure_max=4_500),
        ExposureLimitError,
        {"value": "5100", "value_max": "4500", "currency": "USD"},
    ),
    "count": (
        RiskLimits(open_orders_max=1),
        OpenOrdersLimitError,
        {"open_orders": 1, "open_orders_max": 1},
    ),
    "rate": (
        RiskLimits(orders_per_second=10, orders_burst=2),
        OrderRateError,
        {"orders_per_second": 10, "orders_burst": 2},
    ),
}


@pytest.mark.parametrize("name", LIMITS)
async def test_limit_is_asked_in_the_accepting_transaction(
    name: str, database: Database, clock: FixedClock, venue: Venue
) -> None:
    limits, error, numbers = LIMITS[name]
    limited = build_venue(database, clock, venue.market, policy=replace(POLICY, limits=limits))
    await limited.place(a_ticket(1_000, symbol=EURUSD))
    await limited.place(a_ticket(10, limit="190"))
    before = await limited.state()
    with pytest.raises(error) as caught:
        await limited.place(a_ticket(10, limit="179.99" if name == "band" else "195"))
    assert caught.value.context == numbers
    assert await limited.state() == before
    clock.advance(1)
    venue.market.quote("199.90", "200.00")
    venue.market.quote("1.09990", "1.10000", EURUSD)
    # What closes is never too much, nor too far.
    await limited.place(a_ticket(500, symbol=EURUSD, side=SELL, limit="1.50000"))
    await limited.close(EURUSD)
    await limited.verify()


async def test_old_events_go_and_who_asks_for_them_is_told(venue: Venue, clock: FixedClock) -> None:
    await venue.place(a_ticket(10))
    account = (await venue.state()).account
    clock.advance(timedelta(days=31).total_seconds())
    venue.market.quote("199.90", "200.00")
    await venue.place(a_ticket(10))
    lease = await venue.lease()
    assert await venue.retention.delete_old_events(lease=lease, now=venue.now) == 6
    assert await venue.retention.delete_old_events(lease=lease, now=venue.now) == 0

    async def events(since: int) -> int:
        _, found = await venue.reports.list_events(
            user_id=USER, account_id=account.account_id, since=since, limit=100, now=venue.now
        )
        return len(found)

    assert await events(6) == 5
    with pytest.raises(EventsGoneError):
        await events(5)
    await venue.verify()


async def test_accounts_of_others_look_like_none(venue: Venue) -> None:
    account_id = await first(venue)
    stranger: dict[str, Any] = {"user_id": "usr_stranger", "account_id": account_id}
    calls = [
        venue.resets.reset_account(**stranger, idempotency_key=None, now=venue.now),
        venue.leverage.get_info(**stranger, symbol=AAPL, now=venue.now),
        venue.leverage.set_leverage(**stranger, symbol=AAPL, leverage=1, now=venue.now),
        venue.leverage.preview_leverage(**stranger, symbol=AAPL, leverage=1, now=venue.now),
        venue.reports.list_notices(**stranger, limit=1, now=venue.now),
    ]
    for call in calls:
        with pytest.raises(AccountNotFoundError):
            await call
