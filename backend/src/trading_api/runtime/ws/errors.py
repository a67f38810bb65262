"""Errors of a socket's own operations.

TradingError
├── MalformedRequestError
│   ├── MessageUnreadableError       not JSON, not text, or not an envelope
│   └── OperationUnknownError        no such operation on this socket
├── NotFoundError
│   └── SubscriptionNotFoundError    unsubscribing what isn't subscribed
├── DeniedError
│   └── TopicsExceededError          too many topics on one socket
├── RateLimitedError
│   └── MessageRateExceededError     too many messages a second
└── UnauthenticatedError
    └── PrincipalChangedError        a refresh with another user's token
"""

from typing import ClassVar

from trading_api.kernel.errors import (
    DeniedError,
    ErrorCode,
    MalformedRequestError,
    NotFoundError,
    RateLimitedError,
    UnauthenticatedError,
)


class WebSocketErrorCode(ErrorCode):
    """Stable codes of error frames that no module declares."""

    MESSAGE_UNREADABLE = "platform.websocket.message_unreadable"
    OPERATION_UNKNOWN = "platform.websocket.operation_unknown"
    SUBSCRIPTION_NOT_FOUND = "platform.websocket.subscription_not_found"
    TOPICS_EXCEEDED = "platform.websocket.topics_exceeded"
    RATE_EXCEEDED = "platform.websocket.rate_exceeded"
    PRINCIPAL_CHANGED = "platform.websocket.principal_changed"


class MessageUnreadableError(MalformedRequestError):
    """The message isn't JSON text of the envelope's shape."""

    code: ClassVar[ErrorCode] = WebSocketErrorCode.MESSAGE_UNREADABLE
    title: ClassVar[str] = "Message can't be read"


class OperationUnknownError(MalformedRequestError):
    """No operation of that name on this socket."""

    code: ClassVar[ErrorCode] = WebSocketErrorCode.OPERATION_UNKNOWN
    title: ClassVar[str] = "Unknown operation"


class SubscriptionNotFoundError(NotFoundError):
    """There is no such subscription on this socket."""

    code: ClassVar[ErrorCode] = WebSocketErrorCode.SUBSCRIPTION_NOT_FOUND
    title: ClassVar[str] = "Not subscribed"


class TopicsExceededError(DeniedError):
    """The socket has as many subscriptions as it may have."""

    code: ClassVar[ErrorCode] = WebSocketErrorCode.TOPICS_EXCEEDED
    title: ClassVar[str] = "Too many topics"


class MessageRateExceededError(RateLimitedError):
    """More messages a second than a socket may send."""

    code: ClassVar[ErrorCode] = WebSocketErrorCode.RATE_EXCEEDED
    title: ClassVar[str] = "Too many messages"


class PrincipalChangedError(UnauthenticatedError):
    """A socket stays with the user who opened it."""

    code: ClassVar[ErrorCode] = WebSocketErrorCode.PRINCIPAL_CHANGED
    title: ClassVar[str] = "Token of another user"
