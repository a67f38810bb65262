"""What a stored ledger depends on for ever: ids, hashes, bodies of repeats, numbers of refusals.

A change here is a change of the format: stored chains would no longer verify, repeats no longer
be recognised, clients no longer understand.
"""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from trading_api.kernel.clock import to_us
from trading_api.kernel.errors import NotFoundError
from trading_api.kernel.values import Currency, Money
from trading_api.ledger import domain
from trading_api.ledger.domain import (
    BALANCE_MINOR_MAX,
    AccountState,
    AccountType,
    Book,
    Entry,
    EntryType,
    Hold,
    HoldRequest,
    HoldState,
    LedgerAccount,
    PostedEntry,
    PostedPosting,
    Posting,
    Side,
    canonical_json,
    chain_hash,
    credit,
    customer_account,
    debit,
    ensure_covered,
    ensure_same_entry,
    ensure_same_hold,
    entry_document,
    genesis_hash,
    house_account,
    reversal,
)
from trading_api.ledger.engine import LinePosition
from trading_api.ledger.errors import (
    BalanceOutOfRangeError,
    CaptureExceedsHoldError,
    EntryAlreadyReversedError,
    EntryDiffersError,
    EntryNotFoundError,
    HoldAlreadyCapturedError,
    HoldAlreadyExpiredError,
    HoldAlreadyVoidedError,
    HoldDiffersError,
    HoldNotFoundError,
    InsufficientFundsError,
    LedgerAccountNotFoundError,
    LedgerInvariantError,
)
from trading_api.testkit.ledgers import (
    ALICE,
    BOB,
    EXTERNAL,
    NOW,
    a_deposit,
    a_transfer,
    a_withdrawal,
    usd,
)

USD, JPY = Currency("USD", 2), Currency("JPY", 0)


def a_state(balance: int = 100, held: int = 0, *, account: LedgerAccount = ALICE) -> AccountState:
    return AccountState(account, balance, held, 3, genesis_hash(account.account_id), 7)


def an_entry(**changes: object) -> Entry:
    entry = a_deposit("e1", 100)
    return replace(entry, details={"rail": "sandbox"}, reference="fnd_1", **changes)  # type: ignore[arg-type]


def test_accounts_have_the_names_that_stored_rows_have():
    named = house_account(AccountType.CLEARING, USD, book=Book.DEMO, name="broker")
    assert named == LedgerAccount(
        "clearing:broker:demo:USD", AccountType.CLEARING, USD, Book.DEMO, Side.CREDIT
    )
    plain = house_account(AccountType.FX, JPY, book=Book.FUNDED)
    assert plain.account_id == "fx:funded:JPY"
    assert (plain.currency, plain.book, plain.allows_negative) == (JPY, Book.FUNDED, True)
    assert plain.normal_side is Side.CREDIT
    cash = customer_account("wal_1", USD, book=Book.FUNDED, allows_negative=False)
    assert cash == LedgerAccount(
        "wal_1:USD", AccountType.CUSTOMER, USD, Book.FUNDED, Side.CREDIT, "wal_1", False
    )
    assert debit(cash, usd(5)) == Posting("wal_1:USD", Side.DEBIT, usd(5))
    assert credit(cash, usd(5)) == Posting("wal_1:USD", Side.CREDIT, usd(5))


def test_accounts_that_make_no_sense_cannot_be_built():
    with pytest.raises(LedgerInvariantError, match="x: customer accounts alone have an owner"):
        LedgerAccount("x", AccountType.HOUSE, USD, Book.DEMO, Side.CREDIT, "somebody")
    with pytest.raises(LedgerInvariantError, match="x: customer accounts alone have an owner"):
        LedgerAccount("x", AccountType.CUSTOMER, USD, Book.DEMO, Side.CREDIT)
    with pytest.raises(LedgerInvariantError, match="x: a house account has no stored balance"):
        LedgerAccount("x", AccountType.HOUSE, USD, Book.DEMO, Side.CREDIT, None, False)
    for minor in (0, -1, 10**15 + 1):
        with pytest.raises(LedgerInvariantError, match=rf"x: {minor} is not in 1\.\.{10**15}"):
            Posting("x", Side.DEBIT, Money(minor, USD))
        with pytest.raises(LedgerInvariantError, match=f"hold h: {minor} is out of range"):
            HoldRequest("h", "x", Money(minor, USD), NOW)
    assert Posting("x", Side.DEBIT, Money(10**15, USD)).amount.minor == 10**15
    assert HoldRequest("h", "x", Money(1, USD), NOW).expires_at is None


