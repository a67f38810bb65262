import pytest

from trading_api.runtime.environment import load_dotenv, merge_environment, parse_dotenv
from trading_api.runtime.topology import DeploymentConfigError


def test_dotenv_values_comments_quotes_and_line_ends_are_read():
    values, mistakes = parse_dotenv(
        b'\xef\xbb\xbf# first\r\nA=1\r\nexport B = two\n\nC=\'it # is\'\nD="a\\nb \\"c\\""\nE=\n'
        b"URL=postgresql+asyncpg://u:p=1@h/db?x=y\n"
    )
    assert mistakes == []
    assert values == {
        "A": "1",
        "B": "two",
        "C": "it # is",
        "D": 'a\nb "c"',
        "E": "",
        "URL": "postgresql+asyncpg://u:p=1@h/db?x=y",
    }


def test_every_bad_line_is_named_and_no_value_is_shown(tmp_path):
    file = tmp_path / ".env"
    file.write_bytes(
        b"NO_EQUALS\n9A=canary1\nA=1\nA=canary2\nB='canary3\nC=\"canary4\nD=canary5 # six\n"
        b"E=ca\0nary\n"
    )
    with pytest.raises(DeploymentConfigError) as caught:
        load_dotenv([tmp_path / "absent", file])
    assert caught.value.mistakes == [
        "line 1: must read NAME=value",
        "line 2: must read NAME=value",
        "line 4 (A): is set twice",
        "line 5 (B): has an unfinished single quote",
        "line 6 (C): has an unfinished double quote",
        "line 7 (D): needs quotes: it holds a blank, a quote or '#'",
        "line 8 (E): holds a NUL byte",
    ]
    assert "nary" not in str(caught.value)


@pytest.mark.parametrize("content", [b"A=\xff\xfe", b"A=" + b"x" * 300_000])
def test_unreadable_file_is_one_mistake(content):
    values, mistakes = parse_dotenv(content)
    assert values == {}
    assert len(mistakes) == 1


def test_later_file_and_outer_layers_win(tmp_path):
    (tmp_path / "root").write_text("A=root\nB=root\n")
    (tmp_path / "backend").write_text("B=backend\n")
    dotenv = load_dotenv([tmp_path / "root", tmp_path / "backend"])
    merged = merge_environment({"P": "own"}, server={"P": "s", "A": "s"}, dotenv=dotenv)
    assert merged == {"A": "s", "B": "backend", "P": "own"}
