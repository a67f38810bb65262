"""Wire models of the wallet and their conversion from domain values; amounts are text."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from trading_api.kernel.values import Money
from trading_api.ledger.domain import Balance, EntryType
from trading_api.ledger.engine import StatementLine
from trading_api.modules.wallet.domain import (
    BASE_CURRENCY_CODE,
    Funding,
    Receipt,
    WalletSummary,
)
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
        )


class EntryView(ResponseModel):
    """One ledger entry as it stands on the wallet, or a funding that has not settled yet."""

    entry_id: str | None = Field(description="null while pending")
    funding_id: str | None = Field(None, description="of a rail that does not settle itself")
    wallet_id: str
    type: EntryType
    state: Literal["posted", "pending"]
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
            state="posted" if receipt.is_settled else "pending",
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
    """A deposit or withdrawal on a rail that waits for an operator."""

    funding_id: str
    wallet_id: str
    user_id: str
    kind: Literal["DEPOSIT", "WITHDRAWAL"]
    currency: str
    amount: AmountText
    rail: str
    state: Literal["pending", "settled", "refused"]
    description: str
    entry_id: str | None
    created_at: datetime
    closed_at: datetime | None

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
        )


class NoParameters(RequestModel):
    """A channel of the caller's own wallet needs to be told nothing."""


def wire(view: ResponseModel) -> Any:
    """Return a view JSON-ready, as HTTP would answer it."""
    return view.model_dump(mode="json")


def _text_of(amount: Money | None) -> str | None:
    return None if amount is None else str(amount)