def test_entries_that_make_no_sense_cannot_be_built():
    one = credit(ALICE, usd(5))
    with pytest.raises(LedgerInvariantError, match=r"^an entry has at least two postings$"):
        Entry("e", EntryType.DEPOSIT, (one,), NOW)
    with pytest.raises(LedgerInvariantError, match=r"debits and credits differ: \{'USD': -9\}"):
        Entry("e", EntryType.DEPOSIT, (one, credit(BOB, usd(4))), NOW)
    for type_, reverses in ((EntryType.REVERSAL, None), (EntryType.DEPOSIT, "e0")):
        with pytest.raises(LedgerInvariantError, match=r"^e: a reversal names what it reverses$"):
            Entry("e", type_, (debit(EXTERNAL, usd(5)), one), NOW, reverses_entry_id=reverses)


def test_chain_is_the_one_that_stored_rows_have():
    at = datetime.fromisoformat("2026-03-02T14:30:00+00:00")
    entry = Entry(
        entry_id="e1",
        type=EntryType.DEPOSIT,
        postings=(
            Posting("external:demo:USD", Side.DEBIT, usd(100)),
            Posting("wal_alice:USD", Side.CREDIT, usd(100)),
        ),
        occurred_at=at,
        reference="fnd_1",
        description="Grüße",
        details={"rail": "sandbox"},
    )
    document = entry_document(
        entry,
        book=Book.DEMO,
        recorded_at=at + timedelta(microseconds=1),
        position=1,
        sequence=3,
        running_balance_minor=250,
    )
    posting = {"amount_minor": 100, "currency": "USD"}
    assert document == {
        "entry_id": "e1",
        "type": "DEPOSIT",
        "book": "demo",
        "reference": "fnd_1",
        "description": "Grüße",
        "details": {"rail": "sandbox"},
        "reverses_entry_id": None,
        "occurred_at_us": to_us(at),
        "recorded_at_us": to_us(at) + 1,
        "postings": [
            {"account_id": "external:demo:USD", "side": "DEBIT", **posting},
            {"account_id": "wal_alice:USD", "side": "CREDIT", **posting},
        ],
        "position": 1,
        "sequence": 3,
        "running_balance_minor": 250,
    }
    first = genesis_hash("wal_alice:USD")
    assert first == "15daa8c6f0f01930141283b363abc383eabb4eb7b6c3102491b68e4148ae11f3"
    assert chain_hash(first, document) == (
        "3dd335fe7207996dcb7cdceb139649972c15c75bbb2aad7c72fd82f6c6e16dd0"
    )


def test_canonical_json_is_one_text_and_refuses_what_has_none():
    assert canonical_json({"b": ["ü", None, True], "a": {"y": 1, "x": ()}}) == (
        '{"a":{"x":[],"y":1},"b":["ü",null,true]}'.encode()
    )
    with pytest.raises(LedgerInvariantError, match=r"^float has no canonical form$"):
        canonical_json({"a": [1.5]})
    with pytest.raises(LedgerInvariantError, match=r"^1 is no text$"):
        canonical_json({"a": {1: "x"}})


def test_repeats_with_another_body_name_each_field():
    first = an_entry()
    other = Entry(
        "e1",
        EntryType.REFUND,
        (debit(EXTERNAL, usd(90)), credit(BOB, usd(80)), credit(BOB, usd(10))),
        NOW,
        reference="fnd_2",
        description="other",
        details={"rail": "manual"},
    )
    with pytest.raises(EntryDiffersError) as caught:
        ensure_same_entry(first, other)
    assert caught.value.message == "An entry with this id exists with another body."
    assert caught.value.context == {"entry_id": "e1"}
    fields = [each.field for each in caught.value.errors]
    assert fields == [
        "description",
        "details",
        "postings",
        "postings.0.amount",
        "postings.1.account_id",
        "postings.1.amount",
        "postings.2.account_id",
        "postings.2.amount",
        "postings.2.currency",
        "postings.2.side",
        "reference",
        "type",
    ]
    assert {each.rule for each in caught.value.errors} == {"exists_with_different_value"}
    assert caught.value.errors[0].message == "description differs."
    undone = reversal(_posted(first), entry_id="e2", occurred_at=NOW, reason="x")
    with pytest.raises(EntryDiffersError) as caught:
        ensure_same_entry(undone, replace(undone, reverses_entry_id="e0"))
    assert [each.field for each in caught.value.errors] == ["reverses_entry_id"]
    swapped = replace(first, postings=tuple(reversed(first.postings)))
    with pytest.raises(EntryDiffersError) as caught:
        ensure_same_entry(first, swapped)
    assert "postings.0.side" in [each.field for each in caught.value.errors]
    ensure_same_entry(first, replace(first, occurred_at=NOW + timedelta(days=1)))


