"""Wire models of the wallet and their conversion from domain values; amounts are text."""

import csv
import io
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from trading_api.kernel.values import Money, decimal_of
from trading_api.ledger.domain import Balance, EntryType, Hold, PostedEntry
from trading_api.ledger.engine import StatementLine
from trading_api.modules.wallet.domain import (
    BASE_CURRENCY_CODE,
    ActKind,
    Funding,
    FundingState,
    OperatorAct,
    Receipt,
    Transfer,
    Wallet,
    WalletSummary,
)
from trading_api.modules.wallet.domain.exchange import price_text
from trading_api.modules.wallet.service.exchange import Exchanged, Offer
from trading_api.modules.wallet.service.operations import TrialBalance
from trading_api.modules.wallet.service.statements import Section, Statement
from trading_api.runtime.http.wire import RequestModel, ResponseModel, WireDecimal, text

AmountText = Annotated[
    str,
    Field(
        pattern=r"^-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,8})?$",
        description="decimal text with the currency's decimals",
        examples=["100.00"],
    ),
]


class FundingRequest(RequestModel):
    """Money to take in or to pay out."""

    amount: WireDecimal | None = Field(
        None,
        description='positive; best as text such as "100.00", at most the currency\'s decimals',
    )
    amount_usd: WireDecimal | None = Field(
        None, description="the same for USD, as some clients name it; not beside `amount`"
    )
    currency: text(minimum=1, maximum=12) = Field(  # type: ignore[valid-type]
        BASE_CURRENCY_CODE, description="code such as USD"
    )
    description: text(minimum=0, maximum=200) = Field(  # type: ignore[valid-type]
        "", description="shown in the list of transactions"
    )

    destination: text(minimum=1, maximum=128) | None = Field(  # type: ignore[valid-type]
        None, description="of a withdrawal: where to, in the rail's words, such as an IBAN"
    )

    @model_validator(mode="after")
    def _one_amount(self) -> "FundingRequest":
        if (self.amount is None) == (self.amount_usd is None):
            raise ValueError("send either amount or amount_usd")
        if self.amount_usd is not None and self.currency != BASE_CURRENCY_CODE:
            raise ValueError("amount_usd is in USD; send amount with another currency")
        return self

    @property
    def asked(self) -> Decimal:
        """Return the amount by whichever name it came."""
        found = self.amount if self.amount is not None else self.amount_usd
        assert found is not None, "validated"
        return found


class BalanceView(ResponseModel):
    """What a wallet holds of one currency: total = held + available."""

    currency: str
    total: AmountText
    held: AmountText
    available: AmountText

    @classmethod
    def of(cls, balance: Balance) -> "BalanceView":
        """Translate a balance."""
        return cls(
            currency=balance.total.currency.code,
            total=str(balance.total),
            held=str(balance.held),
            available=str(balance.available),
        )


class WalletView(ResponseModel):
    """A user's wallet."""

    wallet_id: str
    user_id: str
    book: Literal["demo", "funded"] = Field(description="`demo` is play money")
    balances: list[BalanceView]
    balance_usd: AmountText = Field(
        description="the USD balance alone; other currencies are not converted"
    )
    reserved_usd: AmountText = Field(description="what pending holds reserve of it")
    lifetime_deposits: AmountText = Field(description="all deposits in USD")
    lifetime_fees: AmountText = Field(description="all fees in USD, as a positive amount")
    created_at: datetime
    frozen: bool = Field(description="whether an operator stopped it: nothing may be moved")

    @classmethod
    def of(cls, summary: WalletSummary) -> "WalletView":
        """Translate a summary."""
        return cls(
            wallet_id=summary.wallet.wallet_id,
            user_id=summary.wallet.user_id,
            book=summary.wallet.book.value,
            balances=[BalanceView.of(balance) for balance in summary.balances],
            balance_usd=str(summary.base.total),
            reserved_usd=str(summary.base.held),
            lifetime_deposits=str(summary.lifetime_deposits),
            lifetime_fees=str(summary.lifetime_fees),
            created_at=summary.wallet.created_at,
            frozen=summary.wallet.frozen_at is not None,
        )


