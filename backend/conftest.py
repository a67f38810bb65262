"""Loads the test kit's fixtures for every test, beside modules and under ``tests``."""

pytest_plugins = [
    "trading_api.testkit.fixtures",
    "trading_api.testkit.fixtures_bus",
    "trading_api.testkit.fixtures_postgresql",
]
