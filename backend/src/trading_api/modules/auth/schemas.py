"""What auth reads and answers on the wire."""

import re
from datetime import datetime
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self

import segno
from pydantic import AfterValidator, AwareDatetime, Field, SecretStr, StringConstraints

from trading_api.modules.auth.domain import Role, Session, User, scopes_of
from trading_api.modules.auth.domain.api_keys import ApiKey
from trading_api.modules.auth.domain.audit import AuditRow
from trading_api.modules.auth.domain.passkeys import Passkey
from trading_api.modules.auth.service import Challenge, SignIn
from trading_api.modules.auth.service.second_factor import SecondFactorStatus, SetUp
from trading_api.runtime.http.wire import RequestModel, ResponseModel, StrictBool

EMAIL_LENGTH_MAX = 254
"""RFC 5321's path of 256 without its angle brackets."""

_UNSAFE = re.compile("[\x00-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def secret_text(value: SecretStr | None) -> str | None:
    """Return a secret's text; None stays None."""
    return None if value is None else value.get_secret_value()


def _name(value: str) -> str:
    if _UNSAFE.search(value):
        raise ValueError("holds control or invisible characters")
    return value


def _no_nul(value: SecretStr) -> SecretStr:
    if "\x00" in value.get_secret_value():
        raise ValueError("holds a NUL")
    return value


EmailText = Annotated[str, StringConstraints(min_length=3, max_length=EMAIL_LENGTH_MAX)]
NameText = Annotated[
    str, StringConstraints(max_length=200, strip_whitespace=True), AfterValidator(_name)
]
PictureText = Annotated[str, StringConstraints(max_length=2048, pattern=r"^https://[\x21-\x7e]+$")]
# Longer than any accepted password, so that the length rule answers and not the parser.
PasswordText = Annotated[SecretStr, Field(min_length=1, max_length=1024), AfterValidator(_no_nul)]
CodeText = Annotated[str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True)]
TicketText = Annotated[SecretStr, Field(min_length=1, max_length=256)]
RefreshText = Annotated[SecretStr, Field(min_length=1, max_length=256)]


ProviderTokenText = Annotated[SecretStr, Field(min_length=1, max_length=16_384)]


class RegisterRequest(RequestModel):
    """A new user."""

    email: EmailText
    password: PasswordText
    full_name: NameText = ""


class LoginRequest(RequestModel):
    """A sign-in with a password."""

    email: EmailText
    password: PasswordText
    totp: CodeText | None = Field(
        default=None, description="of the authenticator, or a recovery code"
    )


class ProviderLoginRequest(RequestModel):
    """A sign-in with an ID token that the client got from Google itself."""

    google_token: ProviderTokenText


class ProvidersView(ResponseModel):
    """Outside providers to sign in by."""

    providers: list[str] = Field(description="for `/oauth/{provider}/login`")


class ProofRequest(RequestModel):
    """A signed-in user proves again who is asking."""

    password: PasswordText | None = Field(
        default=None, description="required of users who have one"
    )


class CodeRequest(ProofRequest):
    """A code of the authenticator, or a recovery code where one exists."""

    code: CodeText


class ChallengeRequest(RequestModel):
    """The second step of a sign-in."""

    challenge: TicketText
    code: CodeText = Field(description="of the authenticator, or a recovery code")


class EmailRequest(RequestModel):
    """An address that a mail is wanted for."""

    email: EmailText


class EmailVerifyRequest(RequestModel):
    """The token of a mail, and the password of the registration that caused it."""

    token: TicketText
    password: PasswordText


class PasswordResetRequest(RequestModel):
    """A new password with the token of a mail."""

    token: TicketText
    password: PasswordText


class PasswordChangeRequest(RequestModel):
    """A new password of a signed-in user."""

    current_password: PasswordText | None = Field(
        default=None, description="required of users who have one"
    )
    new_password: PasswordText


class PasskeySignInRequest(RequestModel):
    """What the browser's `navigator.credentials.get` returned, as JSON."""

    credential: dict[str, Any]


class PasskeyRequest(RequestModel):
    """What the browser's `navigator.credentials.create` returned, as JSON, and a name for it."""

    name: NameText = "passkey"
    credential: dict[str, Any]


class UserPatch(RequestModel):
    """What admins change of a user; absent fields stay."""

    roles: list[Role] | None = Field(default=None, min_length=1, max_length=10)
    is_active: StrictBool | None = None


class RefreshRequest(RequestModel):
    """A refresh token, from callers that keep it themselves; browsers send their cookie."""

    refresh_token: RefreshText | None = None


