import pytest

from trading_api.modules.datafeed.settings import DatafeedSettings
from trading_api.runtime.settings import ConfigurationError, load_settings


def test_defaults_are_the_documented_ones() -> None:
    settings = load_settings(DatafeedSettings, {})
    assert settings.bar_broadcaster_enabled
    assert settings.bar_broadcaster_interval == 2.0
    assert settings.required_tickers == ["AAPL", "GOOGL", "MSFT"]
    assert settings.ready_resolutions == ["1"]
    assert not settings.datafeed_public


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BAR_BROADCASTER_INTERVAL", "0"),
        ("BAR_BROADCASTER_SYMBOLS", "AAPL,<script>"),
        ("BAR_BROADCASTER_RESOLUTIONS", "1;5"),
        ("DATAFEED_DEMO_SEED", ""),
    ],
)
def test_senseless_setting_stops_the_start_and_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        load_settings(DatafeedSettings, {name: value})


def test_comma_lists_bear_blanks_and_case() -> None:
    environ = {"BAR_BROADCASTER_SYMBOLS": " aapl, tsla ", "BAR_BROADCASTER_RESOLUTIONS": "1, 1D"}
    settings = load_settings(DatafeedSettings, environ)
    assert settings.required_tickers == ["AAPL", "TSLA"]
    assert settings.ready_resolutions == ["1", "1D"]
