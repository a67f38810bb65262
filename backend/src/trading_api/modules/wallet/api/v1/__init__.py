"""Wallet API v1: parse, one service call, view."""

from trading_api.modules.wallet.api.v1.parts import Services
from trading_api.modules.wallet.api.v1.router import build_router

__all__ = ["Services", "build_router"]
