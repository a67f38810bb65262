"""Settings of datafeed."""

from typing import Annotated

from pydantic import Field, StringConstraints

from trading_api.runtime.settings import OwnedSettings


class DatafeedSettings(OwnedSettings):
    """What this module can be told."""

    datafeed_public: bool = Field(False, description="market data readable without signing in")
    datafeed_demo_seed: Annotated[
        str, StringConstraints(min_length=1, max_length=64, pattern=r"^[ -~]+$")
    ] = Field(
        "trading", description="decides the demo market's minutes; fixed for ever by the first seed"
    )
    datafeed_providers: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._, -]*$",
        description="live providers that run, by comma: simulated, replay, ccxt, or third parties'",
    )
    datafeed_simulated_symbols: str = Field(
        "ALPHA,BETA", description="tickers that the provider `simulated` offers, by comma"
    )
    datafeed_replay_series: str = Field(
        "eurusd-60", description="stored series that the provider `replay` plays, by comma"
    )
    datafeed_replay_speed: int = Field(
        60, ge=1, le=10_000, description="seconds of history that `replay` plays in a second"
    )
    datafeed_ccxt_markets: str = Field(
        "binance:BTC/USDT",
        description="what the provider `ccxt` follows, by comma: exchange, colon, its symbol",
    )
    datafeed_ccxt_url: str = Field(
        "",
        description="where the exchange is reached instead of its own addresses, such as "
        "`http://127.0.0.1:9999`; its streams are below `/ws` there",
    )
    datafeed_history_hours: int = Field(
        24, ge=1, le=24 * 365, description="how far back a provider's first backfill goes"
    )
    datafeed_seconds_hours: int = Field(
        24,
        ge=0,
        le=7 * 24,
        description="how long bars of a second are kept of what a provider feeds, 4 MiB of memory "
        "a day and symbol; 0: none",
    )
    bar_broadcaster_enabled: bool = Field(True, description="live bars on the WebSocket")
    bar_broadcaster_interval: float = Field(
        2.0, ge=0.5, le=60, description="seconds between two updates of a forming bar"
    )
    bar_broadcaster_symbols: str = Field(
        "AAPL,GOOGL,MSFT",
        pattern=r"^[ ]*([A-Za-z0-9._-]{1,20}[ ]*(,[ ]*[A-Za-z0-9._-]{1,20}[ ]*)*)?$",
        description="tickers that DEMO must offer, by comma; those without history are simulated",
    )
    bar_broadcaster_resolutions: str = Field(
        "1",
        pattern=r"^[0-9A-Za-z, ]*$",
        description="resolutions whose bars are made ready at start, by comma",
    )

    @property
    def providers(self) -> list[str]:
        """Live providers that run."""
        return split(self.datafeed_providers)

    @property
    def required_tickers(self) -> list[str]:
        """Tickers that DEMO must offer, upper case."""
        return [each.upper() for each in split(self.bar_broadcaster_symbols)]

    @property
    def ready_resolutions(self) -> list[str]:
        """Resolutions made ready at start."""
        return split(self.bar_broadcaster_resolutions)


def split(text: str) -> list[str]:
    """Return the parts of a comma list, blanks removed, empty ones left out."""
    return [part.strip() for part in text.split(",") if part.strip()]
