"""Wire models of the broker in TradingView's shapes, and their conversion from the domain.

Enumerations are TradingView's numbers; instants are milliseconds since 1970 UTC; prices,
quantities and money are JSON numbers written as exact decimals, never through a float.
"""

from trading_api.modules.broker.schemas.accounts import (
    AccountRequest,
    AccountView,
    CashView,
    ConnectionView,
    ControlRequest,
    ControlView,
    EventView,
    NoticeView,
    StateView,
    show,
)
from trading_api.modules.broker.schemas.instruments import (
    InstrumentView,
    QuantityRules,
    QuoteView,
)
from trading_api.modules.broker.schemas.leverage import (
    LeverageInfoView,
    LeveragePreviewView,
    LeverageRequest,
    LeverageView,
)
from trading_api.modules.broker.schemas.orders import (
    BracketsRequest,
    CanceledView,
    CurrentQuotes,
    DoneView,
    DurationRequest,
    DurationView,
    MessageView,
    OrderPatch,
    OrderRequest,
    OrderView,
    PlacedView,
    PositionRequest,
    PreviewRow,
    PreviewSection,
    PreviewView,
)
from trading_api.modules.broker.schemas.positions import (
    ExecutionView,
    PositionView,
)
from trading_api.modules.broker.schemas.wire import (
    SIDE_NUMBERS,
    STATUS_NUMBERS,
    TYPE_NUMBERS,
    ClientOrderId,
    EventKind,
    encode,
    fragment,
)

__all__ = [
    "SIDE_NUMBERS",
    "STATUS_NUMBERS",
    "TYPE_NUMBERS",
    "AccountRequest",
    "AccountView",
    "BracketsRequest",
    "CanceledView",
    "CashView",
    "ClientOrderId",
    "ConnectionView",
    "ControlRequest",
    "ControlView",
    "CurrentQuotes",
    "DoneView",
    "DurationRequest",
    "DurationView",
    "EventKind",
    "EventView",
    "ExecutionView",
    "InstrumentView",
    "LeverageInfoView",
    "LeveragePreviewView",
    "LeverageRequest",
    "LeverageView",
    "MessageView",
    "NoticeView",
    "OrderPatch",
    "OrderRequest",
    "OrderView",
    "PlacedView",
    "PositionRequest",
    "PositionView",
    "PreviewRow",
    "PreviewSection",
    "PreviewView",
    "QuantityRules",
    "QuoteView",
    "StateView",
    "encode",
    "fragment",
    "show",
]