class ProfilePatch(RequestModel):
    """What users change of themselves; absent fields stay."""

    full_name: NameText = ""
    picture: PictureText | None = None

    def changes(self) -> dict[str, str | None]:
        """Return the fields that were sent."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class UserView(ResponseModel):
    """A user as the user may see it."""

    id: str
    email: str
    full_name: str
    picture: str | None = Field(description="https URL")
    roles: list[str]
    created_at: datetime
    last_login: datetime | None = Field(description="null before the first sign-in")
    is_active: bool

    @classmethod
    def of(cls, user: User) -> "UserView":
        """Show a user."""
        return cls(
            id=user.id,
            email=user.email.address,
            full_name=user.full_name,
            picture=user.picture,
            roles=sorted(user.roles),
            created_at=user.created_at,
            last_login=user.last_login_at,
            is_active=user.is_active,
        )


class TokenView(ResponseModel):
    """A sign-in."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105
    expires_in: int = Field(description="seconds until the access token ends")
    refresh_token: str | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="single use; absent for browsers, which have it as a cookie",
    )
    scope: str = Field(description="scopes by space")
    user: UserView

    @classmethod
    def of(cls, found: SignIn, *, with_refresh_token: bool) -> "TokenView":
        """Show a sign-in."""
        return cls(
            access_token=found.access_token,
            expires_in=found.expires_in_seconds,
            refresh_token=found.refresh_token if with_refresh_token else None,
            scope=" ".join(sorted(scopes_of(found.user.roles))),
            user=UserView.of(found.user),
        )


class ChallengeView(ResponseModel):
    """A sign-in that needs a code before anything is handed out."""

    mfa_required: Literal[True] = True
    challenge: str = Field(description="send it to `/2fa/verify` with a code, from this device")
    expires_in: int = Field(description="seconds until the challenge ends")
    methods: list[str] = ["totp", "recovery_code"]

    @classmethod
    def of(cls, challenge: Challenge) -> "ChallengeView":
        """Show a challenge."""
        return cls(challenge=challenge.token, expires_in=challenge.expires_in_seconds)


class SecondFactorView(ResponseModel):
    """What protects a user's sign-in besides the password."""

    enabled: bool
    enabled_at: datetime | None
    recovery_codes_left: int
    passkeys: int

    @classmethod
    def of(cls, status: SecondFactorStatus) -> "SecondFactorView":
        """Show it."""
        return cls(
            enabled=status.enabled_at is not None,
            enabled_at=status.enabled_at,
            recovery_codes_left=status.recovery_codes_left,
            passkeys=status.passkeys,
        )


class SetUpView(ResponseModel):
    """What an authenticator app needs; any of the three will do."""

    secret: str = Field(description="base32")
    otpauth_uri: str
    qr_svg: str = Field(description="the URI as a picture")

    @classmethod
    def of(cls, found: SetUp) -> "SetUpView":
        """Show it."""
        picture = segno.make(found.uri, error="m", micro=False).svg_inline(
            scale=4, border=4, light="#fff", dark="#000"
        )
        return cls(secret=found.secret, otpauth_uri=found.uri, qr_svg=picture)


class RecoveryCodesView(ResponseModel):
    """Codes that stand in for the authenticator, each once."""

    recovery_codes: list[str] = Field(description="shown this once")


class PasskeyOptionsView(ResponseModel):
    """What the browser's `navigator.credentials` takes; its binary fields are base64url."""

    public_key: dict[str, Any] = Field(serialization_alias="publicKey")


class PasskeyView(ResponseModel):
    """A passkey."""

    id: str
    name: str
    created_at: datetime
    last_used_at: datetime | None
    is_backed_up: bool = Field(description="kept in the user's cloud, not in one device alone")

    @classmethod
    def of(cls, passkey: Passkey) -> "PasskeyView":
        """Show a passkey."""
        return cls(
            id=passkey.id,
            name=passkey.name,
            created_at=passkey.created_at,
            last_used_at=passkey.last_used_at,
            is_backed_up=passkey.is_backed_up,
        )


class AdministeredUserView(UserView):
    """A user as admins see it."""

    email_verified_at: datetime | None
    activated_at: datetime | None = Field(description="null while the address isn't confirmed")

    @classmethod
    def of_user(cls, user: User) -> "AdministeredUserView":
        """Show a user."""
        return cls(
            **UserView.of(user).model_dump(),
            email_verified_at=user.email_verified_at,
            activated_at=user.activated_at,
        )


class AuditEntryView(ResponseModel):
    """One security event."""

    sequence: int = Field(description="from 1, without a gap")
    occurred_at: datetime
    action: str
    outcome: str = Field(description="`done`, or why not")
    actor_id: str | None = Field(description="null while nobody was known, or for the host")
    session_id: str | None
    address: str
    object: str | None = Field(description="what it was done to, `<kind>:<id>`")
    detail: str
    before_hash: str | None = Field(description="digest of the object's state before")
    after_hash: str | None = Field(description="digest of the object's state after")
    request_id: str | None
    hash: str = Field(description="over this row and the hash of the row before")

    @classmethod
    def of(cls, row: AuditRow) -> "AuditEntryView":
        """Show a row."""
        entry = row.entry
        return cls(
            sequence=row.sequence,
            occurred_at=entry.occurred_at,
            action=entry.action,
            outcome=entry.outcome,
            actor_id=entry.caller.user_id,
            session_id=entry.caller.session_id,
            address=entry.caller.address,
            object=entry.about,
            detail=entry.detail,
            before_hash=entry.before_hash,
            after_hash=entry.after_hash,
            request_id=entry.request_id,
            hash=row.hash,
        )