class EntryView(ResponseModel):
    """One ledger entry as it stands on the wallet, or a funding that has not settled yet."""

    entry_id: str | None = Field(description="null while pending")
    funding_id: str | None = Field(None, description="of a rail that does not settle itself")
    wallet_id: str
    type: EntryType
    state: Literal["posted", "pending", "unconfirmed"] = Field(
        description="`unconfirmed`: a withdrawal that its customer has yet to confirm"
    )
    currency: str
    amount: AmountText = Field(description="what it did to the balance: negative took from it")
    running_balance: AmountText | None = Field(description="after it; null while pending")
    sequence: int | None = Field(
        description="gapless number on the wallet's account of this currency; null while pending"
    )
    description: str
    reference: str | None = Field(None, description="what caused it, where something else did")
    occurred_at: datetime

    @classmethod
    def of_receipt(cls, receipt: Receipt) -> "EntryView":
        """Translate the answer to a deposit or withdrawal."""
        return cls(
            entry_id=receipt.entry_id,
            funding_id=receipt.funding_id,
            wallet_id=receipt.wallet_id,
            type=receipt.type,
            state=_entry_state(receipt),
            currency=receipt.amount.currency.code,
            amount=str(receipt.amount),
            running_balance=_text_of(receipt.running_balance),
            sequence=receipt.sequence,
            description=receipt.description,
            occurred_at=receipt.occurred_at,
        )

    @classmethod
    def of_line(cls, line: StatementLine, *, wallet_id: str) -> "EntryView":
        """Translate a line of the ledger."""
        return cls(
            entry_id=line.entry_id,
            wallet_id=wallet_id,
            type=line.type,
            state="posted",
            currency=line.change.currency.code,
            amount=str(line.change),
            running_balance=str(line.running_balance),
            sequence=line.sequence,
            description=line.description,
            reference=line.reference,
            occurred_at=line.occurred_at,
        )


class FundingView(ResponseModel):
    """A deposit or withdrawal that waits, or how it ended."""

    funding_id: str
    wallet_id: str
    user_id: str
    kind: Literal["DEPOSIT", "WITHDRAWAL"]
    currency: str
    amount: AmountText
    rail: str
    state: Literal["unconfirmed", "pending", "settled", "refused", "canceled", "expired"]
    description: str
    entry_id: str | None
    created_at: datetime
    closed_at: datetime | None
    destination: str | None = Field(description="of a withdrawal, where it names one")
    not_before: datetime | None = Field(description="until then the destination cools off")
    confirm_by: datetime | None = Field(description="until then its customer may confirm it")

    @classmethod
    def of(cls, funding: Funding) -> "FundingView":
        """Translate a funding."""
        return cls(
            funding_id=funding.funding_id,
            wallet_id=funding.wallet_id,
            user_id=funding.user_id,
            kind=funding.kind.value,
            currency=funding.amount.currency.code,
            amount=str(funding.amount),
            rail=funding.rail,
            state=funding.state.value,
            description=funding.description,
            entry_id=funding.entry_id,
            created_at=funding.created_at,
            closed_at=funding.closed_at,
            destination=funding.destination,
            not_before=funding.not_before,
            confirm_by=funding.confirm_by,
        )


EndText = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9_]{1,64}$"),
    Field(description="`wallet`, the wallet's id or a trading account's id"),
]
ClientId = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,64}$")]


class TransferRequest(RequestModel):
    """Money to move between one's wallet and one of one's trading accounts."""

    from_: EndText = Field(alias="from")
    to: EndText
    amount: WireDecimal = Field(description="positive, at most the currency's decimals")
    currency: text(minimum=1, maximum=12) = Field(  # type: ignore[valid-type]
        BASE_CURRENCY_CODE, description="code such as USD, of both ends"
    )
    description: text(minimum=0, maximum=200) = Field(  # type: ignore[valid-type]
        "", description="shown in the lists"
    )
    client_transfer_id: ClientId | None = Field(
        None, description="your own id; a repeat with the same body finds the first transfer"
    )


