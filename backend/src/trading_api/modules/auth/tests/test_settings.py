"""Settings of auth that contradict one another in production."""

import pytest

from trading_api.modules.auth.settings import AuthSettings
from trading_api.runtime.settings import ConfigurationError, load_settings

SMTP = {"AUTH_SMTP_HOST": "mail.example.com"}
SITE = {"AUTH_SITE_URL": "https://trading.example.com"}


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, ["AUTH_SMTP_HOST"]),
        ({"AUTH_CONFIRM_EMAIL": "false"}, []),
        (SMTP, ["AUTH_SITE_URL"]),
        (SMTP | SITE, []),
    ],
)
def test_production_then_mails_can_go_out_and_lead_somewhere(
    environ: dict[str, str], named: list[str]
) -> None:
    settings = load_settings(AuthSettings, environ)
    found = settings.mistakes(is_production=True)
    assert [each.partition(":")[0] for each in found] == named
    assert settings.mistakes(is_production=False) == []


@pytest.mark.parametrize("url", ["trading.example.com", "https://x.example/app", "ftp://x"])
def test_site_when_no_plain_address_then_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        load_settings(AuthSettings, {"AUTH_SITE_URL": url})
