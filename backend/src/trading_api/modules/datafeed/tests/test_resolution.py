import pytest

from trading_api.modules.datafeed.domain.resolution import parse_resolution
from trading_api.modules.datafeed.errors import ResolutionUnsupportedError


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("1", "1"),
        ("60", "60"),
        ("1h", "60"),
        ("4H", "240"),
        ("D", "1D"),
        ("d", "1D"),
        ("1d", "1D"),
        ("W", "1W"),
        ("1m", "1M"),
        ("M", "1M"),
        ("12M", "12M"),
    ],
)
def test_resolution_in_any_spelling_has_one_canonical_form(written: str, canonical: str) -> None:
    assert str(parse_resolution(written)) == canonical


@pytest.mark.parametrize(
    "written",
    ["", "0", "0D", "-1", "7S", "5T", "1Y", "D1", "1 D", "\0", "1441", "99999", "13M", "٣", "1D\n"],
)
def test_resolution_that_is_none_is_refused(written: str) -> None:
    with pytest.raises(ResolutionUnsupportedError):
        parse_resolution(written)
