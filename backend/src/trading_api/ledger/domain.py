"""Values and pure rules of the ledger.

Amounts are integers of minor units (cents of USD); a posting's amount is always positive, its side
says which way. A balance is counted on the account's normal side, so a customer's cash (a credit
account: what the house owes the customer) grows by credits. Accounts belong to one book (demo or
funded) and one currency; an entry never crosses books and balances in each of its currencies.

Customer accounts carry a gapless sequence, a running balance and a hash chain; house, clearing and
fx accounts carry none, so that no two customers ever wait for the same row.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, assert_never

from trading_api.kernel.clock import to_us
from trading_api.kernel.errors import FieldError
from trading_api.kernel.values import MINOR_MAX, Currency, Money
from trading_api.ledger.errors import (
    BalanceOutOfRangeError,
    CaptureExceedsHoldError,
    EntryDiffersError,
    HoldAlreadyCapturedError,
    HoldAlreadyExpiredError,
    HoldAlreadyVoidedError,
    HoldDiffersError,
    InsufficientFundsError,
    LedgerInvariantError,
)

BALANCE_MINOR_MAX: Final = 10**18
"""Largest magnitude of a customer's balance: a thousand of the largest postings, and still far
enough inside 64 bits that balance - held cannot overflow."""


class Side(StrEnum):
    """Which side of an account a posting stands on."""

    DEBIT = "DEBIT"
    CREDIT = "CREDIT"

    @property
    def opposite(self) -> "Side":
        """Return the other side."""
        return Side.CREDIT if self is Side.DEBIT else Side.DEBIT


class Book(StrEnum):
    """Play money and real money never meet in one entry."""

    DEMO = "demo"
    FUNDED = "funded"


class AccountType(StrEnum):
    """What an account stands for; the name of a house account begins with it."""

    CUSTOMER = "customer"
    EXTERNAL = "external"
    """The world outside: where deposits come from and withdrawals go to."""
    HOUSE = "house"
    """The operator's own: profit and loss, commission, financing, spread, negative balances."""
    CLEARING = "clearing"
    """In flight to or from another module's ledger."""
    FX = "fx"
    """The currency position of the house, between the two legs of a conversion."""
    ROUNDING = "rounding"
    """Residue of rounding, never dropped."""


class EntryType(StrEnum):
    """Why money moved."""

    DEPOSIT = "DEPOSIT"
    WITHDRAWAL = "WITHDRAWAL"
    TRANSFER = "TRANSFER"
    HOLD = "HOLD"
    FEE_PERFORMANCE = "FEE_PERFORMANCE"
    FEE_SUBSCRIPTION = "FEE_SUBSCRIPTION"
    FEE_COMMISSION = "FEE_COMMISSION"
    FINANCING = "FINANCING"
    REALIZED_PNL = "REALIZED_PNL"
    EXCHANGE = "EXCHANGE"
    REFUND = "REFUND"
    ADJUSTMENT_ADMIN = "ADJUSTMENT_ADMIN"
    REVERSAL = "REVERSAL"


class HoldState(StrEnum):
    """A hold is pending until it ends, exactly once."""

    PENDING = "pending"
    POSTED = "posted"
    VOIDED = "voided"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class LedgerAccount:
    """An account that postings stand on. Its identity never changes.

    Attributes:
        account_id: Unique in the module's ledger.
        type: What it stands for; CUSTOMER accounts alone have sequence, running balance and chain.
        currency: Its one currency, with the scale.
        book: demo or funded.
        normal_side: The side that makes the balance grow.
        owner_id: The wallet or trading account it belongs to; None for the house's own.
        allows_negative: False refuses whatever would make available < 0 (wallets); True lets fills,
            financing and liquidation post below zero (trading accounts, all house accounts).
    """

    account_id: str
    type: AccountType
    currency: Currency
    book: Book
    normal_side: Side
    owner_id: str | None = None
    allows_negative: bool = True

    def __post_init__(self) -> None:
        if self.is_customer != (self.owner_id is not None):
            raise LedgerInvariantError(f"{self.account_id}: customer accounts alone have an owner")
        if not self.is_customer and not self.allows_negative:
            raise LedgerInvariantError(f"{self.account_id}: a house account has no stored balance")

    @property
    def is_customer(self) -> bool:
        """Tell whether a customer owns the money on it."""
        return self.type is AccountType.CUSTOMER


