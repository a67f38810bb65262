"""Access tokens signed with the host's key."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from joserfc import jwt

from trading_api.kernel.clock import Clock
from trading_api.runtime.secrets import (
    JWKS_FILE,
    PRIVATE_KEY_FILE,
    SigningKey,
    load_signing_key,
    read_key_set,
)

TOKEN_TYPE = "at+jwt"  # noqa: S105


class FileSigner:
    """Signs with a key in a file; takes over a rotated key by itself.

    Args:
        directory: the host's secrets.
        private_key: the signing key, where it is mounted elsewhere.
        key_set: the public keys, where they are mounted elsewhere.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clock: Clock,
        private_key: Path | None = None,
        key_set: Path | None = None,
    ) -> None:
        self._path = private_key or directory / PRIVATE_KEY_FILE
        self._key_set = key_set or directory / JWKS_FILE
        self._clock = clock
        self._key: SigningKey | None = None
        self._algorithm = ""
        self._stamp: tuple[int, int] | None = None

    def load(self) -> None:
        """Read the key.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is of a kind that we don't sign with.
        """
        found = self._path.stat()
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp == self._stamp:
            return
        self._key, self._algorithm = load_signing_key(self._path.read_bytes())
        self._stamp = stamp

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return the claims as a signed token whose header is ``alg``, ``kid`` and ``typ``."""
        self.load()
        assert self._key is not None
        header = {"alg": self._algorithm, "kid": self._key.kid, "typ": TOKEN_TYPE}
        return jwt.encode(header, dict(claims), self._key, algorithms=[self._algorithm])

    def public_keys(self) -> Mapping[str, Any]:
        """Return the keys that verify tokens of now (RFC 7517)."""
        document = read_key_set(self._key_set)
        now_seconds = self._clock.now().timestamp()
        return {
            "keys": [
                key
                for key in document["keys"]
                if key.get("retires_at", now_seconds + 1) > now_seconds
            ]
        }
