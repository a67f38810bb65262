"""Secrets encrypted with a key that is derived from the platform's (AES-256-GCM)."""

import base64
import binascii
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from trading_api.modules.auth.errors import SealBrokenError

_NONCE_BYTES = 12
_VERSION = "v1."


class KeySealer:
    """Seals with keys derived from the platform's secret.

    Args:
        secret_key: the platform's secret; never used as it is.
    """

    def __init__(self, secret_key: bytes) -> None:
        self._cipher = AESGCM(hmac.digest(secret_key, b"auth: seal v1", "sha256"))
        self._root = hmac.digest(secret_key, b"auth: derive v1", "sha256")

    def seal(self, content: str, *, about: str) -> str:
        """Encrypt; the subject is authenticated with it."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, content.encode(), about.encode())
        return _VERSION + base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def open(self, sealed: str, *, about: str) -> str:
        """Decrypt; raises ``SealBrokenError``."""
        text = sealed.removeprefix(_VERSION)
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            return self._cipher.decrypt(
                raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], about.encode()
            ).decode()
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise SealBrokenError(
                "a stored secret can't be opened; was SECRET_KEY changed?"
            ) from error

    def derive(self, label: str, length: int) -> bytes:
        """Return up to 64 bytes for a label."""
        assert length <= 64
        return hmac.digest(self._root, label.encode(), "sha512")[:length]
