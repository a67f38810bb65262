"""Values and pure rules of wallets: amounts asked for, fundings, receipts, the event stream."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from trading_api.kernel.clock import from_us, to_us
from trading_api.kernel.errors import AmountOutOfRangeError, FieldError, InvalidValueError
from trading_api.kernel.values import Currency, Money
from trading_api.ledger.domain import (
    AccountType,
    Balance,
    Book,
    Entry,
    EntryType,
    LedgerAccount,
    credit,
    customer_account,
    debit,
    house_account,
)
from trading_api.modules.wallet.errors import (
    AmountNotExactError,
    AmountNotPositiveError,
    CoolingOffError,
    CurrencyNotSupportedError,
    FundingClosedError,
    FundingUnconfirmedError,
    WalletFrozenError,
)

BASE_CURRENCY_CODE: Final = "USD"
"""The currency of a new wallet and of the figures in one currency."""

FEE_TYPES: Final = frozenset(
    {EntryType.FEE_PERFORMANCE, EntryType.FEE_SUBSCRIPTION, EntryType.FEE_COMMISSION}
)


class FundingKind(StrEnum):
    """Which way money crosses the platform's border."""

    DEPOSIT = "DEPOSIT"
    WITHDRAWAL = "WITHDRAWAL"


class FundingState(StrEnum):
    """Open until the rail's other end is known; then closed, once."""

    UNCONFIRMED = "unconfirmed"
    """A withdrawal that its customer has yet to confirm."""
    PENDING = "pending"
    SETTLED = "settled"
    REFUSED = "refused"
    """By an operator."""
    CANCELED = "canceled"
    """By its customer, before it was confirmed or settled."""
    EXPIRED = "expired"
    """Not confirmed in time."""

    @property
    def is_open(self) -> bool:
        """Tell whether the money may still move."""
        return self in (FundingState.UNCONFIRMED, FundingState.PENDING)


class WalletEventKind(StrEnum):
    """What one event of a wallet's stream tells."""

    ENTRY = "entry"
    BALANCE = "balance"
    TRANSFER = "transfer"


@dataclass(frozen=True, slots=True)
class Wallet:
    """A user's wallet in one book.

    Attributes:
        wallet_id: `wal_…`.
        user_id: Whose it is; a user has one wallet per book.
        book: demo or funded.
        epoch: Changes when the event stream starts anew (restore, reset).
        last_event_sequence: Of the newest event of its stream, 0 before the first.
        created_at: UTC.
        frozen_at: Since when its customer may move nothing, UTC; None while it isn't frozen.
    """

    wallet_id: str
    user_id: str
    book: Book
    epoch: str
    last_event_sequence: int
    created_at: datetime
    frozen_at: datetime | None = None

    def ensure_active(self) -> None:
        """Refuse what a customer asks of a frozen wallet.

        Raises:
            WalletFrozenError: An operator froze it.
        """
        if self.frozen_at is not None:
            raise WalletFrozenError(
                "this wallet is frozen; ask the operator", since=self.frozen_at.isoformat()
            )

    def account(self, currency: Currency) -> LedgerAccount:
        """Describe the wallet's ledger account of a currency; it never goes below zero."""
        return customer_account(self.wallet_id, currency, book=self.book, allows_negative=False)


@dataclass(frozen=True, slots=True)
class WalletSummary:
    """A wallet and what it holds, from one database snapshot.

    Attributes:
        balances: By currency code.
        base: The balance in USD alone; other currencies are not converted.
        lifetime_deposits: Σ deposits in USD.
        lifetime_fees: Σ fees charged in USD, as a positive amount.
    """

    wallet: Wallet
    balances: tuple[Balance, ...]
    base: Balance
    lifetime_deposits: Money
    lifetime_fees: Money


