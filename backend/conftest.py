"""Loads the test kit's fixtures for every test, beside modules and under ``tests``."""

from hypothesis import HealthCheck, settings

pytest_plugins = [
    "trading_api.testkit.fixtures",
    "trading_api.testkit.fixtures_bus",
    "trading_api.testkit.fixtures_postgresql",
]

# A busy machine is no fault of what is tested.
settings.register_profile("trading", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("trading")
