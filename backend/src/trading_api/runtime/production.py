"""What a process refuses to start with: settings that are fine at a desk and dangerous in public.

Every mistake is named by its variable or file, never by its value.
"""

import stat
from collections.abc import Mapping

from trading_api.runtime.secrets import SECRET_KEY_NAMES
from trading_api.runtime.settings import ConfigurationError, PlatformSettings

SECRET_LENGTH_MIN = 32
_PLACEHOLDERS = ("changeme", "change-me", "secret", "password", "example", "dev", "test")


def ensure_startable(settings: PlatformSettings, environ: Mapping[str, str]) -> None:
    """Check what no single field can check.

    Raises:
        ConfigurationError: lists every mistake.
    """
    mistakes = _cors_mistakes(settings)
    if settings.is_production:
        mistakes += _secret_mistakes(environ)
        mistakes += _database_mistakes(settings)
        mistakes += _file_mistakes(settings)
        if settings.cookie_secure is False:
            mistakes.append("COOKIE_SECURE: must not be off in production")
        if settings.log_level == "DEBUG":
            mistakes.append("LOG_LEVEL: must not be DEBUG in production")
    if mistakes:
        raise ConfigurationError(mistakes)


def _cors_mistakes(settings: PlatformSettings) -> list[str]:
    mistakes = []
    for origin in sorted(settings.allowed_origins):
        scheme, _, host = origin.partition("://")
        if origin == "*":
            if settings.cors_allow_credentials:
                mistakes.append("CORS_ORIGINS: `*` can't be combined with CORS_ALLOW_CREDENTIALS")
        elif scheme not in ("http", "https") or not host or "/" in host:
            mistakes.append("CORS_ORIGINS: each must be like https://app.example.com, or `*`")
        elif scheme == "http" and settings.is_production:
            mistakes.append("CORS_ORIGINS: must be https:// in production")
    return list(dict.fromkeys(mistakes))


def _secret_mistakes(environ: Mapping[str, str]) -> list[str]:
    mistakes = []
    for name in SECRET_KEY_NAMES:
        value = environ.get(name)
        if value is None:
            continue
        if len(value) < SECRET_LENGTH_MIN:
            mistakes.append(f"{name}: needs at least {SECRET_LENGTH_MIN} characters in production")
        elif len(set(value)) < 10 or value.lower().startswith(_PLACEHOLDERS):
            mistakes.append(f"{name}: looks like a placeholder; use `openssl rand -hex 32`")
    return mistakes


def _database_mistakes(settings: PlatformSettings) -> list[str]:
    if not settings.db_host or settings.database_url is not None:
        return []
    password = settings.db_password.get_secret_value()
    if not password or password.lower().startswith(_PLACEHOLDERS):
        return ["DB_PASSWORD: must be set to a real password in production"]
    return []


def _file_mistakes(settings: PlatformSettings) -> list[str]:
    if not settings.secrets_directory.is_dir():
        return []
    return [
        f"{path}: the whole machine may read it; run `chmod 600 {path}`"
        for path in sorted(settings.secrets_directory.iterdir())
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o007
    ]
