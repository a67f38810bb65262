"""Keys of a host, made at the first start: files of mode 0600 in a folder of mode 0700.

jwt_private.pem        signs access tokens; only auth reads it
jwks.json              the public keys that every module verifies with (RFC 7517)
secret_key             signs cursors and derives other keys; never signs tokens
service_<module>.pem   a process's own identity towards the other modules
"""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from joserfc.jwk import ECKey, OKPKey, RSAKey

SigningAlgorithm = Literal["RS256", "ES256", "EdDSA"]
SigningKey = RSAKey | ECKey | OKPKey

SECRET_KEY_NAMES = ("SECRET_KEY", "JWT_SECRET_KEY")
"""Variables that carry the platform's secret instead of the file; the first wins."""

SECRET_KEY_FILE = "secret_key"  # noqa: S105 - a file's name
PRIVATE_KEY_FILE = "jwt_private.pem"
JWKS_FILE = "jwks.json"
SERVICE_JWKS_FILE = "services.json"
SIGNING_ALGORITHMS: tuple[SigningAlgorithm, ...] = get_args(SigningAlgorithm)
_RSA_BITS = 2048


def ensure_secrets(
    directory: Path,
    *,
    modules: tuple[str, ...] = (),
    algorithm: SigningAlgorithm = "RS256",
) -> list[str]:
    """Make the keys that are missing; return the names of the files made.

    Existing files are left as they are, so it can be repeated.

    Args:
        algorithm: of the key that signs access tokens, where it is made now.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    made: list[str] = []
    if not (directory / SECRET_KEY_FILE).exists():
        _write(directory / SECRET_KEY_FILE, secrets.token_urlsafe(48).encode())
        made.append(SECRET_KEY_FILE)
    if not (directory / PRIVATE_KEY_FILE).exists():
        key = _generate(algorithm)
        _write(directory / PRIVATE_KEY_FILE, key.as_pem(private=True))
        _add_public(directory / JWKS_FILE, key.as_dict(private=False))
        made.append(PRIVATE_KEY_FILE)
    for module in modules:
        path = directory / f"service_{module}.pem"
        if not path.exists():
            service_key = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"})
            _write(path, service_key.as_pem(private=True))
            public = {**service_key.as_dict(private=False), "kid": f"svc-{module}"}
            _add_public(directory / SERVICE_JWKS_FILE, public)
            made.append(path.name)
    return made


def load_secret_key(directory: Path, environ: Mapping[str, str]) -> bytes:
    """Return the platform's secret: `SECRET_KEY` (alias `JWT_SECRET_KEY`), else the host's file.

    Raises:
        FileNotFoundError: Neither is there; `ensure_secrets` makes the file.
    """
    given = next((environ[name] for name in SECRET_KEY_NAMES if environ.get(name)), None)
    return given.encode() if given else (directory / SECRET_KEY_FILE).read_bytes()


def list_signing_keys(directory: Path) -> list[tuple[str, int | None]]:
    """Return the ids of the keys that verify access tokens, and when each retires.

    None for the one that signs; the others' ends are Unix seconds.
    """
    keys = json.loads((directory / JWKS_FILE).read_text())["keys"]
    return [(str(each["kid"]), each.get("retires_at")) for each in keys]


def load_signing_key(pem: bytes) -> tuple[SigningKey, SigningAlgorithm]:
    """Read a private or public key; its kind says what it signs with.

    Raises:
        ValueError: it is of no kind that we sign with.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if b"PRIVATE" in pem:
        found: Any = serialization.load_pem_private_key(pem, None)
    else:
        found = serialization.load_pem_public_key(pem)
    kinds: tuple[tuple[Any, Any, SigningAlgorithm], ...] = (
        ((rsa.RSAPrivateKey, rsa.RSAPublicKey), RSAKey, "RS256"),
        ((ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey), ECKey, "ES256"),
        ((ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey), OKPKey, "EdDSA"),
    )
    for types, kind, algorithm in kinds:
        if isinstance(found, types):
            if algorithm == "ES256" and not isinstance(found.curve, ec.SECP256R1):
                break
            if algorithm == "RS256" and found.key_size < _RSA_BITS:
                break
            key: SigningKey = kind.import_key(found, {"use": "sig", "alg": algorithm})
            key.ensure_kid()
            return key, algorithm
    raise ValueError("access tokens are signed with RSA (2048 bits or more), P-256 or Ed25519")


def read_key_set(path: Path) -> dict[str, Any]:
    """Read a key set: a JWKS, or a single public key in PEM.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is neither.
    """
    content = path.read_bytes()
    if content.lstrip().startswith(b"-----BEGIN"):
        key, _ = load_signing_key(content)
        return {"keys": [key.as_dict(private=False)]}
    found: dict[str, Any] = json.loads(content)
    return found


def rotate_signing_key(
    directory: Path,
    *,
    now_seconds: int,
    overlap_seconds: int,
    algorithm: SigningAlgorithm | None = None,
) -> str:
    """Sign access tokens with a new key; tokens of the old ones stay good for the overlap.

    Everybody can verify with the new key before anything is signed with it. Keys whose time is
    over are removed.

    Args:
        algorithm: of the new key; the old one's where None.

    Returns:
        The new key's id.
    """
    if algorithm is None:
        _, algorithm = load_signing_key((directory / PRIVATE_KEY_FILE).read_bytes())
    key = _generate(algorithm)
    retires_at = now_seconds + overlap_seconds
    kept = [
        {**each, "retires_at": min(each.get("retires_at", retires_at), retires_at)}
        for each in json.loads((directory / JWKS_FILE).read_text())["keys"]
    ]
    kept = [each for each in kept if each["retires_at"] > now_seconds]
    keys = [*kept, key.as_dict(private=False)]
    _write(directory / JWKS_FILE, json.dumps({"keys": keys}, indent=1).encode())
    _write(directory / PRIVATE_KEY_FILE, key.as_pem(private=True))
    return str(key.kid)


def _generate(algorithm: SigningAlgorithm) -> SigningKey:
    parameters: Any = {"use": "sig", "alg": algorithm}
    if algorithm == "RS256":
        return RSAKey.generate_key(_RSA_BITS, parameters, auto_kid=True)
    if algorithm == "ES256":
        return ECKey.generate_key("P-256", parameters, auto_kid=True)
    return OKPKey.generate_key("Ed25519", parameters, auto_kid=True)


def _add_public(path: Path, public: dict[str, Any]) -> None:
    keys = json.loads(path.read_text())["keys"] if path.exists() else []
    keys = [each for each in keys if each["kid"] != public["kid"]] + [public]
    _write(path, json.dumps({"keys": keys}, indent=1).encode())


def _write(path: Path, content: bytes) -> None:
    """Write a whole file or none, never readable by others even for an instant."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
