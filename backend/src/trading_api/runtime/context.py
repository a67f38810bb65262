"""What a request or an event carries along without being passed by hand: ids for tracing."""

import re
from contextvars import ContextVar

REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{8,64}")
"""What a caller's own id of a request may look like; another one gets ours."""

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the HTTP request or WebSocket message being served."""

causation_id: ContextVar[str | None] = ContextVar("causation_id", default=None)
"""Id of the event being handled."""

traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""W3C trace context of the work being done."""
