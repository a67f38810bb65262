"""What auth refuses.

UnauthenticatedError
├── CredentialsInvalidError   unknown user or wrong password, answered alike
├── RefreshTokenInvalidError  not one of ours, or the wrong device
├── RefreshTokenExpiredError  idle for too long, or the session's end has come
├── RefreshTokenReusedError   used before; its whole session is ended
└── SessionEndedError         logged out, revoked or disabled
PermissionDeniedError
├── ApiKeyScopeError          more than its owner may give
└── UserDisabledError         right password, but switched off by an operator
NotFoundError
├── ApiKeyNotFoundError       not there, revoked, or not this user's
├── SessionNotFoundError
└── UserNotFoundError         operators' commands only
ConflictError
├── ApiKeyLimitError
└── EmailTakenError
InvalidInputError
├── ApiKeyRefusedError        it would have ended before it began
├── EmailInvalidError
└── PasswordRefusedError      too short, too long, or known to guessers
RateLimitedError
└── LoginThrottledError
UnavailableError
└── PasswordPoolBusyError
"""

from typing import ClassVar

from trading_api.kernel.errors import (
    ConflictError,
    ErrorCode,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    UnauthenticatedError,
    UnavailableError,
)


class AuthErrorCode(ErrorCode):
    """Stable codes of this module."""

    CREDENTIALS_INVALID = "auth.credentials.invalid"
    REFRESH_TOKEN_INVALID = "auth.refresh_token.invalid"  # noqa: S105
    REFRESH_TOKEN_EXPIRED = "auth.refresh_token.expired"  # noqa: S105
    REFRESH_TOKEN_REUSED = "auth.refresh_token.reused"  # noqa: S105
    SESSION_ENDED = "auth.session.ended"
    SESSION_NOT_FOUND = "auth.session.not_found"
    USER_DISABLED = "auth.user.disabled"
    USER_NOT_FOUND = "auth.user.not_found"
    EMAIL_TAKEN = "auth.email.taken"
    EMAIL_INVALID = "auth.email.invalid"
    PASSWORD_REFUSED = "auth.password.refused"  # noqa: S105
    PASSWORD_POOL_BUSY = "auth.password.busy"  # noqa: S105
    API_KEY_NOT_FOUND = "auth.api_key.not_found"
    API_KEY_SCOPE_REFUSED = "auth.api_key.scope_refused"
    API_KEY_LIMIT = "auth.api_key.limit"
    API_KEY_REFUSED = "auth.api_key.refused"
    LOGIN_THROTTLED = "auth.login.throttled"


class CredentialsInvalidError(UnauthenticatedError):
    """The e-mail address and password don't belong together; which one is wrong isn't told."""

    code: ClassVar[ErrorCode] = AuthErrorCode.CREDENTIALS_INVALID
    title: ClassVar[str] = "Wrong e-mail address or password"


class RefreshTokenInvalidError(UnauthenticatedError):
    """The refresh token was never issued, or not to this device."""

    code: ClassVar[ErrorCode] = AuthErrorCode.REFRESH_TOKEN_INVALID
    title: ClassVar[str] = "Refresh token not accepted"


class RefreshTokenExpiredError(UnauthenticatedError):
    """The session wasn't used for too long, or its end has come."""

    code: ClassVar[ErrorCode] = AuthErrorCode.REFRESH_TOKEN_EXPIRED
    title: ClassVar[str] = "Session expired"


class RefreshTokenReusedError(UnauthenticatedError):
    """A refresh token came a second time, so somebody has a copy; the session is ended."""

    code: ClassVar[ErrorCode] = AuthErrorCode.REFRESH_TOKEN_REUSED
    title: ClassVar[str] = "Refresh token used before"


class SessionEndedError(UnauthenticatedError):
    """The session was logged out or revoked."""

    code: ClassVar[ErrorCode] = AuthErrorCode.SESSION_ENDED
    title: ClassVar[str] = "Session ended"


class SessionNotFoundError(NotFoundError):
    """No such session of this user."""

    code: ClassVar[ErrorCode] = AuthErrorCode.SESSION_NOT_FOUND
    title: ClassVar[str] = "Session not found"


class UserDisabledError(PermissionDeniedError):
    """The user was switched off; only told to who knows the password."""

    code: ClassVar[ErrorCode] = AuthErrorCode.USER_DISABLED
    title: ClassVar[str] = "User disabled"


class UserNotFoundError(NotFoundError):
    """No such user."""

    code: ClassVar[ErrorCode] = AuthErrorCode.USER_NOT_FOUND
    title: ClassVar[str] = "User not found"


class EmailTakenError(ConflictError):
    """A user with that address exists."""

    code: ClassVar[ErrorCode] = AuthErrorCode.EMAIL_TAKEN
    title: ClassVar[str] = "E-mail address is taken"


class EmailInvalidError(InvalidInputError):
    """That can't be an e-mail address."""

    code: ClassVar[ErrorCode] = AuthErrorCode.EMAIL_INVALID
    title: ClassVar[str] = "Not an e-mail address"


class PasswordRefusedError(InvalidInputError):
    """The password breaks a rule of NIST SP 800-63B."""

    code: ClassVar[ErrorCode] = AuthErrorCode.PASSWORD_REFUSED
    title: ClassVar[str] = "Password not accepted"


class PasswordPoolBusyError(UnavailableError):
    """More passwords wait to be hashed than can be in good time."""

    code: ClassVar[ErrorCode] = AuthErrorCode.PASSWORD_POOL_BUSY
    title: ClassVar[str] = "Too many sign-ins at once"


class LoginThrottledError(RateLimitedError):
    """Too many failed sign-ins for this account or from this address."""

    code: ClassVar[ErrorCode] = AuthErrorCode.LOGIN_THROTTLED
    title: ClassVar[str] = "Too many failed sign-ins"


class ApiKeyNotFoundError(NotFoundError):
    """No such live key of this user."""

    code: ClassVar[ErrorCode] = AuthErrorCode.API_KEY_NOT_FOUND
    title: ClassVar[str] = "API key not found"


class ApiKeyScopeError(PermissionDeniedError):
    """A key can't be given more than its owner may."""

    code: ClassVar[ErrorCode] = AuthErrorCode.API_KEY_SCOPE_REFUSED
    title: ClassVar[str] = "Scope can't be given"


class ApiKeyLimitError(ConflictError):
    """The user has as many keys as anybody may have."""

    code: ClassVar[ErrorCode] = AuthErrorCode.API_KEY_LIMIT
    title: ClassVar[str] = "Too many API keys"


class ApiKeyRefusedError(InvalidInputError):
    """The key would have ended before it began."""

    code: ClassVar[ErrorCode] = AuthErrorCode.API_KEY_REFUSED
    title: ClassVar[str] = "API key not accepted"
