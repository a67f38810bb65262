"""Accounts in another currency than prices: converted once, at bid or ask, the spread posted."""

from typing import Any

import pytest
import sqlalchemy as sa

from trading_api.kernel.values import currency
from trading_api.modules.broker import tables
from trading_api.modules.broker.domain.conversion import ONE, Conversion, find_conversion
from trading_api.modules.broker.errors import InstrumentNotTradableError
from trading_api.modules.broker.tests.builders import (
    AAPL,
    EURUSD,
    SELL,
    FakeMarket,
    a_quote,
    a_ticket,
)
from trading_api.modules.broker.tests.conftest import USER, Venue

BTCUSD = "DEMO:BTCUSD"
EUR, USD = currency("EUR"), currency("USD")


def test_profit_converts_at_the_bid_and_loss_at_the_ask() -> None:
    # 100 EUR into USD: mid 1.1000, bid 1.0990, as the rules have it.
    quote = a_quote(109900, 110100, symbol=EURUSD, price_scale=5)
    found = find_conversion("EUR", "USD", "DEMO", {EURUSD: quote}.get)
    assert found == Conversion(EUR, EURUSD, False, 109_900_000, 110_100_000)
    hundred, cent = 100 * ONE, 10**6
    assert found.convert(hundred, cent) == 109_90
    assert found.convert_middle(hundred, cent) == 110_00
    assert found.convert(-hundred, cent) == -110_10


def test_pair_the_other_way_round_is_turned() -> None:
    quote = a_quote(109900, 110100, symbol=EURUSD, price_scale=5)
    found = find_conversion("USD", "EUR", "DEMO", {EURUSD: quote}.get)
    assert found is not None
    assert (found.is_inverse, found.bid, found.ask) == (True, 90_826_521, 90_991_811)
    assert found.bid < found.ask
    assert find_conversion("USD", "CHF", "DEMO", {EURUSD: quote}.get) is None


@pytest.fixture
async def account_id(venue: Venue) -> str:
    account, _ = await venue.accounts.open_account(
        user_id=USER, name="Euro", currency_code="EUR", idempotency_key=None, now=venue.now
    )
    return account.account_id


async def state(venue: Venue, account_id: str) -> Any:
    return await venue.reports.get_state(user_id=USER, account_id=account_id, now=venue.now)


async def balances(venue: Venue) -> dict[str, int]:
    postings = tables.ledger.postings
    signed = sa.case(
        (postings.c.side == "CREDIT", postings.c.amount_minor), else_=-postings.c.amount_minor
    )
    async with venue.database.snapshot() as snapshot:
        found = await snapshot.all(
            sa.select(postings.c.account_id, sa.func.sum(signed).label("balance")).group_by(
                postings.c.account_id
            )
        )
    return {row.account_id: int(row.balance) for row in found}


async def test_result_in_dollars_becomes_euros_with_the_spread_posted(
    venue: Venue, market: FakeMarket, account_id: str
) -> None:
    market.quote("1.09900", "1.10100", EURUSD)
    await venue.place(a_ticket(100), account_id=account_id)
    held = await state(venue, account_id)
    # 100 at 200.00: 20,000 USD at 0.909091656 (mid) = 18,181.83 EUR, commission 100 ppm.
    assert held.valuation.commission_minor == 182
    # 19,990 USD of mark at a fifth; the loss of 10 USD at the ask 0.90991811.
    assert held.valuation.margin_minor == 3634_55
    assert held.valuation.unrealized_minor == -9_10
    market.quote("210.00", "210.10")
    await venue.place(a_ticket(100, side=SELL), account_id=account_id)
    after = await state(venue, account_id)
    # 1,000 USD: 908.27 at the bid, 909.09 at the middle.
    assert after.valuation.realized_minor == 908_27
    assert after.valuation.cash_minor == 100_000_00 + 908_27 - 182 - 191
    found = await balances(venue)
    assert found["house:pnl:demo:USD"] == -1000_00
    assert found["fx:demo:USD"] == 1000_00
    assert found["fx:demo:EUR"] == -909_09
    assert found["house:fx_spread:demo:EUR"] == 82
    await venue.verify()


async def test_loss_converts_at_the_ask_of_its_own_fill(
    venue: Venue, market: FakeMarket, account_id: str
) -> None:
    await venue.place(a_ticket(100), account_id=account_id)
    market.quote("1.00000", "1.00010", EURUSD)
    market.quote("190.00", "190.10")
    await venue.place(a_ticket(100, side=SELL), account_id=account_id)
    after = await state(venue, account_id)
    # -1,000 USD at 1 / 1.00000.
    assert after.valuation.realized_minor == -1000_00
    assert (await balances(venue))["fx:demo:EUR"] == 999_95
    await venue.verify()


@pytest.mark.parametrize(("quantity", "posted"), [("0.0001", 0), ("0.0051", -1)])
async def test_result_below_half_a_cent_is_not_posted(
    venue: Venue, market: FakeMarket, account_id: str, quantity: str, posted: int
) -> None:
    # A dollar of profit a coin: 0.01 cents are nothing in both, 0.51 cents are one of dollars.
    market.quote("60000.00", "60010.00", BTCUSD)
    await venue.place(a_ticket(quantity, symbol=BTCUSD), account_id=account_id)
    market.quote("60011.00", "60021.00", BTCUSD)
    await venue.place(a_ticket(quantity, symbol=BTCUSD, side=SELL), account_id=account_id)
    after = await state(venue, account_id)
    assert (after.positions, after.valuation.realized_minor) == ((), 0)
    assert (await balances(venue)).get("house:pnl:demo:USD", 0) == posted
    await venue.verify()


async def test_resting_order_reserves_in_the_account_s_currency(
    venue: Venue, market: FakeMarket, account_id: str
) -> None:
    market.quote("1.09900", "1.10100", EURUSD)
    await venue.place(a_ticket(100, limit="190"), account_id=account_id)
    reserved = (await state(venue, account_id)).valuation.reserved_minor
    assert reserved == 3636_37 + 182
    await venue.meet(market.quote("189.80", "189.90"))
    assert [each.symbol for each in (await state(venue, account_id)).positions] == [AAPL]
    await venue.verify()


async def test_without_a_pair_it_can_t_be_traded(
    venue: Venue, market: FakeMarket, account_id: str
) -> None:
    del market.quotes[EURUSD]
    with pytest.raises(InstrumentNotTradableError, match="converts"):
        await venue.place(a_ticket(1), account_id=account_id)
