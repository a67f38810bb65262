"""Settings that auth alone reads."""

import os

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from trading_api.runtime.settings import OwnedSettings

_CORES = os.cpu_count() or 2


class AuthSettings(OwnedSettings):
    """Tokens, sessions, passwords and throttling."""

    model_config = SettingsConfigDict(
        env_prefix="auth_", extra="ignore", frozen=True, populate_by_name=True
    )

    access_token_expire_minutes: int = Field(
        5,
        ge=1,
        le=10,
        validation_alias="ACCESS_TOKEN_EXPIRE_MINUTES",
        description="life of an access token; processes refuse more than 10 minutes",
    )
    admin_email: str = Field(
        "",
        validation_alias="ADMIN_EMAIL",
        description="in development the user who registers with it, while there is no admin, "
        "becomes one; in production grant it by `trading-api users role`",
    )
    session_days: int = Field(30, ge=1, le=365, description="a session's absolute end")
    session_idle_days: int = Field(7, ge=1, le=365, description="a session's end without use")
    refresh_grace_seconds: int = Field(
        10, ge=0, le=60, description="how long a repeated refresh gets the same answer"
    )
    password_length_min: int | None = Field(None, ge=8, le=128, description="15, in development 8")
    password_parallel: int = Field(
        default_factory=lambda: max(1, _CORES // 2),
        ge=1,
        le=64,
        description="passwords hashed at a time, half of the cores; 19 MiB each",
    )
    password_queue_max: int = Field(
        64, ge=1, le=10_000, description="sign-ins that may wait for it; more get 503"
    )
    login_account_burst: int = Field(
        10, ge=1, description="failed sign-ins in a row for one account"
    )
    login_account_interval_seconds: int = Field(
        30, ge=1, description="time after which one more is allowed"
    )
    login_address_burst: int = Field(
        100, ge=1, description="failed sign-ins in a row from one address"
    )
    login_address_interval_seconds: int = Field(
        3, ge=1, description="time after which one more is allowed"
    )
