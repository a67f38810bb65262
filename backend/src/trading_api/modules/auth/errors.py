"""What auth refuses.

UnauthenticatedError
├── CredentialsInvalidError     unknown user or wrong password, answered alike
├── SecondFactorInvalidError    right password, wrong or used code
├── ChallengeInvalidError       unknown, used or expired, or of another device
├── PasskeyInvalidError         unknown passkey or wrong signature, answered alike
├── RefreshTokenInvalidError    not one of ours, or the wrong device
├── RefreshTokenExpiredError    idle for too long, or the session's end has come
├── RefreshTokenReusedError     used before; its whole session is ended
└── SessionEndedError           logged out, revoked or disabled
MalformedRequestError
└── ExternalSignInRefusedError
PermissionDeniedError
├── ApiKeyScopeError            more than its owner may give
├── UserDisabledError           right password, but switched off by an operator
├── EmailUnverifiedError        right password, but the address isn't confirmed yet
├── PasswordWrongError          signed in, but the password that proves it again is wrong
└── SessionNotFreshError        signed in too long ago for this
NotFoundError
├── ApiKeyNotFoundError         not there, revoked, or not this user's
├── ExternalProviderUnknownError
├── SessionNotFoundError
├── PasskeyNotFoundError
└── UserNotFoundError
ConflictError
├── ExternalEmailError          somebody's address, but not proven to be the same person's
├── ApiKeyLimitError
├── EmailTakenError
├── SecondFactorOnError
├── SecondFactorOffError
├── PasswordTooShortAloneError  too short for an account without a second factor
├── PasskeyTakenError           registered before, or too many
└── LastAdminError              nobody could undo it
InvalidInputError
├── ApiKeyRefusedError          it would have ended before it began
├── EmailInvalidError
├── PasswordRefusedError        too short, too long, or known to guessers
├── CodeWrongError              not the code that the authenticator shows now
└── MailTokenInvalidError       unknown, used or expired
RateLimitedError
└── LoginThrottledError
UnavailableError
└── PasswordPoolBusyError
TradingError
└── SealBrokenError             a stored secret can't be opened: an operator's matter
"""

from typing import ClassVar

