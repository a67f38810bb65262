"""What a request or an event carries along without being passed by hand: ids for tracing."""

from contextvars import ContextVar

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the HTTP request or WebSocket message being served."""

causation_id: ContextVar[str | None] = ContextVar("causation_id", default=None)
"""Id of the event being handled."""

traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""W3C trace context of the work being done."""
