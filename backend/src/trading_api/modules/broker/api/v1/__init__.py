"""Broker API v1: parse, one service call, view.

The account is named by ``accountId`` in the query or the header ``X-Account-Id``; without either
it is the user's first. Somebody else's account is answered like one that doesn't exist.
"""

from trading_api.modules.broker.api.v1.router import build_router

__all__ = ["build_router"]
