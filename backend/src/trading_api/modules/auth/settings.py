"""Settings that auth alone reads."""

import os
from typing import Literal

from pydantic import Field, SecretStr
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
        90, ge=1, description="time after which one more is allowed; more after many failures"
    )
    login_address_burst: int | None = Field(
        None, ge=1, description="failed sign-ins from one address; 30, in development 100"
    )
    login_address_interval_seconds: int | None = Field(
        None, ge=1, description="time after which one more is allowed; 30, in development 3"
    )
    code_burst: int = Field(5, ge=1, description="wrong second factors in a row for one user")
    code_interval_seconds: int = Field(
        300, ge=1, description="time after which one more is allowed; more after many failures"
    )
    mail_burst: int = Field(
        3, ge=1, description="mails to one address that anybody can cause, such as resets"
    )
    mail_interval_seconds: int = Field(
        1200, ge=1, description="time after which one more is allowed"
    )
    confirm_email: bool | None = Field(
        None,
        description="whoever registers confirms the address by mail first; on in production",
    )
    site_name: str = Field("Trading", description="as authenticator apps and mails call us")
    site_url: str = Field(
        "http://localhost:8000",
        pattern=r"^https?://[^/?#]+/?$",
        description="our address for people: links in mails lead there, passkeys belong to it",
    )
    mail_from: str = Field("no-reply@localhost", description="sender of mails")
    smtp_host: str = Field(
        "", description="mail server; where absent, mails become files in `TRADING_LOCAL_DIR/mail`"
    )
    smtp_port: int = Field(587, ge=1, le=65535, description="465 for `tls`")
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="`none` only for a server on the same host"
    )
    smtp_username: str = Field("", description="where the mail server asks for one")
    google_client_id: str = Field(
        "", validation_alias="GOOGLE_CLIENT_ID", description="of our client there; none: no Google"
    )
    google_client_secret: SecretStr = Field(
        SecretStr(""), validation_alias="GOOGLE_CLIENT_SECRET", description="see GOOGLE_CLIENT_ID"
    )
    smtp_password: SecretStr = Field(SecretStr(""), description="see AUTH_SMTP_USERNAME")

    def mistakes(self, *, is_production: bool) -> list[str]:
        """Return what no single field can tell."""
        found: list[str] = []
        if not is_production:
            return found
        if self.confirm_email is not False and not self.smtp_host:
            found.append(
                "AUTH_SMTP_HOST: needed in production, where registering is confirmed by mail; "
                "or set AUTH_CONFIRM_EMAIL to false"
            )
        if self.smtp_host and not self.site_url.startswith("https://"):
            found.append("AUTH_SITE_URL: must be our https:// address; links in mails lead there")
        return found