from trading_api.kernel.errors import (
    ConflictError,
    ErrorCode,
    InvalidInputError,
    MalformedRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    TradingError,
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
    EXTERNAL_SIGN_IN_REFUSED = "auth.external.refused"
    EXTERNAL_EMAIL_REFUSED = "auth.external.email_refused"
    EXTERNAL_PROVIDER_UNKNOWN = "auth.external.provider_unknown"
    LOGIN_THROTTLED = "auth.login.throttled"
    SECOND_FACTOR_INVALID = "auth.second_factor.invalid"
    SECOND_FACTOR_ON = "auth.second_factor.on"
    SECOND_FACTOR_OFF = "auth.second_factor.off"
    SECOND_FACTOR_CODE_WRONG = "auth.second_factor.code_wrong"
    SECOND_FACTOR_NEEDED = "auth.second_factor.password_too_short"
    CHALLENGE_INVALID = "auth.challenge.invalid"
    PASSKEY_INVALID = "auth.passkey.invalid"
    PASSKEY_NOT_FOUND = "auth.passkey.not_found"
    PASSKEY_TAKEN = "auth.passkey.taken"
    EMAIL_UNVERIFIED = "auth.email.unverified"
    PASSWORD_WRONG = "auth.password.wrong"  # noqa: S105
    SESSION_NOT_FRESH = "auth.session.not_fresh"
    LAST_ADMIN = "auth.user.last_admin"
    MAIL_TOKEN_INVALID = "auth.mail_token.invalid"  # noqa: S105
    SEAL_BROKEN = "auth.seal.broken"


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
    """The user was switched off; only told to who proved to be that user."""

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


class SecondFactorInvalidError(UnauthenticatedError):
    """The code is wrong, or was used before."""

    code: ClassVar[ErrorCode] = AuthErrorCode.SECOND_FACTOR_INVALID
    title: ClassVar[str] = "Code not accepted"


class ChallengeInvalidError(UnauthenticatedError):
    """The challenge is unknown, used, expired, or of another device."""

    code: ClassVar[ErrorCode] = AuthErrorCode.CHALLENGE_INVALID
    title: ClassVar[str] = "Challenge not accepted"


class PasskeyInvalidError(UnauthenticatedError):
    """No such passkey, or its signature is wrong; which one isn't told."""

    code: ClassVar[ErrorCode] = AuthErrorCode.PASSKEY_INVALID
    title: ClassVar[str] = "Passkey not accepted"


class PasskeyNotFoundError(NotFoundError):
    """No such passkey of this user."""

    code: ClassVar[ErrorCode] = AuthErrorCode.PASSKEY_NOT_FOUND
    title: ClassVar[str] = "Passkey not found"


class PasskeyTakenError(ConflictError):
    """It is registered already, or the user has as many as are allowed."""

    code: ClassVar[ErrorCode] = AuthErrorCode.PASSKEY_TAKEN
    title: ClassVar[str] = "Passkey can't be added"


class EmailUnverifiedError(PermissionDeniedError):
    """The address waits for its confirmation; only told to who knows the password."""

    code: ClassVar[ErrorCode] = AuthErrorCode.EMAIL_UNVERIFIED
    title: ClassVar[str] = "E-mail address not confirmed"


class PasswordWrongError(PermissionDeniedError):
    """The password that was to prove who is asking is wrong."""

    code: ClassVar[ErrorCode] = AuthErrorCode.PASSWORD_WRONG
    title: ClassVar[str] = "Wrong password"


class SessionNotFreshError(PermissionDeniedError):
    """A user without a password proves who is asking by a sign-in of just now."""

    code: ClassVar[ErrorCode] = AuthErrorCode.SESSION_NOT_FRESH
    title: ClassVar[str] = "Sign in again first"


class SecondFactorOnError(ConflictError):
    """There is a second factor already."""

    code: ClassVar[ErrorCode] = AuthErrorCode.SECOND_FACTOR_ON
    title: ClassVar[str] = "Second factor is on"


class SecondFactorOffError(ConflictError):
    """There is no second factor."""

    code: ClassVar[ErrorCode] = AuthErrorCode.SECOND_FACTOR_OFF
    title: ClassVar[str] = "Second factor is off"


class PasswordTooShortAloneError(ConflictError):
    """The password is good only together with a second factor."""

    code: ClassVar[ErrorCode] = AuthErrorCode.SECOND_FACTOR_NEEDED
    title: ClassVar[str] = "Password too short without a second factor"


class CodeWrongError(InvalidInputError):
    """It isn't the code that the authenticator shows now."""

    code: ClassVar[ErrorCode] = AuthErrorCode.SECOND_FACTOR_CODE_WRONG
    title: ClassVar[str] = "Wrong code"


class MailTokenInvalidError(InvalidInputError):
    """The token of a mail is unknown, used or expired."""

    code: ClassVar[ErrorCode] = AuthErrorCode.MAIL_TOKEN_INVALID
    title: ClassVar[str] = "Link not accepted"


class LastAdminError(ConflictError):
    """Nobody could undo it."""

    code: ClassVar[ErrorCode] = AuthErrorCode.LAST_ADMIN
    title: ClassVar[str] = "The last admin stays"


class SealBrokenError(TradingError):
    """A stored secret can't be opened: altered, or sealed with another key."""

    code: ClassVar[ErrorCode] = AuthErrorCode.SEAL_BROKEN
    title: ClassVar[str] = "Internal error"


class ExternalSignInRefusedError(MalformedRequestError):
    """The way to a provider and back was not gone as it must be, or its token isn't good."""

    code: ClassVar[ErrorCode] = AuthErrorCode.EXTERNAL_SIGN_IN_REFUSED
    title: ClassVar[str] = "Sign-in by a provider refused"


class ExternalEmailError(ConflictError):
    """The provider's address can't be connected with a user: one of them isn't confirmed."""

    code: ClassVar[ErrorCode] = AuthErrorCode.EXTERNAL_EMAIL_REFUSED
    title: ClassVar[str] = "E-mail address can't be connected"


class ExternalProviderUnknownError(NotFoundError):
    """No such provider is configured."""

    code: ClassVar[ErrorCode] = AuthErrorCode.EXTERNAL_PROVIDER_UNKNOWN
    title: ClassVar[str] = "Provider not found"