def customer_account(
    owner_id: str, currency: Currency, *, book: Book, allows_negative: bool
) -> LedgerAccount:
    """Describe the cash of a wallet or trading account: a credit account, `<owner>:<currency>`."""
    return LedgerAccount(
        account_id=f"{owner_id}:{currency.code}",
        type=AccountType.CUSTOMER,
        currency=currency,
        book=book,
        normal_side=Side.CREDIT,
        owner_id=owner_id,
        allows_negative=allows_negative,
    )


def house_account(
    account_type: AccountType, currency: Currency, *, book: Book, name: str | None = None
) -> LedgerAccount:
    """Describe an account of the house: `<type>[:<name>]:<book>:<currency>`.

    All are kept on the credit side, so that their balances and the customers' add up to zero
    without a change of sign.
    """
    parts = [account_type.value, *([name] if name else []), book.value, currency.code]
    return LedgerAccount(
        account_id=":".join(parts),
        type=account_type,
        currency=currency,
        book=book,
        normal_side=Side.CREDIT,
    )


@dataclass(frozen=True, slots=True)
class Posting:
    """One line of an entry: a positive amount on one side of one account."""

    account_id: str
    side: Side
    amount: Money

    def __post_init__(self) -> None:
        if not 0 < self.amount.minor <= MINOR_MAX:
            raise LedgerInvariantError(
                f"posting on {self.account_id}: {self.amount.minor} is not in 1..{MINOR_MAX}"
            )


def debit(account: LedgerAccount, amount: Money) -> Posting:
    """Return a posting on the debit side."""
    return Posting(account.account_id, Side.DEBIT, amount)


def credit(account: LedgerAccount, amount: Money) -> Posting:
    """Return a posting on the credit side."""
    return Posting(account.account_id, Side.CREDIT, amount)


@dataclass(frozen=True, slots=True)
class Entry:
    """An immutable, balanced movement of money, before it is written.

    Attributes:
        entry_id: Made by the outermost caller; a repeat with the same body has no effect.
        type: Why money moved.
        postings: At least two, in the caller's order; debits = credits in each currency.
        occurred_at: When it happened, UTC; not part of the comparison of repeats.
        reference: What caused it (transfer, execution, funding), or None.
        description: Free text for the customer.
        details: Further facts, text to text (rate, symbol); part of the hash chain.
        reverses_entry_id: The entry this one undoes, or None.
    """

    entry_id: str
    type: EntryType
    postings: tuple[Posting, ...]
    occurred_at: datetime
    reference: str | None = None
    description: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    reverses_entry_id: str | None = None

    def __post_init__(self) -> None:
        ensure_balanced(self.postings)
        if (self.type is EntryType.REVERSAL) != (self.reverses_entry_id is not None):
            raise LedgerInvariantError(f"{self.entry_id}: a reversal names what it reverses")


@dataclass(frozen=True, slots=True)
class PostedPosting:
    """A posting as it stands in the ledger.

    `sequence` (1, 2, 3, … per account), `running_balance_minor` (after it) and `chain_hash`
    are None on house accounts.
    """

    position: int
    posting: Posting
    sequence: int | None = None
    running_balance_minor: int | None = None
    chain_hash: str | None = None


@dataclass(frozen=True, slots=True)
class PostedEntry:
    """An entry as it stands in the ledger.

    `recorded_at` never runs backwards along one account. `is_replay` says that this call found the
    entry and wrote nothing. `states` are those of the customer accounts right after it, known to
    the call that wrote it alone.
    """

    entry: Entry
    book: Book
    recorded_at: datetime
    postings: tuple[PostedPosting, ...]
    is_replay: bool = False
    states: Mapping[str, "AccountState"] = field(default_factory=dict, compare=False)

    def posting_on(self, account_id: str) -> PostedPosting:
        """Return the last posting on an account.

        Raises:
            LedgerInvariantError: The entry does not touch the account.
        """
        for posted in reversed(self.postings):
            if posted.posting.account_id == account_id:
                return posted
        raise LedgerInvariantError(f"{self.entry.entry_id} has no posting on {account_id}")


