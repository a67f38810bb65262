"""Settings: one typed class per owner, filled from the environment.

The precedence (process environment > ``servers.<name>.env`` > ``.env`` > YAML > default) is made
by whoever starts a process: ``runtime.topology`` hands each process one flat environment.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar, cast
from urllib.parse import quote

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

Environment = Literal["development", "production"]

BACKEND_DIRECTORY = Path(__file__).resolve().parents[3]
"""The folder of ``pyproject.toml`` in a checkout."""


class ConfigurationError(Exception):
    """The configuration has mistakes; ``mistakes`` lists all of them, never with a value."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


class OwnedSettings(BaseSettings):
    """Base of every settings class; subclasses set ``env_prefix`` where they own one.

    Names are ``<MODULE>_<NAME>`` upper case, units last; secrets are ``SecretStr`` and have no
    default.
    """

    model_config = SettingsConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class PlatformSettings(OwnedSettings):
    """What every process of the platform is told."""

    environment: Environment = Field(
        "development", description="`production` refuses development defaults at start"
    )
    enabled_modules: str = Field("all", description="`all`, or a comma list of module names")
    database_url: SecretStr | None = Field(
        None, description="PostgreSQL for all modules; SQLite files where absent"
    )
    db_host: str | None = Field(None, description="composes DATABASE_URL where that is absent")
    db_port: int = Field(5432, description="see DB_HOST")
    db_user: str = Field("trading", description="see DB_HOST")
    db_password: SecretStr = Field(SecretStr(""), description="see DB_HOST")
    db_name: str = Field("trading", description="see DB_HOST")
    database_pool_size: int = Field(5, ge=1, le=100, description="open connections per process")
    database_pool_overflow: int = Field(5, ge=0, le=100, description="more under load")
    redis_url: SecretStr | None = Field(
        None, description="bus; the embedded Valkey's socket where absent"
    )
    redis_host: str | None = Field(None, description="composes REDIS_URL where that is absent")
    redis_port: int = Field(6379, description="see REDIS_HOST")
    trading_local_dir: Path = Field(
        BACKEND_DIRECTORY / ".local", description="data, secrets, sockets and logs of this host"
    )
    cors_origins: str = Field("", description="comma list of origins allowed besides our own")
    cors_allow_credentials: bool = Field(False, description="cookies for those origins")
    cookie_secure: bool | None = Field(
        None, description="Secure cookies with __Host- names; on in production"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto`: json in production, readable otherwise"
    )
    rate_login_per_minute: int | None = Field(
        None, ge=1, description="sign-ins and the like from one address; 30, in development wide"
    )
    rate_orders_per_minute: int | None = Field(
        None, ge=1, description="orders and money moves of one user; 600, in development wide"
    )
    rate_history_per_minute: int | None = Field(
        None, ge=1, description="requests for history of one user; 300, in development wide"
    )
    rate_rest_per_minute: int | None = Field(
        None,
        ge=1,
        description="all other requests of one user, or of one address without a sign-in; "
        "1200, in development wide",
    )
    jwt_issuer: str = Field("trading-api", description="`iss` of our access tokens")
    jwt_algorithm: Literal["RS256", "ES256", "EdDSA"] = Field(
        "RS256",
        description="of the signing key that the first start makes; `keys rotate` changes it",
    )
    jwt_private_key_path: Path | None = Field(
        None, description="the signing key in PEM, where it is mounted; auth alone reads it"
    )
    jwt_public_key_path: Path | None = Field(
        None, description="the verifying key in PEM, or several as a JWKS, where it is mounted"
    )
    peers: str = Field(
        "",
        description="where the other modules are, `name=http://host:port` by comma; "
        "the manager's `run/peers.json` where absent",
    )

    @property
    def is_production(self) -> bool:
        """Tell whether development defaults are refused."""
        return self.environment == "production"

    @property
    def uses_secure_cookies(self) -> bool:
        """Tell whether cookies are Secure and carry the __Host- prefix."""
        return self.is_production if self.cookie_secure is None else self.cookie_secure

    @property
    def allowed_origins(self) -> frozenset[str]:
        """Origins besides our own that may send cookies and read answers."""
        return frozenset(each.strip() for each in self.cors_origins.split(",") if each.strip())

    @property
    def data_directory(self) -> Path:
        """Where SQLite files and the bus's log are."""
        return self.trading_local_dir / "data"

    @property
    def secrets_directory(self) -> Path:
        """Where keys are; mode 0700, files 0600."""
        return self.trading_local_dir / "secrets"

    @property
    def key_set_path(self) -> Path:
        """The public keys that verify access tokens: a JWKS, or one key in PEM."""
        return self.jwt_public_key_path or self.secrets_directory / "jwks.json"

    @property
    def run_directory(self) -> Path:
        """Where sockets and pid files are."""
        return self.trading_local_dir / "run"

    def database_url_of(self, module: str, environ: Mapping[str, str]) -> str:
        """Return the SQLAlchemy URL of a module's database.

        ``<MODULE>_DATABASE_URL`` wins over ``DATABASE_URL``, that over ``DB_HOST`` and so on,
        that over the SQLite file ``<module>.db``.
        """
        own = environ.get(f"{module.upper().replace('-', '_')}_DATABASE_URL")
        if own:
            return own
        if self.database_url is not None and self.database_url.get_secret_value():
            return self.database_url.get_secret_value()
        if self.db_host:
            password = quote(self.db_password.get_secret_value(), safe="")
            return (
                f"postgresql+asyncpg://{quote(self.db_user, safe='')}:{password}"
                f"@{self.db_host}:{self.db_port}/{self.db_name}"
            )
        return f"sqlite+aiosqlite:///{self.data_directory / f'{module}.db'}"

    def bus_url(self) -> str:
        """Return the URL of the bus; by default the embedded server's socket."""
        if self.redis_url is not None and self.redis_url.get_secret_value():
            return self.redis_url.get_secret_value()
        if self.redis_host:
            return f"redis://{self.redis_host}:{self.redis_port}/0"
        return f"unix://{self.run_directory / 'bus.sock'}"


S = TypeVar("S", bound=OwnedSettings)


def load_settings(cls: type[S], environ: Mapping[str, str] | None = None) -> S:
    """Read one owner's settings.

    Args:
        cls: the settings class.
        environ: the environment to read; the process's own where None.

    Raises:
        ConfigurationError: lists every bad name with its rule.
    """
    source = dict(os.environ if environ is None else environ)

    class Reader(cls):  # type: ignore[valid-type,misc]
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            reader = EnvSettingsSource(settings_cls)
            reader.env_vars = {name.lower(): value for name, value in source.items()}
            return (init_settings, reader)

    prefix = str(cls.model_config.get("env_prefix") or "").upper()
    try:
        return cast("S", Reader())
    except ValidationError as error:
        raise ConfigurationError(
            [
                f"{prefix}{'.'.join(str(part) for part in each['loc']).upper()}: {each['msg']}"
                for each in error.errors(include_input=False, include_url=False)
            ]
        ) from None
