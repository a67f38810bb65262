"""The saga between wallet and trading account: kills, lost answers, expiry, races, proofs."""

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest
from sqlalchemy import text

from trading_api.kernel.errors import IdempotencyKeyReusedError, UnavailableError
from trading_api.kernel.values import Money
from trading_api.kernel.values import currency as known_currency
from trading_api.modules.wallet.domain import Limits, TransferState, WalletLimits
from trading_api.modules.wallet.errors import (
    BooksDifferError,
    CurrencyDiffersError,
    DailyLimitError,
    InsufficientCashError,
    InsufficientFundsError,
    TradingAccountNotFoundError,
    TransferDiffersError,
    TransferEndsError,
    TransferNotFoundError,
    TransferRefusedError,
    WalletFrozenError,
)
from trading_api.modules.wallet.ports import AccountSide
from trading_api.modules.wallet.repository import transfers as repository
from trading_api.modules.wallet.service import Verified
from trading_api.modules.wallet.service.transfers import LIFETIME
from trading_api.modules.wallet.tests.builders import ACCOUNT, FakeAccounts
from trading_api.modules.wallet.tests.conftest import NOW, make_services
from trading_api.modules.wallet.tests.test_service import ALICE, balances, deposit

USD = known_currency("USD")
BOTH = pytest.mark.parametrize("to_account", [True, False], ids=["to_account", "to_wallet"])


class KilledError(Exception):
    """The process ends here."""


class CrashAt:
    """Ends the process at one point, once."""

    def __init__(self, point: str) -> None:
        self.point: str | None = point
        self.reached: list[str] = []

    def __call__(self, point: str) -> None:
        self.reached.append(point)
        if point == self.point:
            self.point = None
            raise KilledError(point)


@pytest.fixture
def accounts() -> FakeAccounts:
    return FakeAccounts(cash_minor=500_00)


@pytest.fixture
async def side(database, clock, wakes, accounts):
    """Services beside the fake account, the wallet holding 100.00."""
    made = make_services(database, clock, wakes, accounts=accounts)
    await deposit(made.wallets)
    return made


async def start(services, amount="30.00", *, to_account=True, key=None, client_id=None, **changes):
    source, destination = ("wallet", ACCOUNT) if to_account else (ACCOUNT, "wallet")
    arguments = {
        "user_id": ALICE,
        "source": source,
        "destination": destination,
        "amount": Decimal(amount),
        "currency": "USD",
        "description": "",
        "client_transfer_id": client_id,
        "idempotency_key": key,
        "now": NOW,
        **changes,
    }
    return await services.transfers.transfer(**arguments)


async def usd(services) -> tuple[str, str, str]:
    return (await balances(services.wallets))["USD"]


async def ensure_moved(services, accounts, *, to_account, minor=30_00) -> None:
    sign = 1 if to_account else -1
    total = Decimal(100_00 - sign * minor) / 100
    assert await usd(services) == (f"{total:.2f}", "0.00", f"{total:.2f}")
    assert (accounts.cash_minor, accounts.held_minor) == (500_00 + sign * minor, 0)
    assert await services.operations.verify() == Verified()


async def ensure_untouched(services, accounts) -> None:
    assert await usd(services) == ("100.00", "0.00", "100.00")
    assert (accounts.cash_minor, accounts.held_minor) == (500_00, 0)
    assert await services.operations.verify() == Verified()


@BOTH
async def test_transfer_when_all_is_well_then_completed_and_told(side, accounts, to_account, wakes):
    started = await start(side, to_account=to_account)
    assert started.transfer.state is TransferState.COMPLETED
    await ensure_moved(side, accounts, to_account=to_account)
    _, events = await side.wallets.list_events(user_id=ALICE, after=0, limit=50)
    told = [each.transfer.state.value for each in events if each.transfer]
    assert told == ["pending", "completed"] if to_account else ["pending", "credited", "completed"]
    assert [each.sequence for each in events] == list(range(1, len(events) + 1))
    assert wakes.seen[-1] == (f"wallet:{ALICE}", len(events))
    found = await side.transfers.get_transfer(
        user_id=ALICE, transfer_id=started.transfer.transfer_id
    )
    assert found == started.transfer
    page, following = await side.transfers.list_transfers(user_id=ALICE, limit=5, below=None)
    assert (page, following) == ([found], None)
    with pytest.raises(TransferNotFoundError):
        await side.transfers.get_transfer(user_id="usr_bob", transfer_id=found.transfer_id)