@dataclass(frozen=True, slots=True)
class AccountState:
    """What moves on a customer account; read and written under the account's lock.

    Attributes:
        account: Its identity.
        balance_minor: Σ postings on the normal side - Σ on the other.
        held_minor: Σ pending holds.
        last_sequence: Of its newest posting, 0 before the first.
        last_hash: Of its newest posting; before the first, `genesis_hash`.
        last_posted_at_us: `recorded_at` of its newest posting, 0 before the first.
    """

    account: LedgerAccount
    balance_minor: int
    held_minor: int
    last_sequence: int
    last_hash: str
    last_posted_at_us: int

    @property
    def available_minor(self) -> int:
        """Return balance - held."""
        return self.balance_minor - self.held_minor

    @property
    def balance(self) -> "Balance":
        """Return it in the account's currency."""
        currency = self.account.currency
        return Balance(
            total=Money(self.balance_minor, currency),
            held=Money(self.held_minor, currency),
            available=Money(self.available_minor, currency),
        )


@dataclass(frozen=True, slots=True)
class Balance:
    """What stands on an account: total = held + available."""

    total: Money
    held: Money
    available: Money


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """An amount to reserve on a customer account.

    Attributes:
        hold_id: Made by the outermost caller; a repeat with the same body has no effect.
        account_id: Whose money.
        amount: Positive.
        opened_at: UTC.
        reference: What it is for, or None.
        expires_at: From this instant on it can no longer be captured; None never expires by itself.
    """

    hold_id: str
    account_id: str
    amount: Money
    opened_at: datetime
    reference: str | None = None
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        if not 0 < self.amount.minor <= MINOR_MAX:
            raise LedgerInvariantError(f"hold {self.hold_id}: {self.amount.minor} is out of range")


@dataclass(frozen=True, slots=True)
class Hold:
    """A reservation as it stands in the ledger.

    Attributes:
        request: What was reserved, and for what.
        state: pending, or how it ended.
        captured_minor: What the capture took (≤ the amount, the rest was released); 0 unless
            posted.
        entry_id: The entry of the capture; None unless posted.
        closed_at: When it ended, UTC; None while pending.
    """

    request: HoldRequest
    state: HoldState = HoldState.PENDING
    captured_minor: int = 0
    entry_id: str | None = None
    closed_at: datetime | None = None


def ensure_balanced(postings: Sequence[Posting]) -> None:
    """Assert that at least two postings balance in each currency (invariant L1).

    Raises:
        LedgerInvariantError: They do not.
    """
    if len(postings) < 2:
        raise LedgerInvariantError("an entry has at least two postings")
    sums = debit_minus_credit((p.side, p.amount.minor, p.amount.currency.code) for p in postings)
    if any(sums.values()):
        raise LedgerInvariantError(f"debits and credits differ: {dict(sums)}")


def debit_minus_credit(lines: Iterable[tuple[Side, int, str]]) -> Counter[str]:
    """Sum (side, amount in minor units, currency) by currency, debits positive."""
    sums: Counter[str] = Counter()
    for side, amount_minor, currency in lines:
        sums[currency] += amount_minor if side is Side.DEBIT else -amount_minor
    return sums


def change_minor(account: LedgerAccount, posting: Posting) -> int:
    """Return what a posting does to the account's balance, in minor units with sign."""
    amount_minor = posting.amount.minor
    return amount_minor if posting.side is account.normal_side else -amount_minor


