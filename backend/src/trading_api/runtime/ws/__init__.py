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

__all__ = [
    "Channel",
    "EventChannel",
    "Hub",
    "PriceChannel",
    "Snapshot",
    "StreamEvent",
    "topic_of",
]
