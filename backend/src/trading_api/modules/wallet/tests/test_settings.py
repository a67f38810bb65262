"""What operators may choose, and what stops the start."""

import pytest

from trading_api.modules.wallet.settings import WalletSettings
from trading_api.runtime.settings import ConfigurationError, load_settings


def test_rail_when_automatic_then_sandbox_in_development_and_manual_in_production():
    settings = load_settings(WalletSettings, {})
    assert settings.rail_name(is_production=False) == "sandbox"
    assert settings.rail_name(is_production=True) == "manual"


def test_rail_when_sandbox_is_chosen_for_production_then_start_is_refused():
    settings = load_settings(WalletSettings, {"WALLET_PAYMENT_RAIL": "sandbox"})
    assert settings.rail_name(is_production=False) == "sandbox"
    with pytest.raises(ConfigurationError, match="WALLET_PAYMENT_RAIL"):
        settings.rail_name(is_production=True)


@pytest.mark.parametrize("value", ["USD,XXX", "", "EUR"])
def test_currencies_when_unknown_or_without_usd_then_start_is_refused(value):
    settings = load_settings(WalletSettings, {"WALLET_CURRENCIES": value})
    with pytest.raises(ConfigurationError, match="WALLET_CURRENCIES"):
        settings.known_currencies()


def test_currencies_when_listed_then_in_order_and_once():
    settings = load_settings(WalletSettings, {"WALLET_CURRENCIES": "eur, USD,EUR"})
    assert [each.code for each in settings.known_currencies()] == ["EUR", "USD"]