def post(
    entry: Entry,
    *,
    accounts: Mapping[str, LedgerAccount],
    states: Mapping[str, AccountState],
    recorded_at: datetime,
    released: Mapping[str, int] | None = None,
) -> PostedEntry:
    """Decide what an entry writes: its postings with sequence, running balance and hash.

    Args:
        entry: What to post.
        accounts: Every account it touches, by id.
        states: The state of every customer account it touches, by id.
        recorded_at: The instant to record, not before the newest posting of any state.
        released: Held minor units that the entry's own capture sets free, by account.

    Returns:
        The posted entry with the new states. Availability is judged once, after all postings.

    Raises:
        InsufficientFundsError: available would fall below zero where the account forbids it.
        BalanceOutOfRangeError: A balance would leave ±10¹⁸.
        LedgerInvariantError: A posting has not its account's currency, or the entry crosses books.
    """
    book = ensure_accounts_agree(entry, accounts)
    after = dict(states)
    for account_id, released_minor in (released or {}).items():
        held_minor = after[account_id].held_minor - released_minor
        after[account_id] = replace(after[account_id], held_minor=held_minor)
    recorded_at_us = to_us(recorded_at)
    posted: list[PostedPosting] = []
    for position, posting in enumerate(entry.postings):
        state = after.get(posting.account_id)
        if state is None:
            posted.append(PostedPosting(position, posting))
            continue
        balance_minor = state.balance_minor + change_minor(state.account, posting)
        sequence = state.last_sequence + 1
        digest = chain_hash(
            state.last_hash,
            entry_document(
                entry,
                book=book,
                recorded_at=recorded_at,
                position=position,
                sequence=sequence,
                running_balance_minor=balance_minor,
            ),
        )
        posted.append(PostedPosting(position, posting, sequence, balance_minor, digest))
        after[posting.account_id] = AccountState(
            account=state.account,
            balance_minor=balance_minor,
            held_minor=state.held_minor,
            last_sequence=sequence,
            last_hash=digest,
            last_posted_at_us=recorded_at_us,
        )
    for account_id, state in after.items():
        ensure_covered(states[account_id], state)
    return PostedEntry(entry, book, recorded_at, tuple(posted), states=after)


def ensure_accounts_agree(entry: Entry, accounts: Mapping[str, LedgerAccount]) -> Book:
    """Assert one book, and on each posting its account's currency (invariant L11).

    Raises:
        LedgerInvariantError: They do not agree.
    """
    books = {accounts[posting.account_id].book for posting in entry.postings}
    if len(books) != 1:
        raise LedgerInvariantError(f"{entry.entry_id} crosses books")
    for posting in entry.postings:
        if accounts[posting.account_id].currency != posting.amount.currency:
            raise LedgerInvariantError(
                f"{entry.entry_id}: {posting.amount.currency.code} on {posting.account_id}"
            )
    return books.pop()


def ensure_covered(before: AccountState, after: AccountState) -> None:
    """Refuse a state that the account must not reach (invariant L4).

    Raises:
        InsufficientFundsError: available < 0 where the account forbids it.
        BalanceOutOfRangeError: |balance| > 10¹⁸.
    """
    account = after.account
    if abs(after.balance_minor) > BALANCE_MINOR_MAX:
        raise BalanceOutOfRangeError(
            "The balance would leave the range of exact amounts.", account_id=account.account_id
        )
    if not account.allows_negative and after.available_minor < 0:
        raise insufficient_funds(before, before.available_minor - after.available_minor)


def insufficient_funds(state: AccountState, required_minor: int) -> InsufficientFundsError:
    """Describe what was required and what is there, in the account's currency."""
    currency = state.account.currency
    return InsufficientFundsError(
        account_id=state.account.account_id,
        required=Money(required_minor, currency),
        available=Money(state.available_minor, currency),
    )


def reversal(posted: PostedEntry, *, entry_id: str, occurred_at: datetime, reason: str) -> Entry:
    """Return the entry that undoes another one exactly: the same postings, sides swapped."""
    postings = tuple(
        replace(line.posting, side=line.posting.side.opposite) for line in posted.postings
    )
    return Entry(
        entry_id=entry_id,
        type=EntryType.REVERSAL,
        postings=postings,
        occurred_at=occurred_at,
        reference=posted.entry.entry_id,
        description=reason,
        reverses_entry_id=posted.entry.entry_id,
    )


