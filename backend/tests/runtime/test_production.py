"""Production refuses development's defaults, all at once, and never tells a value."""

from pathlib import Path

import pytest

from trading_api.runtime.production import ensure_startable
from trading_api.runtime.settings import ConfigurationError, PlatformSettings, load_settings

GOOD_KEY = "0f9d2a7c41be8356d0e17f2ab9c4835e"


def mistakes_of(environ: dict[str, str]) -> list[str]:
    try:
        ensure_startable(load_settings(PlatformSettings, environ), environ)
    except ConfigurationError as error:
        return error.mistakes
    return []


@pytest.fixture
def production(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "secrets").mkdir()
    key = tmp_path / "secrets" / "jwt_private.pem"
    key.touch(mode=0o600)
    key.chmod(0o600)
    return {"ENVIRONMENT": "production", "TRADING_LOCAL_DIR": str(tmp_path)}


def test_production_when_sound_then_starts(production: dict[str, str]):
    assert mistakes_of({**production, "SECRET_KEY": GOOD_KEY}) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"COOKIE_SECURE": "false"}, "COOKIE_SECURE"),
        ({"SECRET_KEY": "short"}, "SECRET_KEY"),
        ({"SECRET_KEY": "a" * 40}, "SECRET_KEY"),
        ({"JWT_SECRET_KEY": "changeme0f9d2a7c41be8356d0e17f2ab9c4"}, "JWT_SECRET_KEY"),
        ({"DB_HOST": "db", "DB_PASSWORD": "password-4711"}, "DB_PASSWORD"),
        ({"DB_HOST": "db"}, "DB_PASSWORD"),
        ({"CORS_ORIGINS": "*", "CORS_ALLOW_CREDENTIALS": "true"}, "CORS_ORIGINS"),
        ({"CORS_ORIGINS": "http://app.example.com"}, "CORS_ORIGINS"),
        ({"CORS_ORIGINS": "app.example.com"}, "CORS_ORIGINS"),
        ({"LOG_LEVEL": "DEBUG"}, "LOG_LEVEL"),
    ],
)
def test_production_when_one_setting_is_of_a_desk_then_names_it_without_its_value(
    production: dict[str, str], change: dict[str, str], named: str
):
    found = mistakes_of({**production, **change})
    assert [each.partition(":")[0] for each in found] == [named]
    if named.endswith(("KEY", "PASSWORD")):
        assert not any(value in found[0] for value in change.values() if len(value) > 3)


def test_production_when_several_are_wrong_then_lists_all(production: dict[str, str]):
    Path(production["TRADING_LOCAL_DIR"], "secrets", "jwt_private.pem").chmod(0o644)
    found = mistakes_of({**production, "COOKIE_SECURE": "false", "SECRET_KEY": "short"})
    assert len(found) == 3
    assert any("jwt_private.pem" in each for each in found)


def test_development_when_the_same_then_starts(production: dict[str, str]):
    desk = {**production, "ENVIRONMENT": "development", "COOKIE_SECURE": "false"}
    assert mistakes_of({**desk, "SECRET_KEY": "short"}) == []
    assert mistakes_of({**desk, "CORS_ORIGINS": "*", "CORS_ALLOW_CREDENTIALS": "true"}) != []
