"""The platform's error tree. Modules raise subclasses; only ``runtime.http`` knows status codes.

    TradingError
    ├── MalformedRequestError   the bytes can't be read as a request at all        → 400
    ├── InvalidInputError       readable, but a field breaks a rule                → 422
    ├── UnauthenticatedError    nobody, or nobody we can still trust, is asking    → 401
    ├── PermissionDeniedError   known, but not allowed                             → 403
    ├── NotFoundError           not there, or not yours (answered alike)           → 404
    │   └── GoneError           it was there, and is kept no longer                → 410
    ├── ConflictError           the state doesn't allow it                         → 409
    ├── DeniedError             a business rule says no                            → 409
    ├── RateLimitedError        too often                                          → 429
    └── UnavailableError        try again later                                    → 503

A concrete error sets ``code`` (stable, dotted, part of the API) and ``title`` (one line for
people); the message may change at any time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class ErrorCode(StrEnum):
    """Base of each owner's enumeration of stable codes, ``<owner>.<noun>.<reason>``."""


class PlatformErrorCode(ErrorCode):
    """Codes that any module may answer with."""

    REQUEST_MALFORMED = "platform.request.malformed"
    REQUEST_INVALID = "platform.request.invalid"
    REQUEST_TOO_LARGE = "platform.request.too_large"
    REQUEST_UNSUPPORTED_MEDIA_TYPE = "platform.request.unsupported_media_type"
    REQUEST_METHOD_NOT_ALLOWED = "platform.request.method_not_allowed"
    REQUEST_DEADLINE_EXCEEDED = "platform.request.deadline_exceeded"
    REQUEST_CROSS_SITE = "platform.request.cross_site"
    RESOURCE_NOT_FOUND = "platform.resource.not_found"
    PRINCIPAL_UNAUTHENTICATED = "platform.principal.unauthenticated"
    PRINCIPAL_TOKEN_INVALID = "platform.principal.token_invalid"  # noqa: S105
    PRINCIPAL_CARRIERS_DISAGREE = "platform.principal.carriers_disagree"
    PRINCIPAL_FORBIDDEN = "platform.principal.forbidden"
    IDEMPOTENCY_KEY_REUSED = "platform.idempotency.key_reused"
    IDEMPOTENCY_KEY_INVALID = "platform.idempotency.key_invalid"
    IDEMPOTENCY_IN_PROGRESS = "platform.idempotency.in_progress"
    RATE_LIMITED = "platform.rate.limited"
    AMOUNT_OUT_OF_RANGE = "platform.amount.out_of_range"
    VALUE_INVALID = "platform.value.invalid"
    MODULE_UNAVAILABLE = "platform.module.unavailable"
    DATABASE_UNAVAILABLE = "platform.database.unavailable"
    DATABASE_BUSY = "platform.database.busy"
    STORAGE_FULL = "platform.storage.full"
    INTERNAL = "platform.internal"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field that broke one rule.

    Attributes:
        field: path of the field as the client wrote it, dotted (``bracket.stop_loss``); ``""``
            means the request as a whole.
        rule: stable name of the rule, such as ``missing`` or ``greater_than``.
        message: what the rule wants, for people.
    """

    field: str
    rule: str
    message: str


class TradingError(Exception):
    """Anything the platform refuses on purpose.

    Args:
        message: what happened and what to do next, for people; never a secret.
        errors: the fields at fault, where fields are at fault.
        retry_after_seconds: when asking again makes sense; None where it does not help.
        context: facts for the log and for the problem body, JSON-ready.
    """

    code: ClassVar[ErrorCode] = PlatformErrorCode.INTERNAL
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        message: str,
        *,
        errors: Sequence[FieldError] = (),
        retry_after_seconds: int | None = None,
        **context: object,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.errors = tuple(errors)
        self.retry_after_seconds = retry_after_seconds
        self.context = context


class MalformedRequestError(TradingError):
    """The bytes can't be read as a request."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.REQUEST_MALFORMED
    title: ClassVar[str] = "Malformed request"