def hold(state: AccountState, request: HoldRequest) -> AccountState:
    """Reserve an amount; the whole check is made here, so that a capture cannot fail (L7).

    Holds need cover on every account, also where postings may go negative.

    Raises:
        InsufficientFundsError: Less than the amount is available.
        LedgerInvariantError: The hold has not the account's currency.
    """
    if request.amount.currency != state.account.currency:
        raise LedgerInvariantError(f"hold {request.hold_id} is not in the account's currency")
    if state.available_minor < request.amount.minor:
        raise insufficient_funds(state, request.amount.minor)
    return replace(state, held_minor=state.held_minor + request.amount.minor)


def capture(held: Hold, entry: Entry, account: LedgerAccount, *, closed_at: datetime) -> Hold:
    """End a hold by the entry that takes all or part of it.

    Raises:
        HoldAlreadyCapturedError, HoldAlreadyVoidedError, HoldAlreadyExpiredError: It has ended, or
            its time is over.
        CaptureExceedsHoldError: The entry takes more than the hold reserved.
        LedgerInvariantError: The entry takes nothing from the held account.
    """
    ensure_pending(held)
    expires_at = held.request.expires_at
    if expires_at is not None and closed_at >= expires_at:
        raise _ended(held.request.hold_id, HoldState.EXPIRED)
    taken_minor = -sum(
        change_minor(account, posting)
        for posting in entry.postings
        if posting.account_id == account.account_id
    )
    if taken_minor <= 0:
        raise LedgerInvariantError(f"{entry.entry_id} takes nothing from {account.account_id}")
    if taken_minor > held.request.amount.minor:
        raise CaptureExceedsHoldError(
            "The capture takes more than the hold reserved.",
            hold_id=held.request.hold_id,
            held_minor=held.request.amount.minor,
            required_minor=taken_minor,
        )
    return replace(
        held,
        state=HoldState.POSTED,
        captured_minor=taken_minor,
        entry_id=entry.entry_id,
        closed_at=closed_at,
    )


def release(held: Hold, *, state: HoldState, closed_at: datetime) -> Hold:
    """End a hold without taking anything: VOIDED or EXPIRED.

    Raises:
        HoldAlreadyCapturedError, HoldAlreadyVoidedError, HoldAlreadyExpiredError: It has ended.
    """
    if state not in (HoldState.VOIDED, HoldState.EXPIRED):
        raise LedgerInvariantError(f"a hold is not released to {state}")
    ensure_pending(held)
    return replace(held, state=state, closed_at=closed_at)


def ensure_pending(held: Hold) -> None:
    """Refuse to end a hold twice (invariant L6).

    Raises:
        HoldAlreadyCapturedError, HoldAlreadyVoidedError, HoldAlreadyExpiredError: It has ended.
    """
    if held.state is not HoldState.PENDING:
        raise _ended(held.request.hold_id, held.state)


def _ended(
    hold_id: str, state: HoldState
) -> HoldAlreadyCapturedError | HoldAlreadyVoidedError | HoldAlreadyExpiredError:
    match state:
        case HoldState.POSTED:
            return HoldAlreadyCapturedError("The hold was captured before.", hold_id=hold_id)
        case HoldState.VOIDED:
            return HoldAlreadyVoidedError("The hold was voided before.", hold_id=hold_id)
        case HoldState.EXPIRED:
            return HoldAlreadyExpiredError("The hold has expired.", hold_id=hold_id)
        case HoldState.PENDING:
            raise LedgerInvariantError(f"hold {hold_id} is pending")
        case _:
            assert_never(state)


def ensure_same_entry(first: Entry, again: Entry) -> None:
    """Refuse another body under an id that exists (invariant L10).

    Raises:
        EntryDiffersError: `errors` names each differing field.
    """
    errors = _differences(_body(first), _body(again))
    if errors:
        raise EntryDiffersError(
            "An entry with this id exists with another body.",
            errors=errors,
            entry_id=first.entry_id,
        )


