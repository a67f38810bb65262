"""Access tokens signed with the host's key."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import RSAKey

from trading_api.kernel.clock import Clock
from trading_api.runtime.secrets import JWKS_FILE, PRIVATE_KEY_FILE

ALGORITHM = "RS256"
TOKEN_TYPE = "at+jwt"  # noqa: S105


class FileSigner:
    """Signs with ``jwt_private.pem``; takes over a rotated key by itself.

    Args:
        directory: the host's secrets.
    """

    def __init__(self, directory: Path, *, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._key: RSAKey | None = None
        self._stamp: tuple[int, int] | None = None

    def load(self) -> None:
        """Read the key; raises ``FileNotFoundError`` where there is none."""
        path = self._directory / PRIVATE_KEY_FILE
        found = path.stat()
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp == self._stamp:
            return
        key = RSAKey.import_key(path.read_bytes(), {"use": "sig", "alg": ALGORITHM})
        key.ensure_kid()
        self._key, self._stamp = key, stamp

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return the claims as a signed token whose header is ``alg``, ``kid`` and ``typ``."""
        self.load()
        assert self._key is not None
        header = {"alg": ALGORITHM, "kid": self._key.kid, "typ": TOKEN_TYPE}
        return jwt.encode(header, dict(claims), self._key, algorithms=[ALGORITHM])

    def public_keys(self) -> Mapping[str, Any]:
        """Return the keys that verify tokens of now (RFC 7517)."""
        document = json.loads((self._directory / JWKS_FILE).read_text())
        now_seconds = self._clock.now().timestamp()
        return {
            "keys": [
                key
                for key in document["keys"]
                if key.get("retires_at", now_seconds + 1) > now_seconds
            ]
        }