def test_repeats_of_a_hold_with_another_body_name_each_field():
    first = HoldRequest("h1", "a:USD", usd(5), NOW, reference="r")
    with pytest.raises(HoldDiffersError) as caught:
        ensure_same_hold(first, HoldRequest("h1", "b:JPY", Money(6, JPY), NOW))
    assert [each.field for each in caught.value.errors] == [
        "account_id", "amount", "currency", "reference",
    ]  # fmt: skip
    assert caught.value.context == {"hold_id": "h1"}
    assert caught.value.message == "A hold with this id exists with another body."
    later = NOW + timedelta(days=1)
    ensure_same_hold(first, replace(first, opened_at=later, expires_at=later))


def _posted(entry: Entry) -> PostedEntry:
    lines = tuple(PostedPosting(at, each) for at, each in enumerate(entry.postings))
    return PostedEntry(entry, Book.DEMO, NOW, lines)


def test_reversal_is_the_mirror_and_says_why():
    undone = reversal(_posted(an_entry()), entry_id="e2", occurred_at=NOW, reason="because")
    assert (undone.entry_id, undone.type) == ("e2", EntryType.REVERSAL)
    assert (undone.reference, undone.reverses_entry_id) == ("e1", "e1")
    assert (undone.description, undone.occurred_at) == ("because", NOW)
    assert [each.side for each in undone.postings] == [Side.CREDIT, Side.DEBIT]
    with pytest.raises(LedgerInvariantError, match="e1 has no posting on wal_bob:USD"):
        _posted(an_entry()).posting_on("wal_bob:USD")


def test_refusals_carry_their_numbers():
    with pytest.raises(InsufficientFundsError) as caught:
        ensure_covered(a_state(100, 30), a_state(20, 30))
    assert caught.value.context == {
        "account_id": "wal_alice:USD", "required_minor": 80, "available_minor": 70,
        "currency": "USD",
    }  # fmt: skip
    assert caught.value.message == "0.80 USD required, 0.70 USD available"
    ensure_covered(a_state(100, 30), a_state(30, 30))
    loose = replace(ALICE, allows_negative=True)
    ensure_covered(a_state(account=loose), a_state(-BALANCE_MINOR_MAX, account=loose))
    for balance in (BALANCE_MINOR_MAX + 1, -BALANCE_MINOR_MAX - 1):
        with pytest.raises(BalanceOutOfRangeError) as out:
            ensure_covered(a_state(account=loose), a_state(balance, account=loose))
        assert out.value.message == "The balance would leave the range of exact amounts."
        assert out.value.context == {"account_id": "wal_alice:USD"}
    request = HoldRequest("h1", ALICE.account_id, usd(71), NOW)
    with pytest.raises(InsufficientFundsError) as caught:
        domain.hold(a_state(100, 30), request)
    assert caught.value.context["required_minor"] == 71
    assert domain.hold(a_state(101, 30), request).held_minor == 101
    with pytest.raises(LedgerInvariantError, match="hold h1 is not in the account's currency"):
        domain.hold(a_state(), replace(request, amount=Money(1, JPY)))