def ensure_same_hold(first: HoldRequest, again: HoldRequest) -> None:
    """Refuse another body under a hold id that exists.

    Raises:
        HoldDiffersError: `errors` names each differing field.
    """
    errors = _differences(_hold_body(first), _hold_body(again))
    if errors:
        raise HoldDiffersError(
            "A hold with this id exists with another body.", errors=errors, hold_id=first.hold_id
        )


def _body(entry: Entry) -> dict[str, object]:
    # Instants are left out: a client that repeats its request does so at a later time.
    body: dict[str, object] = {
        "type": entry.type,
        "reference": entry.reference,
        "description": entry.description,
        "details": dict(entry.details),
        "reverses_entry_id": entry.reverses_entry_id,
        "postings": len(entry.postings),
    }
    for position, posting in enumerate(entry.postings):
        body[f"postings.{position}.account_id"] = posting.account_id
        body[f"postings.{position}.side"] = posting.side
        body[f"postings.{position}.amount"] = posting.amount.minor
        body[f"postings.{position}.currency"] = posting.amount.currency.code
    return body


def _hold_body(request: HoldRequest) -> dict[str, object]:
    return {
        "account_id": request.account_id,
        "amount": request.amount.minor,
        "currency": request.amount.currency.code,
        "reference": request.reference,
    }


def _differences(first: Mapping[str, object], again: Mapping[str, object]) -> list[FieldError]:
    names = sorted(first.keys() | again.keys())
    return [
        FieldError(field=name, rule="exists_with_different_value", message=f"{name} differs.")
        for name in names
        if first.get(name) != again.get(name)
    ]


def genesis_hash(account_id: str) -> str:
    """Return the hash before an account's first posting; no two chains can be exchanged."""
    return hashlib.sha256(f"ledger:{account_id}".encode()).hexdigest()


def chain_hash(previous_hash: str, document: Mapping[str, object]) -> str:
    """Return SHA-256(previous hash ‖ canonical JSON of the document), in hex (invariant L14)."""
    return hashlib.sha256(previous_hash.encode() + canonical_json(document)).hexdigest()


def entry_document(
    entry: Entry,
    *,
    book: Book,
    recorded_at: datetime,
    position: int,
    sequence: int,
    running_balance_minor: int,
) -> dict[str, object]:
    """Return what one link of a chain vouches for: the whole entry, and its place in the chain."""
    return {
        "entry_id": entry.entry_id,
        "type": entry.type.value,
        "book": book.value,
        "reference": entry.reference,
        "description": entry.description,
        "details": dict(entry.details),
        "reverses_entry_id": entry.reverses_entry_id,
        "occurred_at_us": to_us(entry.occurred_at),
        "recorded_at_us": to_us(recorded_at),
        "postings": [
            {
                "account_id": posting.account_id,
                "side": posting.side.value,
                "amount_minor": posting.amount.minor,
                "currency": posting.amount.currency.code,
            }
            for posting in entry.postings
        ],
        "position": position,
        "sequence": sequence,
        "running_balance_minor": running_balance_minor,
    }


def canonical_json(document: Mapping[str, object]) -> bytes:
    """Encode text, integers, None, lists and mappings in one way only: sorted keys, no spaces.

    Raises:
        LedgerInvariantError: A float or another value without one exact form.
    """
    _ensure_exact(document)
    return _CANONICAL.encode(document).encode()


_CANONICAL: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)
_EXACT: Final = frozenset({str, int, bool, type(None)})


def _ensure_exact(value: object) -> None:
    # Types first and no pattern matching: every posting comes by here with its whole entry.
    if type(value) in _EXACT:
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise LedgerInvariantError(f"{key!r} is no text")
            if type(item) not in _EXACT:
                _ensure_exact(item)
    elif isinstance(value, list | tuple):
        for item in value:
            if type(item) not in _EXACT:
                _ensure_exact(item)
    elif not isinstance(value, str | int):
        raise LedgerInvariantError(f"{type(value).__name__} has no canonical form")
