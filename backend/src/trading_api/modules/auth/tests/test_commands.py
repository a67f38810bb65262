"""The manager's verbs `users` and `keys`."""

import io
import json
import sys

import pytest

from trading_api.modules.auth.commands import commands
from trading_api.modules.auth.tests.hosts import Host, run_host
from trading_api.runtime.identity import Identity
from trading_api.runtime.module import Command
from trading_api.runtime.secrets import ensure_secrets
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.clocks import FixedClock

PASSWORD = "correct horse battery"


class Piped(io.StringIO):
    """Standard input that is no terminal."""

    def isatty(self) -> bool:
        return False


@pytest.fixture
async def host(settings: PlatformSettings, environ: dict[str, str], clock: FixedClock):
    async with run_host(settings, environ, clock) as made:
        yield made


@pytest.fixture
def users(host: Host, settings: PlatformSettings, clock: FixedClock) -> Command:
    return commands(host.service, settings=settings, clock=clock)[0]


async def create(users: Command, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(sys, "stdin", Piped(PASSWORD + "\n"))
    return await users.run(["create", "ann@example.com", *options])


async def test_create_then_user_can_be_listed_and_gets_a_working_token(
    users: Command,
    settings: PlatformSettings,
    clock: FixedClock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await create(users, monkeypatch, "--name", "Ann", "--role", "operator") == 0
    assert await users.run(["list", "--json"]) == 0
    listed = capsys.readouterr().out.splitlines()[-1]
    [ann] = json.loads(listed)
    assert (ann["email"], ann["roles"], ann["full_name"]) == (
        "ann@example.com",
        ["operator"],
        "Ann",
    )
    assert await users.run(["token", "ann@example.com"]) == 0
    token = capsys.readouterr().out.strip()
    identity = Identity(settings=settings, clock=clock)
    principal = await identity.verify(token)
    assert principal.user_id == ann["id"]
    clock.advance(12 * 3600 - 1)
    await identity.verify(token)


async def test_token_when_production_then_ten_minutes_at_most(
    host: Host,
    settings: PlatformSettings,
    clock: FixedClock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    production = settings.model_copy(update={"environment": "production"})
    users = commands(host.service, settings=production, clock=clock)[0]
    await create(users, monkeypatch)
    capsys.readouterr()
    assert await users.run(["token", "ann@example.com", "--minutes", "60"]) == 0
    principal = await Identity(settings=production, clock=clock).verify(
        capsys.readouterr().out.strip()
    )
    assert principal.expires_at_seconds == int(clock.now().timestamp()) + 600
    assert await users.run(["token", "ann@example.com", "--minutes", "0"]) == 2


async def test_disable_then_no_more_token_until_enabled(
    users: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await create(users, monkeypatch)
    assert await users.run(["disable", "ANN@example.com"]) == 0
    assert await users.run(["token", "ann@example.com"]) == 1
    assert "disabled" in capsys.readouterr().err
    assert await users.run(["enable", "ann@example.com"]) == 0
    assert await users.run(["token", "ann@example.com"]) == 0


async def test_role_then_exactly_these(
    users: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await create(users, monkeypatch)
    assert await users.run(["role", "ann@example.com", "user", "master"]) == 0
    assert "master,user" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2),
        (["dance"], 2),
        (["role", "ann@example.com", "emperor"], 2),
        (["disable", "nobody@example.com"], 1),
        (["create", "no address"], 1),
        (["--help"], 0),
    ],
)
async def test_users_when_asked_wrongly_then_exit_code_tells(
    users: Command, arguments: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Piped(PASSWORD))
    assert await users.run(arguments) == code


async def test_create_when_password_is_refused_then_told_and_nobody_is_made(
    users: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Piped("password\n"))
    assert await users.run(["create", "ann@example.com", "--password-stdin"]) == 1
    assert "first that are tried" in capsys.readouterr().err
    await users.run(["list"])
    assert capsys.readouterr().out == ""


async def test_keys_when_rotated_then_listed_with_their_ends(
    host: Host,
    settings: PlatformSettings,
    clock: FixedClock,
    tmp_path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = settings.model_copy(update={"trading_local_dir": tmp_path / "other"})
    ensure_secrets(own.secrets_directory)
    keys = commands(host.service, settings=own, clock=clock)[1]
    assert await keys.run(["list"]) == 0
    assert capsys.readouterr().out.count("signs") == 1
    assert await keys.run(["rotate"]) == 0
    capsys.readouterr()
    assert await keys.run(["list"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("verifies until 2026-03-03T02:30:00+00:00")
    assert second.endswith("signs")
