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
    bar_broadcaster_enabled: bool = Field(True, description="live bars on the WebSocket")
    bar_broadcaster_interval: float = Field(
        2.0, ge=0.5, le=60, description="seconds between two updates of a forming bar"
    )
    bar_broadcaster_symbols: str = Field(
        "AAPL,GOOGL,MSFT", description="instruments that must exist on DEMO, by comma"
    )
    bar_broadcaster_resolutions: str = Field(
        "1", description="resolutions that must be offered for them, by comma"
    )