class SessionView(ResponseModel):
    """A sign-in on one device."""

    id: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime = Field(description="ends then at the latest")
    address: str
    user_agent: str
    is_current: bool = Field(description="the one this request belongs to")

    @classmethod
    def of(cls, session: Session, *, current_id: str) -> "SessionView":
        """Show a session."""
        return cls(
            id=session.id,
            created_at=session.created_at,
            last_used_at=session.last_used_at,
            expires_at=session.idle_expires_at,
            address=session.address,
            user_agent=session.user_agent,
            is_current=session.id == current_id,
        )


class DoneView(ResponseModel):
    """It is done."""

    success: bool = True
    message: str


class RevokedView(ResponseModel):
    """Nothing: the status says it all (RFC 7009, 2.2)."""


class TokenStatusView(ResponseModel):
    """What one's own access token is worth; a token that isn't good tells nothing else."""

    active: bool
    status: Literal["valid", "expired", "revoked", "error"]
    token_type: str | None = Field(default=None, exclude_if=lambda value: value is None)
    exp: int | None = Field(
        default=None, exclude_if=lambda value: value is None, description="Unix seconds"
    )
    sub: str | None = Field(default=None, exclude_if=lambda value: value is None)
    sid: str | None = Field(default=None, exclude_if=lambda value: value is None)
    scope: str | None = Field(default=None, exclude_if=lambda value: value is None)
    roles: list[str] | None = Field(default=None, exclude_if=lambda value: value is None)


class KeySetView(ResponseModel):
    """The keys that verify access tokens (RFC 7517)."""

    keys: list[dict[str, Any]]


def _network(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError as error:
        raise ValueError("must be an address or a network such as 203.0.113.0/24") from error


def _future(value: datetime) -> datetime:
    # Within what every database and token can hold.
    if value.year > 9000:
        raise ValueError("is too far away")
    return value


KeyNameText = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100, strip_whitespace=True),
    AfterValidator(_name),
]
ScopeText = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{0,31}:[a-z]{1,16}$")]
NetworkText = Annotated[str, StringConstraints(max_length=64), AfterValidator(_network)]
AccountText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
EndInstant = Annotated[AwareDatetime, AfterValidator(_future)]


class ApiKeyRequest(RequestModel):
    """A new API key."""

    name: KeyNameText
    scopes: list[ScopeText] = Field(min_length=1, max_length=32)
    expires_at: EndInstant | None = Field(None, description="null for no end")
    ip_allow: list[NetworkText] = Field(
        default_factory=list, max_length=32, description="networks it may come from; none for all"
    )
    password: PasswordText | None = Field(
        None, description="required of users who have one, unless every scope is one to read"
    )


class ApiKeyView(ResponseModel):
    """An API key without its secret."""

    id: str
    name: str
    scopes: list[str]
    ip_allow: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="to the minute; null before the first use")

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        """Show a key."""
        return cls(**cls._fields(key))

    @classmethod
    def _fields(cls, key: ApiKey) -> dict[str, Any]:
        return {
            "id": key.id,
            "name": key.name,
            "scopes": sorted(key.scopes),
            "ip_allow": list(key.ip_allow),
            "created_at": key.created_at,
            "expires_at": key.expires_at,
            "last_used_at": key.last_used_at,
        }


class ApiKeyMadeView(ApiKeyView):
    """A new API key, once with its secret."""

    key: str = Field(description="`tp_live_…`; keep it, it is never shown again")

    @classmethod
    def made(cls, key: ApiKey, text: str) -> "ApiKeyMadeView":
        """Show a key that was just made."""
        return cls(**cls._fields(key), key=text)


class ShareTokenRequest(RequestModel):
    """A new share token."""

    account_id: AccountText = Field(description="the trading account to show")
    name: KeyNameText
    expires_at: EndInstant | None = Field(None, description="null for no end")


class ShareTokenView(ResponseModel):
    """A share token without its secret."""

    id: str
    name: str
    account_id: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="to the minute; null before the first use")

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        """Show a share token."""
        return cls(**cls._fields(key))

    @classmethod
    def _fields(cls, key: ApiKey) -> dict[str, Any]:
        return {
            "id": key.id,
            "name": key.name,
            "account_id": key.account_id,
            "created_at": key.created_at,
            "expires_at": key.expires_at,
            "last_used_at": key.last_used_at,
        }


class ShareTokenMadeView(ShareTokenView):
    """A new share token, once with its secret."""

    token: str = Field(description="`tp_share_…`; never shown again")

    @classmethod
    def made(cls, key: ApiKey, text: str) -> "ShareTokenMadeView":
        """Show a share token that was just made."""
        return cls(**cls._fields(key), token=text)


class IntrospectionView(ResponseModel):
    """What a token is worth, as RFC 7662 names it; nothing but ``active`` where it isn't good."""

    active: bool
    sub: str | None = None
    sid: str | None = Field(None, description="the session, or the id of the key")
    token_type: Literal["Bearer", "refresh_token", "api_key"] | None = None
    scope: str | None = None
    iss: str | None = None
    iat: int | None = None
    exp: int | None = None
