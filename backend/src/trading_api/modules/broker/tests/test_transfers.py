"""The trading account's side of transfers: each step once, tombstones, what may leave, proofs."""

import asyncio
from dataclasses import replace

import pytest
import sqlalchemy as sa

from trading_api.kernel.values import Money, currency
from trading_api.modules.broker import tables
from trading_api.modules.broker.domain.event import CashChange
from trading_api.modules.broker.domain.transfer import Transfer, TransferState
from trading_api.modules.broker.errors import (
    AccountNotFoundError,
    InsufficientCashError,
    InsufficientMarginError,
    TransferBooksError,
    TransferCurrencyError,
    TransferDiffersError,
    TransferStateError,
)
from trading_api.modules.broker.service.risk import RiskGate
from trading_api.modules.broker.service.transfers import TransferService
from trading_api.modules.broker.tests.builders import POLICY, a_ticket
from trading_api.modules.broker.tests.conftest import USER, Venue


@pytest.fixture
def transfers(venue: Venue) -> TransferService:
    return TransferService(
        database=venue.database,
        books=venue.accounts._books,
        risk=RiskGate(quotes=venue.market, policy=POLICY),
        crash_point=lambda _point: None,
    )


async def a_transfer(
    venue: Venue, state: TransferState, *, minor: int = 100_00, name: str = "trf_1"
) -> Transfer:
    account = (await venue.accounts.list_accounts(user_id=USER, now=venue.now))[0]
    is_in = state in (TransferState.CREDITED, TransferState.REFUSED)
    return Transfer(
        transfer_id=name,
        account_id=account.account_id,
        user_id=USER,
        book=account.book,
        direction="in" if is_in else "out",
        amount=Money(minor, currency("USD")),
        state=state,
        created_at=venue.now,
        closed_at=None if state is TransferState.HELD else venue.now,
    )


async def cash_of(venue: Venue) -> tuple[int, int]:
    worth = (await venue.state()).valuation
    return worth.cash_minor, worth.held_minor


async def test_credit_when_repeated_then_once_and_told(
    venue: Venue, transfers: TransferService
) -> None:
    wanted = await a_transfer(venue, TransferState.CREDITED)
    for _ in range(2):
        assert await transfers.credit(transfer=wanted, now=venue.now) is TransferState.CREDITED
    assert await cash_of(venue) == (100_100_00, 0)
    events = await venue.reports.read_stream(account_id=wanted.account_id, after=0, limit=10)
    told = events[-1].subject
    assert isinstance(told, CashChange)
    assert (told.type, told.change_minor, told.reference) == ("TRANSFER", 100_00, "trf_1")
    async with venue.database.snapshot() as snapshot:
        facts = await snapshot.all(sa.select(tables.outbox_table.c.type))
    assert [row.type for row in facts][-1] == "broker.cash.transferred"
    balances, states = await transfers.find_states(transfer_ids=["trf_1", "trf_none"])
    assert (balances, states) == ({"demo:USD": -100_00}, {"trf_1": "credited"})
    # What is there can't be refused any more.
    refused = replace(wanted, state=TransferState.REFUSED)
    assert await transfers.refuse(transfer=refused, now=venue.now) is TransferState.CREDITED
    await venue.verify()


async def test_credit_when_refused_before_then_never(
    venue: Venue, transfers: TransferService
) -> None:
    refused = await a_transfer(venue, TransferState.REFUSED)
    assert await transfers.refuse(transfer=refused, now=venue.now) is TransferState.REFUSED
    late = replace(refused, state=TransferState.CREDITED)
    assert await transfers.credit(transfer=late, now=venue.now) is TransferState.REFUSED
    assert await cash_of(venue) == (100_000_00, 0)
    nowhere = replace(refused, transfer_id="trf_2", account_id="acc_none")
    assert await transfers.refuse(transfer=nowhere, now=venue.now) is TransferState.REFUSED
    await venue.verify()


async def test_out_when_held_then_captured_once(venue: Venue, transfers: TransferService) -> None:
    held = await a_transfer(venue, TransferState.HELD)
    captured = replace(held, state=TransferState.CAPTURED, closed_at=venue.now)
    with pytest.raises(TransferStateError):
        await transfers.capture(transfer=captured, now=venue.now)
    for _ in range(2):
        assert await transfers.hold(transfer=held, now=venue.now) is TransferState.HELD
    assert await cash_of(venue) == (100_000_00, 100_00)
    await venue.verify()
    done = await asyncio.gather(
        *(transfers.capture(transfer=captured, now=venue.now) for _ in range(4))
    )
    assert set(done) == {TransferState.CAPTURED}
    assert await cash_of(venue) == (99_900_00, 0)
    voided = replace(captured, state=TransferState.VOIDED)
    assert await transfers.void(transfer=voided, now=venue.now) is TransferState.CAPTURED
    await venue.verify()


