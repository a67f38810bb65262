"""WebSockets: channels that modules declare, and the hub that carries their frames."""

from trading_api.runtime.ws.channel import (
    Channel,
    EventChannel,
    PriceChannel,
    Snapshot,
    StreamEvent,
    topic_of,
)
from trading_api.runtime.ws.hub import Hub
from trading_api.runtime.ws.limits import CloseCode, Limits
from trading_api.runtime.ws.metrics import WebSocketMetrics
from trading_api.runtime.ws.socket import WebSocketEndpoint

__all__ = [
    "Channel",
    "CloseCode",
    "EventChannel",
    "Hub",
    "Limits",
    "PriceChannel",
    "Snapshot",
    "StreamEvent",
    "WebSocketEndpoint",
    "WebSocketMetrics",
    "topic_of",
]
