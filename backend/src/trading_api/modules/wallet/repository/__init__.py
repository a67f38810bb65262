"""Queries: rows to domain values and back; no rules, no commit."""

from trading_api.modules.wallet.repository.store import (
    WalletChange,
    WalletEvent,
    WalletRepository,
)

__all__ = ["WalletChange", "WalletEvent", "WalletRepository"]