@BOTH
async def test_transfer_when_killed_at_any_step_then_completes_after_restart(
    database, clock, wakes, to_account
):
    probe = CrashAt("")
    accounts = FakeAccounts(cash_minor=500_00)
    services = make_services(database, clock, wakes, accounts=accounts, crash_point=probe)
    await deposit(services.wallets, "1000.00")
    await start(services, to_account=to_account)
    points = list(probe.reached)
    assert len(points) >= 5
    total = {"wallet": 1000_00, "cash": 500_00}
    sign = 1 if to_account else -1
    moved = 30_00
    for point in points:
        crash = CrashAt(point)
        killed = make_services(database, clock, wakes, accounts=accounts, crash_point=crash)
        with pytest.raises(KilledError):
            await start(killed, "10.00", to_account=to_account, client_id=f"at-{point}")
        assert await services.operations.verify() == Verified(), point
        if point != "wallet.begin.before_commit":
            moved += 10_00
        clock.advance(2)
        await services.transfers.drive_open(now=clock.now())
        assert await services.transfers.drive_open(now=clock.now()) == 0, point
        # The client asks again with its own id, and gets the same transfer or a new one.
        again = await start(
            services, "10.00", to_account=to_account, client_id=f"at-{point}", now=clock.now()
        )
        if point == "wallet.begin.before_commit":
            moved += 10_00
            assert not again.is_replay
        assert again.transfer.state is TransferState.COMPLETED, point
        assert accounts.cash_minor == total["cash"] + sign * moved, point
        held = (await balances(services.wallets))["USD"]
        assert held == (f"{Decimal(total['wallet'] - sign * moved) / 100:.2f}", "0.00", held[0])
        assert await services.operations.verify() == Verified(), point


@BOTH
@pytest.mark.parametrize("when", ["before", "after"])
async def test_transfer_when_each_answer_is_lost_once_then_moved_exactly_once(
    database, clock, wakes, to_account, when
):
    lost: set[str] = set()

    def fails(step: str, moment: str) -> bool:
        if moment != when or step in lost or step in ("get_cash", "find_states"):
            return False
        lost.add(step)
        return True

    accounts = FakeAccounts(cash_minor=500_00, fails=fails)
    services = make_services(database, clock, wakes, accounts=accounts)
    await deposit(services.wallets)
    started = await start(services, to_account=to_account)
    assert started.transfer.is_open
    assert await services.operations.verify() == Verified()
    for _ in range(3):
        clock.advance(2)
        await services.transfers.drive_open(now=clock.now())
    await ensure_moved(services, accounts, to_account=to_account)
    assert lost == ({"credit"} if to_account else {"hold", "capture"})


@pytest.mark.parametrize("answers", [True, False], ids=["answering", "silent"])
async def test_transfers_when_many_at_once_then_the_day_counts_those_in_flight_both_ways(
    database, clock, wakes, answers
):
    silent = set() if answers else {"credit", "hold"}
    accounts = FakeAccounts(cash_minor=500_00, fails=lambda step, _when: step in silent)
    limits = WalletLimits(transfer=Limits(daily={"USD": Money(50_00, USD)}))
    services = make_services(database, clock, wakes, accounts=accounts, limits=limits)
    await deposit(services.wallets, "1000.00")
    found = await asyncio.gather(
        *(start(services, "5.00", to_account=bool(number % 2)) for number in range(20)),
        return_exceptions=True,
    )
    refused = [each for each in found if isinstance(each, DailyLimitError)]
    assert (len(found) - len(refused), len(refused)) == (10, 10), found
    assert refused[-1].context["left"] == "0.00"
    # What came to nothing counts no more, and tomorrow is another day.
    silent.clear()
    clock.advance(LIFETIME.total_seconds())
    await services.transfers.drive_open(now=clock.now())
    if answers:
        with pytest.raises(DailyLimitError):
            await start(services, "5.00", now=clock.now())
    else:
        await start(services, "5.00", now=clock.now())
    clock.advance(86_400)
    await start(services, "50.00", now=clock.now())


@BOTH
async def test_transfer_when_time_is_over_then_tombstone_first_and_hold_released(
    database, clock, wakes, to_account
):
    silent = {"credit", "hold"}
    accounts = FakeAccounts(cash_minor=500_00, fails=lambda step, _when: step in silent)
    services = make_services(database, clock, wakes, accounts=accounts)
    await deposit(services.wallets)
    transfer_id = (await start(services, to_account=to_account)).transfer.transfer_id
    clock.advance(LIFETIME.total_seconds())
    silent |= {"refuse", "void"}
    await services.transfers.drive_open(now=clock.now())
    # Nobody answers whether the account is closed to it: the hold stays.
    expected_held = "30.00" if to_account else "0.00"
    assert (await usd(services))[1] == expected_held
    silent.clear()
    await services.transfers.drive_open(now=clock.now())
    found = await services.transfers.get_transfer(user_id=ALICE, transfer_id=transfer_id)
    assert (found.state, found.failure_code) == (TransferState.EXPIRED, "wallet.transfer.expired")
    await ensure_untouched(services, accounts)
    # The question that was lost on the way arrives late: the tombstone refuses it.
    late = accounts.credit if to_account else accounts.hold
    assert await late(found) in (AccountSide.REFUSED, AccountSide.VOIDED)
    await ensure_untouched(services, accounts)


