"""Sign-ins by an outside provider (OpenID Connect): what is believed, and what must match."""

import base64
import hashlib
import hmac
import json
import re
from dataclasses import asdict, dataclass

BINDING_BYTES = 32
_PATH = re.compile(r"/(?![/\\])[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*", re.ASCII)
_PATH_LENGTH_MAX = 1024


@dataclass(frozen=True, slots=True)
class ExternalUser:
    """Somebody as a provider knows them.

    Attributes:
        issuer: of the provider; with ``subject`` it names the person for ever.
        email: None where the provider tells none.
        is_email_verified: the provider says that the address is the person's.
        picture: https URL; None where there is none.
    """

    issuer: str
    subject: str
    email: str | None
    is_email_verified: bool
    full_name: str
    picture: str | None


@dataclass(frozen=True, slots=True)
class Journey:
    """One sign-in on its way to a provider and back; stored without any secret.

    Attributes:
        binding_hash: of the cookie of the browser that began it.
        next_path: where on our own site it ends.
    """

    provider: str
    binding_hash: str
    next_path: str

    def to_text(self) -> str:
        """Return it as text to be stored."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def of_text(cls, text: str) -> "Journey":
        """Read what ``to_text`` wrote."""
        return cls(**json.loads(text))


def safe_next(path: str | None) -> str | None:
    """Return a path on our own site to go on to; None where it could lead elsewhere.

    Browsers take a second slash or a backslash for the beginning of another host, and drop tabs
    and line ends.
    """
    if path is None:
        return "/"
    if len(path) > _PATH_LENGTH_MAX or _PATH.fullmatch(path) is None:
        return None
    return path


def verifier_of(binding: str, state: str) -> str:
    """Return the PKCE code verifier (RFC 7636) of one journey; it is nowhere stored.

    Only the browser's cookie and the state together give it, so a stolen code is of no use.
    """
    return _derive(binding, f"verifier:{state}")


def nonce_of(binding: str, state: str) -> str:
    """Return the nonce that the provider must repeat in its token."""
    return _derive(binding, f"nonce:{state}")


def hash_binding(binding: str) -> str:
    """Return what is stored of a browser's binding."""
    return hashlib.sha256(binding.encode()).hexdigest()


def _derive(binding: str, label: str) -> str:
    digest = hmac.new(binding.encode(), label.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
