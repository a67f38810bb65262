"""The broker's own settings, read once by ``module.py``."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from trading_api.runtime.settings import OwnedSettings


class BrokerSettings(OwnedSettings):
    """``BROKER_…`` in the environment."""

    model_config = SettingsConfigDict(env_prefix="BROKER_")

    paper_balance: int = Field(
        default=100_000, ge=1, le=10**9, description="opening cash of a paper account, in units"
    )
    account_currencies: str = Field(
        default="USD,EUR",
        description="in which accounts may be kept, by comma; the first is everybody's first",
    )
    accounts_per_user_max: int = Field(default=20, ge=1, le=1000)
    leverage_stock: int = Field(default=5, ge=1, le=500)
    leverage_forex: int = Field(default=30, ge=1, le=500)
    leverage_crypto: int = Field(default=2, ge=1, le=500)
    commission_stock_ppm: int = Field(
        default=100, ge=0, le=100_000, description="parts per million of the traded value"
    )
    commission_forex_ppm: int = Field(default=20, ge=0, le=100_000)
    commission_crypto_ppm: int = Field(default=1000, ge=0, le=100_000)
    events_days: int = Field(
        default=90, ge=1, le=3660, description="how long an account's events are kept"
    )
    price_band_ppm: int = Field(
        default=500_000,
        ge=0,
        le=1_000_000,
        description="how far a limit or trigger price may lie from the market; 0: any",
    )
    position_value_max: int = Field(
        default=10_000_000,
        ge=0,
        le=10**9,
        description="worst value of one position, units of the account's currency; 0: any",
    )
    exposure_max: int = Field(
        default=25_000_000,
        ge=0,
        le=10**9,
        description="worst value of all positions, units of the account's currency; 0: any",
    )
    open_orders_max: int = Field(
        default=500, ge=0, le=100_000, description="open orders of one instrument; 0: any"
    )
    orders_per_second: int = Field(
        default=100, ge=0, le=100_000, description="of one account in the long run; 0: any"
    )
    orders_burst: int = Field(default=200, ge=1, le=100_000, description="at once")
    financing_stock_long_ppm: int = Field(
        default=60_000,
        ge=-(10**6),
        le=10**6,
        description="yearly cost of holding, parts per million of the value; below 0: paid out",
    )
    financing_stock_short_ppm: int = Field(default=20_000, ge=-(10**6), le=10**6)
    financing_forex_long_ppm: int = Field(default=25_000, ge=-(10**6), le=10**6)
    financing_forex_short_ppm: int = Field(default=10_000, ge=-(10**6), le=10**6)
    financing_crypto_long_ppm: int = Field(default=150_000, ge=-(10**6), le=10**6)
    financing_crypto_short_ppm: int = Field(default=50_000, ge=-(10**6), le=10**6)
    slippage_cap_ppm: int = Field(
        default=1000, ge=0, le=100_000, description="margin of market orders is reserved above ask"
    )
    venue_seed: int = Field(default=1, ge=0, description="of everything random about fills")
    venue_volume_stock: int = Field(
        default=2_000_000,
        ge=0,
        le=10**12,
        description="what trades around one quote, units of the quote currency; 0: without limit",
    )
    venue_volume_forex: int = Field(default=50_000_000, ge=0, le=10**12)
    venue_volume_crypto: int = Field(default=2_000_000, ge=0, le=10**12)
    venue_participation_ppm: int = Field(
        default=200_000, ge=1, le=1_000_000, description="share of that volume one order may take"
    )
    venue_impact_ppm: int = Field(
        default=50,
        ge=0,
        le=100_000,
        description="how much worse the price gets for that whole share; at most the slippage cap",
    )
    venue_latency_ms: int = Field(default=0, ge=0, le=60_000)
    venue_latency_jitter_ms: int = Field(default=0, ge=0, le=60_000)

    @property
    def currencies(self) -> tuple[str, ...]:
        """Return the codes of the currencies that accounts may be kept in."""
        return tuple(each.strip().upper() for each in self.account_currencies.split(",") if each)