async def test_transfer_when_credited_before_it_expired_then_completed(database, clock, wakes):
    accounts = FakeAccounts(
        cash_minor=500_00, fails=lambda step, when: (step, when) == ("credit", "after")
    )
    services = make_services(database, clock, wakes, accounts=accounts)
    await deposit(services.wallets)
    transfer_id = (await start(services)).transfer.transfer_id
    clock.advance(LIFETIME.total_seconds())
    await services.transfers.drive_open(now=clock.now())
    found = await services.transfers.get_transfer(user_id=ALICE, transfer_id=transfer_id)
    assert found.state is TransferState.COMPLETED
    await ensure_moved(services, accounts, to_account=True)


@BOTH
async def test_transfer_when_refused_after_it_began_then_failed_with_the_reason(
    database, clock, wakes, to_account
):
    accounts = FakeAccounts(cash_minor=500_00)
    services = make_services(database, clock, wakes, accounts=accounts)
    await deposit(services.wallets)
    get_cash = accounts.get_cash

    async def then_changed(**asked):
        found = await get_cash(**asked)
        accounts.cash_minor = 0
        return found

    if to_account:
        accounts.user_id = ALICE
        accounts.credit = _refusing_credit(accounts)  # type: ignore[method-assign]
    else:
        accounts.get_cash = then_changed  # type: ignore[method-assign]
    found = (await start(services, to_account=to_account)).transfer
    assert found.state is TransferState.FAILED
    expected = "account_not_found" if to_account else "insufficient_cash"
    assert found.failure_code == f"wallet.transfer.{expected}"
    assert await usd(services) == ("100.00", "0.00", "100.00")
    assert await services.operations.verify() == Verified()


def _refusing_credit(accounts):
    async def credit(_transfer):
        raise TransferRefusedError(TradingAccountNotFoundError("closed meanwhile"))

    return credit


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"destination": "acc_of_bob"}, TradingAccountNotFoundError),
        ({"source": "acc_alice", "destination": "acc_other"}, TransferEndsError),
        ({"destination": "wallet"}, TransferEndsError),
        ({"destination": "wal_other"}, BooksDifferError),
        ({"amount": Decimal("100.01")}, InsufficientFundsError),
        ({"currency": "EUR"}, CurrencyDiffersError),
        ({"source": "acc_alice", "destination": "wallet", "amount": Decimal("500.01")},
         InsufficientCashError),
    ],
)  # fmt: skip
async def test_transfer_when_ends_or_amount_dont_fit_then_refused_without_a_trace(
    side, accounts, database, changes, error
):
    with pytest.raises(error):
        await start(side, **changes)
    async with database.snapshot() as snapshot:
        assert await snapshot.scalar(text("SELECT count(*) FROM wallet.transfers")) == 0
    await ensure_untouched(side, accounts)


async def test_transfer_when_books_differ_then_refused(database, clock, wakes):
    accounts = FakeAccounts(cash_minor=500_00, book="funded")
    services = make_services(database, clock, wakes, accounts=accounts)
    await deposit(services.wallets)
    with pytest.raises(BooksDifferError):
        await start(services)
    assert await usd(services) == ("100.00", "0.00", "100.00")


async def test_transfer_when_wallet_is_frozen_then_refused_and_open_ones_go_on(
    database, clock, wakes
):
    silent = {"credit"}
    accounts = FakeAccounts(cash_minor=500_00, fails=lambda step, _when: step in silent)
    services = make_services(database, clock, wakes, accounts=accounts)
    await deposit(services.wallets)
    waiting = (await start(services)).transfer
    await services.operations.freeze(
        wallet_id=waiting.wallet_id, reason="check", operator_id="usr_op", now=NOW
    )
    with pytest.raises(WalletFrozenError):
        await start(services)
    silent.clear()
    clock.advance(2)
    await services.transfers.drive_open(now=clock.now())
    await ensure_moved(services, accounts, to_account=True)