class InvalidInputError(TradingError):
    """A field breaks a rule; nothing changed."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.REQUEST_INVALID
    title: ClassVar[str] = "Invalid input"


class UnauthenticatedError(TradingError):
    """Nobody is asking, or nobody we can still trust."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.PRINCIPAL_UNAUTHENTICATED
    title: ClassVar[str] = "Sign in first"


class PermissionDeniedError(TradingError):
    """The principal is known, but lacks the scope or role."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.PRINCIPAL_FORBIDDEN
    title: ClassVar[str] = "Not allowed"


class NotFoundError(TradingError):
    """Not there, or not the principal's; the two are answered alike."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.RESOURCE_NOT_FOUND
    title: ClassVar[str] = "Not found"


class GoneError(NotFoundError):
    """It was there, and is kept no longer."""

    title: ClassVar[str] = "Kept no longer"


class ConflictError(TradingError):
    """The present state doesn't allow the request."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.IDEMPOTENCY_IN_PROGRESS
    title: ClassVar[str] = "Conflict"


class DeniedError(TradingError):
    """A business rule says no; the numbers are in the context."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.VALUE_INVALID
    title: ClassVar[str] = "Denied"


class RateLimitedError(TradingError):
    """Too many requests of this class."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.RATE_LIMITED
    title: ClassVar[str] = "Too many requests"


class UnavailableError(TradingError):
    """Something this needs isn't there right now; the request may be repeated."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.MODULE_UNAVAILABLE
    title: ClassVar[str] = "Temporarily unavailable"


class IdempotencyKeyReusedError(InvalidInputError):
    """The key was used before for another request."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.IDEMPOTENCY_KEY_REUSED
    title: ClassVar[str] = "Idempotency key was used for another request"


class IdempotencyKeyInvalidError(InvalidInputError):
    """The key is empty, too long or holds other than printable ASCII."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.IDEMPOTENCY_KEY_INVALID
    title: ClassVar[str] = "Idempotency key is not usable"


class RequestInProgressError(ConflictError):
    """The first request with this key is still running."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.IDEMPOTENCY_IN_PROGRESS
    title: ClassVar[str] = "The first request with this key is still running"


class AmountOutOfRangeError(InvalidInputError):
    """The amount is beyond 10^15 minor units."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.AMOUNT_OUT_OF_RANGE
    title: ClassVar[str] = "Amount out of range"


class InvalidValueError(InvalidInputError):
    """A number doesn't fit its scale, or a currency isn't known."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.VALUE_INVALID
    title: ClassVar[str] = "Invalid value"


class TokenInvalidError(UnauthenticatedError):
    """The token is not ours, expired, revoked or of another kind."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.PRINCIPAL_TOKEN_INVALID
    title: ClassVar[str] = "Token not accepted"


class CarriersDisagreeError(MalformedRequestError):
    """Two credentials in one request name different principals."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.PRINCIPAL_CARRIERS_DISAGREE
    title: ClassVar[str] = "Two credentials disagree"


class CrossSiteRequestError(PermissionDeniedError):
    """A cookie-carried unsafe request came from another site."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.REQUEST_CROSS_SITE
    title: ClassVar[str] = "Cross-site request refused"


class DeadlineExceededError(UnavailableError):
    """The caller's deadline passed before the work began; nothing changed."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.REQUEST_DEADLINE_EXCEEDED
    title: ClassVar[str] = "Deadline exceeded"


class DatabaseUnavailableError(UnavailableError):
    """The database can't be reached; nothing is known to have changed."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.DATABASE_UNAVAILABLE
    title: ClassVar[str] = "Database unavailable"


class DatabaseBusyError(UnavailableError):
    """Another writer held the database for too long; nothing changed."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.DATABASE_BUSY
    title: ClassVar[str] = "Database busy"


class StorageFullError(UnavailableError):
    """The disk under the database is full; nothing changed, reads go on."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.STORAGE_FULL
    title: ClassVar[str] = "Storage full"