def test_ended_holds_say_how():
    held = Hold(HoldRequest("h1", ALICE.account_id, usd(50), NOW, expires_at=NOW))
    take = a_withdrawal("e1", 50)
    for state, error, message in (
        (HoldState.POSTED, HoldAlreadyCapturedError, "The hold was captured before."),
        (HoldState.VOIDED, HoldAlreadyVoidedError, "The hold was voided before."),
        (HoldState.EXPIRED, HoldAlreadyExpiredError, "The hold has expired."),
    ):
        with pytest.raises(error) as caught:
            domain.ensure_pending(replace(held, state=state))
        assert caught.value.message == message
        assert caught.value.context == {"hold_id": "h1"}
    with pytest.raises(HoldAlreadyExpiredError) as expired:
        domain.capture(held, take, ALICE, closed_at=NOW)
    assert expired.value.context == {"hold_id": "h1"}
    early = NOW - timedelta(microseconds=1)
    done = domain.capture(held, take, ALICE, closed_at=early)
    assert (done.state, done.captured_minor, done.entry_id, done.closed_at) == (
        HoldState.POSTED, 50, "e1", early,
    )  # fmt: skip
    with pytest.raises(CaptureExceedsHoldError) as exceeded:
        domain.capture(held, a_withdrawal("e1", 51), ALICE, closed_at=early)
    assert exceeded.value.message == "The capture takes more than the hold reserved."
    assert exceeded.value.context == {"hold_id": "h1", "held_minor": 50, "required_minor": 51}
    for nothing in (a_deposit("e1", 5), a_transfer("e1", 5, BOB, EXTERNAL)):
        with pytest.raises(LedgerInvariantError, match="e1 takes nothing from wal_alice:USD"):
            domain.capture(held, nothing, ALICE, closed_at=early)
    round_trip = Entry(
        "e1", EntryType.ADJUSTMENT_ADMIN, (debit(ALICE, usd(5)), credit(ALICE, usd(5))), NOW
    )
    with pytest.raises(LedgerInvariantError, match="takes nothing"):
        domain.capture(held, round_trip, ALICE, closed_at=early)
    for state in (HoldState.POSTED, HoldState.PENDING):
        with pytest.raises(LedgerInvariantError, match=f"a hold is not released to {state}"):
            domain.release(held, state=state, closed_at=NOW)


def test_post_keeps_every_state_and_judges_once():
    entry = Entry(
        "e1",
        EntryType.EXCHANGE,
        (debit(ALICE, usd(150)), credit(ALICE, usd(60)), credit(EXTERNAL, usd(90))),
        NOW,
    )
    accounts = {each.account_id: each for each in (ALICE, EXTERNAL)}
    states = {ALICE.account_id: a_state(100, 40)}
    # In between it is below zero; what counts is how it ends, with the hold's own part released.
    posted = domain.post(
        entry,
        accounts=accounts,
        states=states,
        recorded_at=NOW,
        released={ALICE.account_id: 40},
    )
    after = posted.states[ALICE.account_id]
    assert (after.balance_minor, after.held_minor, after.last_sequence) == (10, 0, 5)
    assert after.last_posted_at_us == to_us(NOW)
    lines = [(each.position, each.sequence, each.running_balance_minor) for each in posted.postings]
    assert lines == [(0, 4, -50), (1, 5, 10), (2, None, None)]
    assert after.last_hash == posted.postings[1].chain_hash != posted.postings[0].chain_hash
    assert posted.postings[2].chain_hash is None
    with pytest.raises(InsufficientFundsError):
        domain.post(entry, accounts=accounts, states=states, recorded_at=NOW)
    funded = {**accounts, EXTERNAL.account_id: replace(EXTERNAL, book=Book.FUNDED)}
    with pytest.raises(LedgerInvariantError, match=r"^e1 crosses books$"):
        domain.post(entry, accounts=funded, states=states, recorded_at=NOW)
    yen = {**accounts, EXTERNAL.account_id: replace(EXTERNAL, currency=JPY)}
    with pytest.raises(LedgerInvariantError, match=r"^e1: USD on external:demo:USD$"):
        domain.post(entry, accounts=yen, states=states, recorded_at=NOW)