class TransferView(ResponseModel):
    """A transfer between a wallet and a trading account."""

    transfer_id: str
    client_transfer_id: str | None
    wallet_id: str
    from_: str = Field(alias="from")
    to: str
    currency: str
    amount: AmountText
    state: Literal["pending", "completed", "failed", "expired"] = Field(
        description="only `pending` ever changes; `failed` and `expired` moved nothing"
    )
    failure_code: str | None = Field(description="stable code of why nothing moved")
    failure: dict[str, str] | None = Field(description="the numbers to it")
    description: str
    entry_id: str | None = Field(description="the wallet's ledger entry")
    created_at: datetime
    closed_at: datetime | None

    model_config = ConfigDict(populate_by_name=True, frozen=True)

    @classmethod
    def of(cls, transfer: Transfer) -> "TransferView":
        """Translate a transfer; its inner steps are all pending."""
        is_closed = not transfer.is_open
        return cls(
            transfer_id=transfer.transfer_id,
            client_transfer_id=transfer.client_transfer_id,
            wallet_id=transfer.wallet_id,
            from_=transfer.source,
            to=transfer.destination,
            currency=transfer.amount.currency.code,
            amount=str(transfer.amount),
            state=transfer.state.value if is_closed else "pending",
            failure_code=transfer.failure_code if is_closed else None,
            failure=dict(transfer.failure) if is_closed and transfer.failure else None,
            description=transfer.description,
            entry_id=transfer.entry_id,
            created_at=transfer.created_at,
            closed_at=transfer.closed_at,
        )


class ExchangeRequest(RequestModel):
    """Money of one currency to sell for another within one's wallet."""

    from_: text(minimum=1, maximum=12) = Field(  # type: ignore[valid-type]
        alias="from", description="code of the currency to sell"
    )
    to: text(minimum=1, maximum=12) = Field(  # type: ignore[valid-type]
        description="code of the currency to buy"
    )
    amount: WireDecimal = Field(description="to sell; positive")
    minimum: WireDecimal | None = Field(
        None, description="the least to receive; less refuses the exchange"
    )
    description: text(minimum=0, maximum=200) = ""  # type: ignore[valid-type]


class ExchangeView(ResponseModel):
    """An exchange as it was made; both legs stand in one ledger entry."""

    entry_id: str
    wallet_id: str
    from_: str = Field(alias="from")
    to: str
    sold: AmountText
    received: AmountText
    spread: AmountText = Field(description="kept by the house, in the currency received")
    price: str = Field(description="received per unit sold, spread included")
    instrument: str = Field(description="whose quote it was made at")
    occurred_at: datetime

    model_config = ConfigDict(populate_by_name=True, frozen=True)

    @classmethod
    def of(cls, done: Exchanged) -> "ExchangeView":
        """Translate an exchange."""
        return cls(
            entry_id=done.entry_id,
            wallet_id=done.wallet_id,
            from_=done.sold.currency.code,
            to=done.received.currency.code,
            sold=str(done.sold),
            received=str(done.received),
            spread=str(done.spread),
            price=done.price,
            instrument=done.instrument,
            occurred_at=done.occurred_at,
        )


class RateView(ResponseModel):
    """What an exchange of a pair is made at right now."""

    base: str
    quote: str
    bid: str = Field(description="what one unit of `base` sells for, in `quote`")
    ask: str = Field(description="what one unit of `base` costs")
    instrument: str
    at: datetime
    fresh: bool = Field(description="whether it is young enough to exchange at")

    @classmethod
    def of(cls, offer: Offer) -> "RateView":
        """Translate an offer."""
        return cls(
            base=offer.rate.base,
            quote=offer.rate.quote,
            bid=price_text(offer.bid),
            ask=price_text(offer.ask),
            instrument=offer.rate.instrument,
            at=offer.rate.at,
            fresh=offer.is_fresh,
        )


class FeeView(ResponseModel):
    """What one kind of request costs."""

    operation: Literal["DEPOSIT", "WITHDRAWAL", "TRANSFER", "EXCHANGE"]
    kind: Literal["free", "ppm_of_price"]
    ppm: int = Field(description="millionths of the price, on top of the market's spread")
    description: str


class SectionView(ResponseModel):
    """One currency of a statement: opening + credits - debits = closing."""

    currency: str
    opening: AmountText
    credits: AmountText
    debits: AmountText
    closing: AmountText
    proven: bool = Field(description="the sums lead from opening to closing, line by line")
    entries: list[EntryView] = Field(description="oldest first")

    @classmethod
    def of(cls, section: Section, *, wallet_id: str) -> "SectionView":
        """Translate a section."""
        return cls(
            currency=section.currency.code,
            opening=str(section.opening),
            credits=str(section.credits),
            debits=str(section.debits),
            closing=str(section.closing),
            proven=section.is_proven,
            entries=[EntryView.of_line(line, wallet_id=wallet_id) for line in section.lines],
        )


