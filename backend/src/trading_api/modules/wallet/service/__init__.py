"""Use cases: each public method is one atomic unit and returns after its commit."""

from trading_api.modules.wallet.service.exchange import ExchangeService
from trading_api.modules.wallet.service.operations import OperationsService, Verified
from trading_api.modules.wallet.service.statements import StatementService
from trading_api.modules.wallet.service.till import Till, WakeStream, stream_of
from trading_api.modules.wallet.service.transfers import TransferService
from trading_api.modules.wallet.service.wallets import (
    TransactionPage,
    WalletService,
    WalletView,
    WithdrawalPolicy,
)

__all__ = [
    "ExchangeService",
    "OperationsService",
    "StatementService",
    "Till",
    "TransactionPage",
    "TransferService",
    "Verified",
    "WakeStream",
    "WalletService",
    "WalletView",
    "WithdrawalPolicy",
    "stream_of",
]