async def test_lines_when_filtered_then_type_and_instants_bound_them(database, ledger):
    accounts = [ALICE.account_id, BOB.account_id]
    async with database.transaction() as transaction:
        for number, entry in enumerate(
            (a_deposit("e1", 100), a_transfer("e2", 30, ALICE, BOB), a_withdrawal("e3", 10))
        ):
            at = NOW + timedelta(seconds=number)
            await ledger.post_entry(transaction, entry, recorded_at=at)
    second = NOW + timedelta(seconds=1)
    async with database.snapshot() as snapshot:

        async def ids(**filters: object) -> list[tuple[str, str]]:
            found = await ledger.list_entries(snapshot, accounts, limit=9, **filters)
            return [(each.entry_id, each.account_id.partition(":")[0]) for each in found]

        everything = [
            ("e3", "wal_alice"), ("e2", "wal_bob"), ("e2", "wal_alice"), ("e1", "wal_alice"),
        ]  # fmt: skip
        assert await ids() == everything
        assert await ids(types=[EntryType.DEPOSIT]) == everything[3:]
        assert await ids(from_=second) == everything[:3]
        assert await ids(to=second) == everything[3:]
        assert await ids(from_=second, to=second + timedelta(microseconds=1)) == everything[1:3]
        for place, each in enumerate(everything):
            line = (await ledger.list_entries(snapshot, accounts, limit=9))[place]
            below = LinePosition(to_us(line.recorded_at), line.account_id, line.sequence)
            assert await ids(below=below) == everything[place + 1 :], each
        (newest,) = await ledger.list_entries(snapshot, accounts, limit=1)
        assert newest.account_id == ALICE.account_id
        assert (newest.change, newest.running_balance) == (usd(-10), usd(60))
        assert (newest.type, newest.sequence) == (EntryType.WITHDRAWAL, 3)
        assert (newest.description, newest.details, newest.reference) == ("", {}, None)
        assert newest.occurred_at == NOW
        assert newest.reverses_entry_id is None
        wanted = [(ALICE.account_id, 1), (BOB.account_id, 1), (BOB.account_id, 2)]
        found = await ledger.get_lines(snapshot, wanted)
        assert {key: each.entry_id for key, each in found.items()} == {
            wanted[0]: "e1", wanted[1]: "e2",
        }  # fmt: skip
        assert await ledger.get_lines(snapshot, []) == {}
        sums = await ledger.sum_changes(snapshot, accounts)
        assert sums == {
            (ALICE.account_id, EntryType.DEPOSIT): usd(100),
            (ALICE.account_id, EntryType.TRANSFER): usd(-30),
            (BOB.account_id, EntryType.TRANSFER): usd(30),
            (ALICE.account_id, EntryType.WITHDRAWAL): usd(-10),
        }
        some = await ledger.sum_changes(
            snapshot, accounts, types=[EntryType.TRANSFER], from_=second, to=second
        )
        assert some == {}
        balances = await ledger.list_balances(snapshot, "wal_bob")
        assert [(account.account_id, each.total) for account, each in balances] == [
            (BOB.account_id, usd(30))
        ]
        assert await ledger.list_balances(snapshot, "nobody") == []
        assert await ledger.get_account(snapshot, BOB.account_id) == BOB
        world = await ledger.get_balance(snapshot, EXTERNAL.account_id)
        assert (world.total, world.held, world.available) == (usd(-90), usd(0), usd(-90))
        totals = {each.type: each for each in await ledger.sum_by_type(snapshot)}
        customer = totals[AccountType.CUSTOMER]
        assert (customer.debit_minor, customer.credit_minor) == (40, 130)
        outside = totals[AccountType.EXTERNAL]
        assert (outside.debit_minor, outside.credit_minor) == (100, 10)
        assert (customer.book, customer.currency) == (Book.DEMO, USD)


async def test_unknown_things_when_asked_for_then_named(database, ledger):
    async with database.snapshot() as snapshot:
        for ask, error, context in (
            (ledger.get_account, LedgerAccountNotFoundError, "account_id"),
            (ledger.get_balance, LedgerAccountNotFoundError, "account_id"),
            (ledger.get_hold, HoldNotFoundError, "hold_id"),
            (ledger.get_entry, EntryNotFoundError, "entry_id"),
        ):
            with pytest.raises(error) as caught:
                await ask(snapshot, "x")
            assert caught.value.context == {context: "x"}
            assert isinstance(caught.value, NotFoundError)
            assert caught.value.message.startswith("There is no such ")


async def test_reversal_when_wrong_or_repeated_then_refused(database, ledger):
    async with database.transaction() as transaction:
        first = await ledger.post_entry(transaction, a_deposit("e1", 100), recorded_at=NOW)
        await ledger.post_entry(transaction, a_deposit("e2", 90), recorded_at=NOW)
    undo = reversal(first, entry_id="r1", occurred_at=NOW, reason="x")
    async with database.transaction() as transaction:
        wrong = replace(undo, reverses_entry_id="e2")
        with pytest.raises(LedgerInvariantError, match="r1 does not mirror e2"):
            await ledger.post_entry(transaction, wrong, recorded_at=NOW)
    async with database.transaction() as transaction:
        with pytest.raises(EntryNotFoundError):
            await ledger.post_entry(
                transaction, replace(undo, reverses_entry_id="none"), recorded_at=NOW
            )
        await ledger.post_entry(transaction, undo, recorded_at=NOW)
        assert (await ledger.post_entry(transaction, undo, recorded_at=NOW)).is_replay
        with pytest.raises(EntryAlreadyReversedError) as caught:
            await ledger.post_entry(transaction, replace(undo, entry_id="r2"), recorded_at=NOW)
    assert caught.value.context == {"entry_id": "e1", "reversal_id": "r1"}
    assert caught.value.message == "The entry has been reversed before."
