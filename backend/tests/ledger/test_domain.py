"""The pure rules: balance, chains, exactness, and how holds end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_api.kernel.clock import to_us
from trading_api.kernel.errors import ConflictError
from trading_api.kernel.values import Money, currency
from trading_api.ledger.domain import (
    AccountState,
    Entry,
    EntryType,
    Hold,
    HoldRequest,
    HoldState,
    Posting,
    Side,
    canonical_json,
    capture,
    chain_hash,
    credit,
    debit,
    ensure_pending,
    entry_document,
    genesis_hash,
    post,
    release,
)
from trading_api.ledger.errors import LedgerInvariantError
from trading_api.testkit.ledgers import ALICE, BOB, EXTERNAL, NOW, a_deposit, usd

ACCOUNTS = {account.account_id: account for account in (ALICE, BOB, EXTERNAL)}


def a_state(account=ALICE, balance_minor: int = 0, held_minor: int = 0) -> AccountState:
    return AccountState(account, balance_minor, held_minor, 0, genesis_hash(account.account_id), 0)


@pytest.mark.parametrize(
    "postings",
    [
        (),
        (debit(ALICE, usd(1)),),
        (debit(ALICE, usd(1)), credit(BOB, usd(2))),
        (debit(ALICE, usd(1)), debit(BOB, usd(1))),
        (debit(ALICE, usd(100)), credit(BOB, Money(100, currency("EUR")))),
    ],
)
def test_entry_when_unbalanced_then_cannot_be_built(postings):
    with pytest.raises(LedgerInvariantError):
        Entry("e", EntryType.TRANSFER, postings, NOW)


@pytest.mark.parametrize("minor", [0, -1, 10**15 + 1])
def test_posting_when_amount_out_of_range_then_cannot_be_built(minor):
    with pytest.raises(LedgerInvariantError):
        Posting(ALICE.account_id, Side.DEBIT, usd(minor))


def test_entry_when_reversal_names_nothing_then_cannot_be_built():
    with pytest.raises(LedgerInvariantError):
        Entry("e", EntryType.REVERSAL, a_deposit("x", 1).postings, NOW)


@given(
    st.lists(
        st.tuples(st.sampled_from([ALICE, BOB]), st.integers(1, 10**6)), min_size=1, max_size=20
    )
)
def test_post_when_any_deposits_then_running_balances_are_the_sums(deposits):
    states = {ALICE.account_id: a_state(ALICE), BOB.account_id: a_state(BOB)}
    expected = {ALICE.account_id: 0, BOB.account_id: 0}
    for number, (account, amount_minor) in enumerate(deposits):
        entry = a_deposit(f"e{number}", amount_minor, account)
        own = {account.account_id: states[account.account_id]}
        posted = post(entry, accounts=ACCOUNTS, states=own, recorded_at=NOW)
        states |= posted.states
        expected[account.account_id] += amount_minor
        line = posted.posting_on(account.account_id)
        assert line.running_balance_minor == expected[account.account_id]
        assert line.chain_hash == states[account.account_id].last_hash
    assert sum(state.last_sequence for state in states.values()) == len(deposits)


def test_chain_when_anything_in_the_entry_changes_then_hash_changes():
    document = entry_document(
        a_deposit("e1", 100),
        book=ALICE.book,
        recorded_at=NOW,
        position=1,
        sequence=1,
        running_balance_minor=100,
    )
    first = chain_hash(genesis_hash("a"), document)
    assert first != chain_hash(genesis_hash("b"), document)
    for name in document:
        assert chain_hash(genesis_hash("a"), {**document, name: "changed"}) != first


def test_canonical_json_when_order_differs_then_bytes_are_equal():
    assert canonical_json({"b": 1, "a": ["é", None]}) == canonical_json({"a": ["é", None], "b": 1})
    assert canonical_json({"b": 1, "a": ["é", None]}) == '{"a":["é",null],"b":1}'.encode()


@pytest.mark.parametrize("value", [1.0, object(), {1: "x"}, [0.5]])
def test_canonical_json_when_value_has_no_exact_form_then_refused(value):
    with pytest.raises(LedgerInvariantError):
        canonical_json({"value": value})


def test_hold_when_ended_then_every_further_end_is_refused():
    pending = Hold(HoldRequest("h", ALICE.account_id, usd(10), NOW))
    entry = Entry(
        "e", EntryType.WITHDRAWAL, (debit(ALICE, usd(10)), credit(EXTERNAL, usd(10))), NOW
    )
    ended = [
        capture(pending, entry, ALICE, closed_at=NOW),
        release(pending, state=HoldState.VOIDED, closed_at=NOW),
        release(pending, state=HoldState.EXPIRED, closed_at=NOW),
    ]
    for held in ended:
        for again in (
            lambda held=held: capture(held, entry, ALICE, closed_at=NOW),
            lambda held=held: release(held, state=HoldState.VOIDED, closed_at=NOW),
            lambda held=held: release(held, state=HoldState.EXPIRED, closed_at=NOW),
            lambda held=held: ensure_pending(held),
        ):
            with pytest.raises(ConflictError, match=r"before|expired"):
                again()
    for state in (HoldState.PENDING, HoldState.POSTED):
        with pytest.raises(LedgerInvariantError):
            release(pending, state=state, closed_at=NOW)


def test_post_when_recorded_then_state_keeps_the_instant():
    posted = post(
        a_deposit("e1", 1),
        accounts=ACCOUNTS,
        states={ALICE.account_id: a_state()},
        recorded_at=NOW,
    )
    assert posted.states[ALICE.account_id].last_posted_at_us == to_us(NOW)
