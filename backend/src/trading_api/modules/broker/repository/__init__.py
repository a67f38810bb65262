"""Rows and domain, both ways, and the proofs that read them."""

from trading_api.modules.broker.repository.store import BrokerRepository

__all__ = ["BrokerRepository"]
