"""Settings of the wallet, `WALLET_*`."""

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from trading_api.kernel.values import CURRENCIES, Currency, currency
from trading_api.runtime.settings import ConfigurationError, OwnedSettings


class WalletSettings(OwnedSettings):
    """What operators may choose about wallets."""

    model_config = SettingsConfigDict(env_prefix="WALLET_")

    payment_rail: Literal["auto", "sandbox", "manual"] = Field(
        "auto",
        description="`sandbox` settles itself, demo money only, refused in production; `manual` "
        "waits for an operator; `auto` is sandbox in development, manual in production",
    )
    currencies: str = Field(
        ",".join(CURRENCIES), description="comma list of the currencies that wallets may hold"
    )

    def rail_name(self, *, is_production: bool) -> Literal["sandbox", "manual"]:
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