@dataclass(frozen=True, slots=True)
class Funding:
    """A deposit or withdrawal on a rail that does not settle itself.

    Attributes:
        funding_id: `fnd_…`.
        amount: Positive.
        rail: The rail's name.
        hold_id: Of a withdrawal: what reserves the amount until it is closed.
        entry_id: The ledger entry once settled.
        closed_by: The operator who settled or refused it, the customer who canceled it.
        destination: Where a withdrawal goes, in the rail's words; None where none was named.
        not_before: A withdrawal to a new destination settles no sooner, UTC; None for at once.
        confirm_by: While unconfirmed: until when its customer may confirm, UTC.
    """

    funding_id: str
    wallet_id: str
    user_id: str
    kind: FundingKind
    amount: Money
    rail: str
    state: FundingState
    description: str
    created_at: datetime
    hold_id: str | None = None
    entry_id: str | None = None
    closed_at: datetime | None = None
    closed_by: str | None = None
    destination: str | None = None
    not_before: datetime | None = None
    confirm_by: datetime | None = None

    def confirm(self, now: datetime) -> "Funding":
        """Let it go its way; a repeat changes nothing.

        Raises:
            FundingClosedError: It was closed, or the time to confirm is over.
        """
        self.ensure_open()
        if self.state is FundingState.PENDING:
            return self
        if self.confirm_by is not None and now >= self.confirm_by:
            raise self._closed("expired")
        return replace(self, state=FundingState.PENDING)

    def settle(self, *, entry_id: str, operator_id: str, now: datetime) -> "Funding":
        """Close it with the money moved.

        Raises:
            FundingClosedError: It was closed before.
            FundingUnconfirmedError: Its customer has not confirmed it.
            CoolingOffError: Its destination is too new.
        """
        self.ensure_open()
        if self.state is FundingState.UNCONFIRMED:
            raise FundingUnconfirmedError(
                "the customer has not confirmed this withdrawal", funding_id=self.funding_id
            )
        if self.not_before is not None and now < self.not_before:
            until = self.not_before.isoformat()
            raise CoolingOffError(
                f"the destination is new; it may be paid from {until} on",
                funding_id=self.funding_id,
                until=until,
            )
        return replace(
            self,
            state=FundingState.SETTLED,
            entry_id=entry_id,
            closed_at=now,
            closed_by=operator_id,
        )

    def refuse(self, *, operator_id: str, now: datetime) -> "Funding":
        """Close it with nothing moved.

        Raises:
            FundingClosedError: It was closed before.
        """
        self.ensure_open()
        return replace(self, state=FundingState.REFUSED, closed_at=now, closed_by=operator_id)

    def cancel(self, *, by: str, now: datetime) -> "Funding":
        """Close it at its customer's wish; errors as `refuse`."""
        self.ensure_open()
        return replace(self, state=FundingState.CANCELED, closed_at=now, closed_by=by)

    def expire(self, now: datetime) -> "Funding":
        """Close what was not confirmed in time; errors as `refuse`."""
        self.ensure_open()
        return replace(self, state=FundingState.EXPIRED, closed_at=now)

    def ensure_open(self) -> None:
        """Refuse to close it twice.

        Raises:
            FundingClosedError: It was closed before.
        """
        if not self.state.is_open:
            raise self._closed(self.state.value)

    def _closed(self, state: str) -> FundingClosedError:
        return FundingClosedError(
            f"this {self.kind.value.lower()} was {state} before",
            funding_id=self.funding_id,
            state=state,
        )


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to a deposit or withdrawal, frozen for repeats of the request.

    Attributes:
        amount: What it does to the balance: negative for a withdrawal.
        entry_id: None while the rail has not settled.
        funding_id: None on a rail that settles itself.
        running_balance: After the entry; None while pending.
        sequence: Of the posting on the wallet's account; None while pending.
        is_replay: Whether an earlier request with the same key made it.
    """

    wallet_id: str
    type: EntryType
    state: FundingState
    amount: Money
    description: str
    occurred_at: datetime
    entry_id: str | None = None
    funding_id: str | None = None
    running_balance: Money | None = None
    sequence: int | None = None
    is_replay: bool = False

    @property
    def is_settled(self) -> bool:
        """Tell whether the money has moved."""
        return self.state is FundingState.SETTLED

    def freeze(self) -> dict[str, Any]:
        """Return it JSON-ready, for the repeats."""
        currency = self.amount.currency
        return {
            "wallet_id": self.wallet_id,
            "type": self.type.value,
            "state": self.state.value,
            "currency": currency.code,
            "scale": currency.scale,
            "amount_minor": self.amount.minor,
            "description": self.description,
            "occurred_at_us": to_us(self.occurred_at),
            "entry_id": self.entry_id,
            "funding_id": self.funding_id,
            "running_balance_minor": self.running_balance and self.running_balance.minor,
            "sequence": self.sequence,
        }

    @classmethod
    def thaw(cls, frozen: Mapping[str, Any]) -> "Receipt":
        """Rebuild what `freeze` returned, as a replay."""
        currency = Currency(frozen["currency"], frozen["scale"])
        running_minor = frozen["running_balance_minor"]
        return cls(
            wallet_id=frozen["wallet_id"],
            type=EntryType(frozen["type"]),
            state=FundingState(frozen["state"]),
            amount=Money(frozen["amount_minor"], currency),
            description=frozen["description"],
            occurred_at=from_us(frozen["occurred_at_us"]),
            entry_id=frozen["entry_id"],
            funding_id=frozen["funding_id"],
            running_balance=None if running_minor is None else Money(running_minor, currency),
            sequence=frozen["sequence"],
            is_replay=True,
        )


class ActKind(StrEnum):
    """What somebody other than its customer did to a wallet."""

    HOLD_OPENED = "hold_opened"
    HOLD_CAPTURED = "hold_captured"
    HOLD_VOIDED = "hold_voided"
    WALLET_FROZEN = "wallet_frozen"
    WALLET_UNFROZEN = "wallet_unfrozen"
    ENTRY_REVERSED = "entry_reversed"


@dataclass(frozen=True, slots=True)
class OperatorAct:
    """Who did what, kept for good.

    Attributes:
        by: The operator, or the module that asked by itself.
        subject: Of the hold, wallet or entry.
        reason: In the operator's words; empty where none is asked for.
    """

    act_id: str
    by: str
    kind: ActKind
    subject: str
    reason: str
    recorded_at: datetime


def amount_asked(amount: Decimal, currency: Currency) -> Money:
    """Return a request's amount in minor units.

    Raises:
        AmountNotPositiveError: Zero or below.
        AmountNotExactError: More decimals than the currency has.
        AmountOutOfRangeError: Beyond 10¹⁵ minor units.
    """
    if amount <= 0:
        message = "the amount must be above zero"
        raise AmountNotPositiveError(message, errors=[_at_amount("not_positive", message)])
    try:
        return Money.of(amount, currency)
    except AmountOutOfRangeError as error:
        raise AmountOutOfRangeError(
            error.message, errors=[_at_amount("out_of_range", error.message)]
        ) from error
    except InvalidValueError as error:
        message = f"{currency.code} has {currency.scale} decimals; the amount has more"
        raise AmountNotExactError(
            message, errors=[_at_amount("not_exact", message)], scale=currency.scale
        ) from error


def currency_asked(code: str, known: Sequence[Currency]) -> Currency:
    """Return the supported currency of a code.

    Raises:
        CurrencyNotSupportedError: Wallets here do not hold it.
    """
    for each in known:
        if each.code == code:
            return each
    codes = [each.code for each in known]
    message = f"wallets here hold {', '.join(codes)}"
    raise CurrencyNotSupportedError(
        message, errors=[FieldError("currency", "not_supported", message)], supported=codes
    )


def world_account(rail: str, currency: Currency, *, book: Book) -> LedgerAccount:
    """Describe the world outside at the other end of a rail."""
    return house_account(AccountType.EXTERNAL, currency, book=book, name=rail)


def funding_entry(
    kind: FundingKind,
    amount: Money,
    *,
    entry_id: str,
    account: LedgerAccount,
    world: LedgerAccount,
    occurred_at: datetime,
    description: str,
    reference: str | None,
    rail: str,
) -> Entry:
    """Build a deposit (Dr world / Cr customer) or a withdrawal (Dr customer / Cr world)."""
    is_deposit = kind is FundingKind.DEPOSIT
    source, destination = (world, account) if is_deposit else (account, world)
    return Entry(
        entry_id=entry_id,
        type=EntryType.DEPOSIT if is_deposit else EntryType.WITHDRAWAL,
        postings=(debit(source, amount), credit(destination, amount)),
        occurred_at=occurred_at,
        reference=reference,
        description=description,
        details={"rail": rail},
    )


def signed(kind: FundingKind, amount: Money) -> Money:
    """Return what a funding does to the balance."""
    return amount if kind is FundingKind.DEPOSIT else -amount


def _at_amount(rule: str, message: str) -> FieldError:
    return FieldError("amount", rule, message)
