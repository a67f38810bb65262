"""Use cases: each public method is one atomic unit and returns after its commit."""

from trading_api.modules.broker.service.accounts import AccountService
from trading_api.modules.broker.service.matching import MatchingService
from trading_api.modules.broker.service.orders import OrderService
from trading_api.modules.broker.service.positions import PositionService
from trading_api.modules.broker.service.reports import ReportService

__all__ = ["AccountService", "MatchingService", "OrderService", "PositionService", "ReportService"]
