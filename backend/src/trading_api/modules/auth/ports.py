"""What auth needs from outside its rules: hashing, signing, telling the other processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from trading_api.modules.auth.domain.external import ExternalUser
from trading_api.modules.auth.domain.mail import Message


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of comparing a password.

    Attributes:
        upgraded_hash: a hash to store instead, by today's parameters; None where the stored one
            is fine or the password is wrong.
    """

    is_correct: bool
    upgraded_hash: str | None


class PasswordHasher(Protocol):
    """Hashes passwords off the event loop, a few at a time."""

    async def hash(self, password: str) -> str:
        """Hash a new password.

        Raises:
            PasswordPoolBusyError: too many wait.
        """
        ...

    async def verify(self, password: str, password_hash: str | None) -> Verification:
        """Compare; None takes the same time and is never correct.

        Raises:
            PasswordPoolBusyError: too many wait.
        """
        ...


class TokenSigner(Protocol):
    """Holds the key that signs access tokens."""

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a signed token."""
        ...

    def public_keys(self) -> Mapping[str, Any]:
        """Return the key set that verifies them (RFC 7517)."""
        ...


class Sealer(Protocol):
    """Keeps secrets that must be read again from whoever reads the database alone."""

    def seal(self, content: str, *, about: str) -> str:
        """Encrypt a secret that belongs to ``about``; sealed for one, it opens for no other."""
        ...

    def open(self, sealed: str, *, about: str) -> str:
        """Decrypt.

        Raises:
            SealBrokenError: altered, of another subject, or sealed with another key.
        """
        ...

    def derive(self, label: str, length: int) -> bytes:
        """Return bytes that only this platform can compute, always the same for a label."""
        ...


@dataclass(frozen=True, slots=True)
class NewPasskey:
    """A passkey that passed the rules.

    Attributes:
        credential_id: base64url.
        public_key: base64url of the COSE key.
    """

    credential_id: str
    public_key: str
    sign_count: int
    is_backed_up: bool


@dataclass(frozen=True, slots=True)
class PasskeyUse:
    """A signature that passed the rules."""

    sign_count: int


class PasskeyChecker(Protocol):
    """Speaks WebAuthn: asks authenticators and checks what they answer."""

    def registration_options(
        self, *, user_id: str, email: str, full_name: str, challenge: str, known: Sequence[str]
    ) -> Mapping[str, Any]:
        """Return what a browser needs to make a passkey; ``known`` ones make none."""
        ...

    def sign_in_options(self, *, challenge: str) -> Mapping[str, Any]:
        """Return what a browser needs to sign in with any passkey."""
        ...

    def challenge_of(self, credential: Mapping[str, Any]) -> str:
        """Return the challenge that an answer claims to answer; "" where it claims none."""
        ...

    def credential_id_of(self, credential: Mapping[str, Any]) -> str:
        """Return the id of the passkey that answered; "" where there is none."""
        ...

    def check_registration(self, credential: Mapping[str, Any], *, challenge: str) -> NewPasskey:
        """Check a new passkey.

        Raises:
            PasskeyInvalidError: it breaks a rule.
        """
        ...

    def check_sign_in(
        self, credential: Mapping[str, Any], *, challenge: str, public_key: str
    ) -> PasskeyUse:
        """Check a signature.

        Raises:
            PasskeyInvalidError: it is wrong.
        """
        ...


class IdentityProvider(Protocol):
    """Somebody outside who knows people (OpenID Connect)."""

    @property
    def name(self) -> str:
        """The provider's name in our URLs."""
        ...

    async def authorization_url(
        self, *, redirect_uri: str, state: str, nonce: str, verifier: str
    ) -> str:
        """Return where to send a browser.

        Raises:
            UnavailableError: the provider can't be asked.
        """
        ...

    async def exchange(
        self, *, code: str, issuer: str | None, redirect_uri: str, verifier: str, nonce: str
    ) -> ExternalUser:
        """Exchange a code for whom it stands for.

        Raises:
            ExternalSignInRefusedError: the code or what it gives isn't good.
            UnavailableError: the provider doesn't answer.
        """
        ...

    async def verify_id_token(
        self,
        token: str,
        *,
        nonce: str | None,
        access_token: object = None,
        age_seconds_max: int | None = None,
    ) -> ExternalUser:
        """Return whom a token of the provider names.

        Raises:
            ExternalSignInRefusedError: it isn't good.
            UnavailableError: the provider's keys can't be had.
        """
        ...


class MailError(Exception):
    """A mail wasn't taken.

    Attributes:
        is_final: trying again is of no use, such as for an address that doesn't exist.
    """

    def __init__(self, message: str, *, is_final: bool) -> None:
        super().__init__(message)
        self.is_final = is_final


class Mailer(Protocol):
    """Hands mails to whoever delivers them."""

    async def send(self, message: Message) -> None:
        """Hand a mail over; a repeat has the same Message-ID.

        Raises:
            MailError: it wasn't taken.
        """
        ...


class RevocationAnnouncer(Protocol):
    """Tells every process that sessions ended."""

    def announce(
        self, session_ids: Sequence[str], *, revoked_at: datetime, until: datetime
    ) -> None:
        """Tell it now where the bus is up; processes that can't hear it come and ask.

        Args:
            until: when the sessions' last access tokens have expired.
        """
        ...