async def test_transfer_when_broker_is_away_then_nothing_is_begun(database, clock, wakes):
    accounts = FakeAccounts(fails=lambda _step, _when: True)
    services = make_services(database, clock, wakes, accounts=accounts)
    await deposit(services.wallets)
    with pytest.raises(UnavailableError):
        await start(services)
    assert await usd(services) == ("100.00", "0.00", "100.00")


async def test_transfer_when_repeated_by_key_or_id_then_one_effect_and_others_refused(
    side, accounts
):
    by_key = await asyncio.gather(*(start(side, key="k1") for _ in range(10)))
    assert len({each.transfer.transfer_id for each in by_key}) == 1
    assert sum(not each.is_replay for each in by_key) == 1
    with pytest.raises(IdempotencyKeyReusedError):
        await start(side, "31.00", key="k1")
    by_id = await asyncio.gather(*(start(side, "20.00", client_id="c1") for _ in range(10)))
    assert len({each.transfer.transfer_id for each in by_id}) == 1
    with pytest.raises(TransferDiffersError) as caught:
        await start(side, "21.00", client_id="c1")
    assert [each.field for each in caught.value.errors] == ["amount"]
    await ensure_moved(side, accounts, to_account=True, minor=50_00)


async def test_transfers_when_both_ways_at_once_then_money_is_conserved(side, accounts):
    await asyncio.gather(
        *(start(side, "3.00", to_account=bool(number % 2)) for number in range(20)),
        return_exceptions=True,
    )
    total = Decimal((await usd(side))[0]) * 100 + accounts.cash_minor
    assert total == 600_00
    assert await side.operations.verify() == Verified()


async def test_transfer_when_driven_by_several_at_once_then_moved_once(database, clock, wakes):
    silent = {"credit"}
    accounts = FakeAccounts(cash_minor=500_00, fails=lambda step, _when: step in silent)
    services = make_services(database, clock, wakes, accounts=accounts)
    await deposit(services.wallets)
    transfer_id = (await start(services)).transfer.transfer_id
    silent.clear()
    await asyncio.gather(*(services.transfers.drive(transfer_id=transfer_id) for _ in range(8)))
    await ensure_moved(services, accounts, to_account=True)


async def test_drive_open_when_some_are_stuck_then_the_others_go_on(database, clock, wakes):
    silent = {"credit"}
    accounts = FakeAccounts(cash_minor=500_00, fails=lambda step, _when: step in silent)
    services = make_services(database, clock, wakes, accounts=accounts)
    await deposit(services.wallets)
    good = (await start(services)).transfer
    async with database.transaction() as transaction:
        for number in range(205):
            stuck = replace(good, transfer_id=f"trf_0{number:03d}", client_transfer_id=None)
            await repository.add_transfer(transaction, stuck)
    silent.clear()
    has_moved = asyncio.Event()
    credit = accounts.credit

    async def credit_one(transfer):
        if transfer.transfer_id == "trf_0000":
            await has_moved.wait()
        if transfer.transfer_id == "trf_0001":
            raise KeyError("a mistake of ours")
        if transfer.transfer_id != good.transfer_id:
            raise UnavailableError("no answer")
        has_moved.set()
        return await credit(transfer)

    accounts.credit = credit_one  # type: ignore[method-assign]
    clock.advance(2)
    # The first waits until the last, which is on the second page, has moved.
    async with asyncio.timeout(20):
        assert await services.transfers.drive_open(now=clock.now()) == 206
    found = await services.transfers.get_transfer(user_id=ALICE, transfer_id=good.transfer_id)
    assert found.state is TransferState.COMPLETED


async def test_verify_when_the_other_ledger_is_away_then_told_as_not_checked(side, accounts):
    await start(side)
    accounts.fails = lambda step, _when: step == "find_states"
    found = await side.operations.verify()
    assert (found.violations, len(found.not_checked)) == ((), 1)
    assert "clearing: the trading accounts can't be asked" in found.not_checked[0]


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("UPDATE wallet.transfers SET amount_minor = 31", "W3"),
        ("UPDATE wallet.transfers SET state = 'failed', failure_code = 'x', entry_id = NULL", "W3"),
        ("DELETE FROM wallet.transfers", "W4"),
    ],
)
async def test_verify_when_a_transfer_is_edited_then_found(side, database, planted, found):
    await start(side)
    async with database.transaction() as transaction:
        await transaction.execute(text(planted))
    assert found in {each.id for each in (await side.operations.verify()).violations}


@pytest.mark.parametrize("lost", [1, -1])
async def test_verify_when_clearing_accounts_dont_net_then_found(side, accounts, lost):
    await start(side)
    accounts.clearing_minor += lost
    assert [each.id for each in (await side.operations.verify()).violations] == ["W5"]
