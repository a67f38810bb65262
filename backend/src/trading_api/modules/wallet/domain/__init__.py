"""Wallets, fundings, transfers, exchanges, limits: values and pure rules."""

from trading_api.modules.wallet.domain.exchange import Conversion, Rate
from trading_api.modules.wallet.domain.limits import Limits, WalletLimits
from trading_api.modules.wallet.domain.transfer import Transfer, TransferDirection, TransferState
from trading_api.modules.wallet.domain.wallet import (
    BASE_CURRENCY_CODE,
    FEE_TYPES,
    ActKind,
    Funding,
    FundingKind,
    FundingState,
    OperatorAct,
    Receipt,
    Wallet,
    WalletEventKind,
    WalletSummary,
    amount_asked,
    currency_asked,
    funding_entry,
    signed,
    world_account,
)

__all__ = [
    "BASE_CURRENCY_CODE",
    "FEE_TYPES",
    "ActKind",
    "Conversion",
    "Funding",
    "FundingKind",
    "FundingState",
    "Limits",
    "OperatorAct",
    "Rate",
    "Receipt",
    "Transfer",
    "TransferDirection",
    "TransferState",
    "Wallet",
    "WalletEventKind",
    "WalletLimits",
    "WalletSummary",
    "amount_asked",
    "currency_asked",
    "funding_entry",
    "signed",
    "world_account",
]
