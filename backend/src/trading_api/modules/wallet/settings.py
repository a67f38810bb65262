"""Settings of the wallet, `WALLET_*`."""

from datetime import timedelta

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from trading_api.kernel.errors import TradingError
from trading_api.kernel.values import CURRENCIES, Currency, Money, currency
from trading_api.runtime.settings import ConfigurationError, OwnedSettings

_BY_CURRENCY = "; `USD=100.00,EUR=90`, a currency that isn't named has none"


class WalletSettings(OwnedSettings):
    """What operators may choose about wallets."""

    model_config = SettingsConfigDict(env_prefix="WALLET_")

    payment_rail: str = Field(
        "auto",
        pattern=r"^[a-z][a-z0-9-]{0,31}$",
        description="`sandbox` settles itself, demo money only, refused in production; `manual` "
        "waits for an operator; `auto` is sandbox in development, manual in production; others "
        "by entry point `trading_api.payment_rails`",
    )
    currencies: str = Field(
        ",".join(CURRENCIES), description="comma list of the currencies that wallets may hold"
    )
    deposit_minimum: str = Field("", description="least of one deposit" + _BY_CURRENCY)
    deposit_maximum: str = Field("", description="most of one deposit" + _BY_CURRENCY)
    deposit_daily: str = Field("", description="most of a UTC day's deposits" + _BY_CURRENCY)
    withdrawal_minimum: str = Field("", description="least of one withdrawal" + _BY_CURRENCY)
    withdrawal_maximum: str = Field("", description="most of one withdrawal" + _BY_CURRENCY)
    withdrawal_daily: str = Field("", description="most of a UTC day's withdrawals" + _BY_CURRENCY)
    transfer_minimum: str = Field("", description="least of one transfer" + _BY_CURRENCY)
    transfer_maximum: str = Field("", description="most of one transfer" + _BY_CURRENCY)
    transfer_daily: str = Field(
        "",
        description="most of a UTC day's transfers, both ways added up, open ones included"
        + _BY_CURRENCY,
    )
    exchange_minimum: str = Field("", description="least to sell in one exchange" + _BY_CURRENCY)
    exchange_maximum: str = Field("", description="most to sell in one exchange" + _BY_CURRENCY)
    exchange_fee_ppm: int = Field(
        0,
        ge=0,
        le=100_000,
        description="the house's margin on exchanges, millionths of the market's bid or ask",
    )
    withdrawal_confirm_from: str = Field(
        "", description="withdrawals from this amount on are confirmed separately" + _BY_CURRENCY
    )
    withdrawal_confirm_seconds: int = Field(
        900, ge=60, le=86_400, description="how long there is time to confirm a withdrawal"
    )
    withdrawal_cooling_off_seconds: int | None = Field(
        None,
        ge=0,
        le=30 * 86_400,
        description="how long a destination is too new to be paid; withdrawals then name theirs; "
        "unset: none in development, 86400 in production",
    )

    def rail_name(self, *, is_production: bool) -> str:
        """Return the rail to use.

        Raises:
            ConfigurationError: The sandbox was chosen for production.
        """
        if self.payment_rail == "auto":
            return "manual" if is_production else "sandbox"
        if self.payment_rail == "sandbox" and is_production:
            raise ConfigurationError(
                ["WALLET_PAYMENT_RAIL: `sandbox` invents money; production needs another rail"]
            )
        return self.payment_rail

    def cooling_off(self, *, is_production: bool) -> timedelta:
        """Return how long a new destination waits."""
        seconds = self.withdrawal_cooling_off_seconds
        if seconds is None:
            seconds = 86_400 if is_production else 0
        return timedelta(seconds=seconds)

    def amounts(self, name: str) -> dict[str, Money]:
        """Read one of the settings that name an amount per currency, by currency code.

        Raises:
            ConfigurationError: Lists what can't be read.
        """
        found: dict[str, Money] = {}
        mistakes: list[str] = []
        for each in filter(None, (part.strip() for part in getattr(self, name).split(","))):
            code, _, amount = each.partition("=")
            try:
                found[code.strip()] = Money.parse(amount.strip(), currency(code.strip()))
            except TradingError as error:
                mistakes.append(f"WALLET_{name.upper()}: {each!r:.40}: {error.message}")
        if mistakes:
            raise ConfigurationError(mistakes)
        return found

    def known_currencies(self) -> tuple[Currency, ...]:
        """Return the currencies that wallets may hold, in the configured order.

        Raises:
            ConfigurationError: Lists each code that the platform does not know.
        """
        codes = [each.strip().upper() for each in self.currencies.split(",") if each.strip()]
        unknown = [code for code in codes if code not in CURRENCIES]
        if unknown or not codes:
            raise ConfigurationError(
                [f"WALLET_CURRENCIES: {code!r:.12} is not known here" for code in unknown]
                or ["WALLET_CURRENCIES: names no currency"]
            )
        if "USD" not in codes:
            raise ConfigurationError(["WALLET_CURRENCIES: USD is every wallet's first currency"])
        return tuple(currency(code) for code in dict.fromkeys(codes))