async def test_out_when_voided_then_released_and_refused_for_ever(
    venue: Venue, transfers: TransferService
) -> None:
    held = await a_transfer(venue, TransferState.HELD)
    voided = replace(held, state=TransferState.VOIDED, closed_at=venue.now)
    early = replace(voided, transfer_id="trf_0")
    assert await transfers.void(transfer=early, now=venue.now) is TransferState.VOIDED
    late = replace(held, transfer_id="trf_0")
    assert await transfers.hold(transfer=late, now=venue.now) is TransferState.VOIDED
    await transfers.hold(transfer=held, now=venue.now)
    assert await transfers.void(transfer=voided, now=venue.now) is TransferState.VOIDED
    assert await cash_of(venue) == (100_000_00, 0)
    with pytest.raises(TransferStateError):
        await transfers.capture(
            transfer=replace(voided, state=TransferState.CAPTURED), now=venue.now
        )
    await venue.verify()


async def test_hold_when_margin_binds_the_cash_then_refused_and_orders_see_holds(
    venue: Venue, transfers: TransferService
) -> None:
    await venue.place(a_ticket(1000))  # 200,000 at 5:1 binds 40,000
    withdrawable = (await venue.state()).valuation.withdrawable_minor
    cash = await transfers.get_cash(
        account_id=(await venue.state()).account.account_id, user_id=USER, now=venue.now
    )
    assert 50_000_00 < cash.withdrawable_minor == withdrawable < 60_000_00
    too_much = await a_transfer(venue, TransferState.HELD, minor=withdrawable + 1)
    with pytest.raises(InsufficientCashError):
        await transfers.hold(transfer=too_much, now=venue.now)
    # Refused before it was anything: the same id may still be held.
    exact = replace(too_much, amount=Money(withdrawable, currency("USD")))
    assert await transfers.hold(transfer=exact, now=venue.now) is TransferState.HELD
    with pytest.raises(InsufficientMarginError):
        await venue.place(a_ticket(10))
    await venue.verify()


async def test_holds_when_racing_for_the_same_cash_then_never_more_than_there_is(
    venue: Venue, transfers: TransferService
) -> None:
    wanted = [
        await a_transfer(venue, TransferState.HELD, minor=10_000_00, name=f"trf_{number}")
        for number in range(20)
    ]
    outcomes = await asyncio.gather(
        *(transfers.hold(transfer=each, now=venue.now) for each in wanted), return_exceptions=True
    )
    assert sum(each is TransferState.HELD for each in outcomes) == 10
    assert sum(isinstance(each, InsufficientCashError) for each in outcomes) == 10
    await venue.verify()


async def test_transfer_when_it_doesnt_fit_the_account_then_refused(
    venue: Venue, transfers: TransferService
) -> None:
    fits = await a_transfer(venue, TransferState.CREDITED)
    euro = Money(1, currency("EUR"))
    for changes, error in (
        ({"account_id": "acc_none"}, AccountNotFoundError),
        ({"user_id": "usr_other"}, AccountNotFoundError),
        ({"book": "funded"}, TransferBooksError),
        ({"amount": euro}, TransferCurrencyError),
    ):
        with pytest.raises(error):
            await transfers.credit(transfer=replace(fits, **changes), now=venue.now)
    await transfers.credit(transfer=fits, now=venue.now)
    with pytest.raises(TransferDiffersError) as caught:
        await transfers.credit(
            transfer=replace(fits, amount=Money(1, currency("USD"))), now=venue.now
        )
    assert [each.field for each in caught.value.errors] == ["amount"]
    with pytest.raises(TransferStateError):
        await transfers.hold(transfer=fits, now=venue.now)
    await venue.verify()


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("UPDATE broker.transfers SET amount_minor = 1 WHERE transfer_id = 'trf_1'", "T1"),
        ("UPDATE broker.transfers SET state = 'refused' WHERE transfer_id = 'trf_1'", "T1"),
        ("UPDATE broker.transfers SET state = 'voided' WHERE transfer_id = 'trf_2'", "T1"),
        ("DELETE FROM broker.transfers WHERE transfer_id = 'trf_1'", "T2"),
    ],
)
async def test_verify_when_a_transfer_is_edited_then_found(
    venue: Venue, transfers: TransferService, planted: str, found: str
) -> None:
    await transfers.credit(transfer=await a_transfer(venue, TransferState.CREDITED), now=venue.now)
    held = await a_transfer(venue, TransferState.HELD, name="trf_2")
    await transfers.hold(transfer=held, now=venue.now)
    await transfers.capture(
        transfer=replace(held, state=TransferState.CAPTURED, closed_at=venue.now), now=venue.now
    )
    await venue.verify()
    async with venue.database.transaction() as transaction:
        await transaction.execute(sa.text(planted))
    assert found in {each.id for each in await venue.reports.verify()}