class StatementView(ResponseModel):
    """What a wallet held, what moved, what it holds."""

    wallet_id: str
    book: Literal["demo", "funded"]
    from_: datetime = Field(alias="from")
    to: datetime
    sections: list[SectionView]

    model_config = ConfigDict(populate_by_name=True, frozen=True)

    @classmethod
    def of(cls, statement: Statement) -> "StatementView":
        """Translate a statement."""
        wallet = statement.wallet
        return cls(
            wallet_id=wallet.wallet_id,
            book=wallet.book.value,
            from_=statement.from_,
            to=statement.to,
            sections=[
                SectionView.of(each, wallet_id=wallet.wallet_id) for each in statement.sections
            ],
        )


def csv_of(statement: Statement) -> str:
    """Write a statement as CSV: per currency an opening row, the entries, sums and a closing row.

    Text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(
        ["row", "currency", "time", "sequence", "type", "amount", "balance", "entry_id",
         "reference", "description"]
    )  # fmt: skip
    for each in statement.sections:
        code = each.currency.code
        writer.writerow(
            ["opening", code, statement.from_.isoformat(), "", "", "", each.opening, "", "", ""]
        )
        for line in each.lines:
            writer.writerow(
                [
                    "entry",
                    code,
                    line.recorded_at.isoformat(),
                    line.sequence,
                    line.type.value,
                    line.change,
                    line.running_balance,
                    line.entry_id,
                    _harmless(line.reference or ""),
                    _harmless(line.description),
                ]
            )
        end = statement.to.isoformat()
        writer.writerow(["credits", code, end, "", "", each.credits, "", "", "", ""])
        writer.writerow(["debits", code, end, "", "", -each.debits, "", "", "", ""])
        proof = "proven" if each.is_proven else "NOT PROVEN"
        writer.writerow(["closing", code, end, "", "", "", each.closing, "", "", proof])
    return out.getvalue()


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


class HoldRequestBody(RequestModel):
    """Money to set aside on a user's wallet."""

    user_id: text(minimum=1, maximum=64)  # type: ignore[valid-type]
    amount: WireDecimal
    currency: text(minimum=1, maximum=12) = BASE_CURRENCY_CODE  # type: ignore[valid-type]
    hold_id: Annotated[str, StringConstraints(pattern=r"^hld_[a-z0-9_]{1,60}$")] | None = Field(
        None, description="your own id; a repeat with the same body finds the first hold"
    )
    reference: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,64}$")] | None = Field(
        None, description="what it is for"
    )
    expires_in_seconds: Annotated[int, Field(ge=1, le=90 * 86400)] | None = Field(
        None, description="7 days where left out, 90 at most"
    )


class CaptureRequest(RequestModel):
    """How a hold is charged."""

    amount: WireDecimal | None = Field(None, description="at most what is held; all by default")
    type: Literal["FEE_PERFORMANCE", "FEE_SUBSCRIPTION", "FEE_COMMISSION", "ADJUSTMENT_ADMIN"] = (
        "FEE_SUBSCRIPTION"
    )
    description: text(minimum=0, maximum=200) = ""  # type: ignore[valid-type]


class HoldView(ResponseModel):
    """A reservation on a wallet."""

    hold_id: str
    account_id: str
    currency: str
    amount: AmountText
    captured: AmountText
    state: Literal["pending", "posted", "voided", "expired"]
    reference: str | None
    entry_id: str | None
    expires_at: datetime | None
    opened_at: datetime
    closed_at: datetime | None

    @classmethod
    def of(cls, hold: Hold) -> "HoldView":
        """Translate a hold."""
        request = hold.request
        return cls(
            hold_id=request.hold_id,
            account_id=request.account_id,
            currency=request.amount.currency.code,
            amount=str(request.amount),
            captured=str(Money(hold.captured_minor, request.amount.currency)),
            state=hold.state.value,
            reference=request.reference,
            entry_id=hold.entry_id,
            expires_at=request.expires_at,
            opened_at=request.opened_at,
            closed_at=hold.closed_at,
        )


class PostingView(ResponseModel):
    """One line of an entry, as the books have it."""

    account_id: str
    side: Literal["DEBIT", "CREDIT"]
    currency: str
    amount: AmountText


class LedgerEntryView(ResponseModel):
    """A whole entry, for operators."""

    entry_id: str
    type: EntryType
    book: Literal["demo", "funded"]
    reverses_entry_id: str | None
    reference: str | None
    description: str
    postings: list[PostingView]
    occurred_at: datetime
    recorded_at: datetime

    @classmethod
    def of(cls, posted: PostedEntry) -> "LedgerEntryView":
        """Translate an entry."""
        entry = posted.entry
        return cls(
            entry_id=entry.entry_id,
            type=entry.type,
            book=posted.book.value,
            reverses_entry_id=entry.reverses_entry_id,
            reference=entry.reference,
            description=entry.description,
            postings=[
                PostingView(
                    account_id=each.account_id,
                    side=each.side.value,
                    currency=each.amount.currency.code,
                    amount=str(each.amount),
                )
                for each in entry.postings
            ],
            occurred_at=entry.occurred_at,
            recorded_at=posted.recorded_at,
        )


class ReasonRequest(RequestModel):
    """Why an operator does it."""

    reason: text(minimum=1, maximum=200)  # type: ignore[valid-type]


class FrozenView(ResponseModel):
    """Whether a wallet may be used."""

    wallet_id: str
    user_id: str
    frozen: bool
    frozen_at: datetime | None

    @classmethod
    def of(cls, wallet: Wallet) -> "FrozenView":
        """Translate a wallet."""
        return cls(
            wallet_id=wallet.wallet_id,
            user_id=wallet.user_id,
            frozen=wallet.frozen_at is not None,
            frozen_at=wallet.frozen_at,
        )


class TotalsView(ResponseModel):
    """Debits and credits of one type of account."""

    type: str
    debit: AmountText
    credit: AmountText


class TrialBalanceView(ResponseModel):
    """A book and currency; `difference` is zero or the books are wrong."""

    book: Literal["demo", "funded"]
    currency: str
    debit: AmountText
    credit: AmountText
    difference: AmountText
    by_type: list[TotalsView]

    @classmethod
    def of(cls, found: TrialBalance) -> "TrialBalanceView":
        """Translate a trial balance."""

        def amount(minor: int) -> str:
            return f"{decimal_of(minor, found.scale):f}"

        return cls(
            book=found.book.value,
            currency=found.currency,
            debit=amount(found.debit_minor),
            credit=amount(found.credit_minor),
            difference=amount(found.debit_minor - found.credit_minor),
            by_type=[
                TotalsView(
                    type=type_.value,
                    debit=amount(each.debit_minor),
                    credit=amount(each.credit_minor),
                )
                for type_, each in found.totals.items()
            ],
        )


class OperatorActView(ResponseModel):
    """Who did what."""

    act_id: str
    by: str = Field(description="the operator, or the module that asked by itself")
    kind: ActKind
    subject: str = Field(description="the hold, wallet or entry")
    reason: str
    recorded_at: datetime

    @classmethod
    def of(cls, act: OperatorAct) -> "OperatorActView":
        """Build from the domain."""
        return cls(
            act_id=act.act_id,
            by=act.by,
            kind=act.kind,
            subject=act.subject,
            reason=act.reason,
            recorded_at=act.recorded_at,
        )


class ViolationView(ResponseModel):
    """One broken invariant."""

    id: str
    subject: str
    message: str


class VerifyView(ResponseModel):
    """What a proof of all wallets from scratch found."""

    ok: bool
    violations: list[ViolationView]
    not_checked: list[str] = Field(description="what could not be told, and why")
    checked_at: datetime


class NoParameters(RequestModel):
    """A channel of the caller's own wallet needs to be told nothing."""


def wire(view: ResponseModel) -> Any:
    """Return a view JSON-ready, as HTTP would answer it."""
    return view.model_dump(mode="json", by_alias=True)


def _entry_state(receipt: Receipt) -> Literal["posted", "pending", "unconfirmed"]:
    if receipt.is_settled:
        return "posted"
    return "unconfirmed" if receipt.state is FundingState.UNCONFIRMED else "pending"


def _text_of(amount: Money | None) -> str | None:
    return None if amount is None else str(amount)
