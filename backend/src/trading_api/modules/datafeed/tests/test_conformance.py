"""The conformance tests pass a sound server, and each catches the defect that it is for."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import httpx
import pytest
import uvicorn
from rich.console import Console

from trading_api.modules.datafeed.commands.conformance import report
from trading_api.modules.datafeed.commands.conformance.command import (
    TOKEN_VARIABLE,
    ConformanceCommand,
    rules_of,
    run_rules,
)
from trading_api.modules.datafeed.commands.conformance.rules import RULES, Result, Settings
from trading_api.modules.datafeed.commands.conformance.server import (
    AnswerError,
    Dialect,
    Server,
    _cell,
)
from trading_api.modules.datafeed.tests.conformance_server import (
    DEFECTS,
    TICKER,
    ConformanceServer,
)
from trading_api.modules.datafeed.tests.conftest import ClientOf
from trading_api.testkit.bus import eventually
from trading_api.testkit.clocks import FixedClock
from trading_api.testkit.fleet import free_port

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SIGNED_IN = {"Authorization": "Bearer token"}


async def examine(
    broken: str, dialect: Dialect, only: list[str], *, url: str | None = None
) -> list[Result]:
    server = ConformanceServer(broken)
    transport = None if url else httpx.ASGITransport(app=server.app)
    base = f"{url or 'http://tests'}/{dialect}/"
    async with (
        httpx.AsyncClient(transport=transport, base_url=base, headers=SIGNED_IN) as client,
        httpx.AsyncClient(transport=transport, base_url=base) as anonymous,
    ):
        return await run_rules(
            Server(client, anonymous, dialect, ("somebody", "secret")),
            rules_of(dialect, only),
            symbols=[TICKER] if broken and dialect == "udf" else [],
            settings=Settings(wait_seconds=1.5 if url else 0.05),
        )


def failed(results: list[Result]) -> list[str]:
    return [f"{each.rule.name}: {each.message}" for each in results if each.outcome == "failed"]


async def test_sound_udf_server_passes_all() -> None:
    results = await examine("", "udf", [])
    assert failed(results) == []
    assert [each.rule.name for each in results if each.outcome == "skipped"] == []


@pytest.mark.parametrize("broken", [name for name in DEFECTS if not name.startswith("stream")])
async def test_every_defect_is_caught_by_its_test(broken: str) -> None:
    dialect, name = DEFECTS[broken]
    (result,) = await examine(broken, dialect, [name])  # type: ignore[arg-type]
    assert result.outcome == "failed", result.message
    assert result.message
    assert result.rule.shows


@contextlib.asynccontextmanager
async def listening(broken: str) -> AsyncIterator[str]:
    """Serve on a real socket, which a stream needs; yield the address."""
    port = free_port()
    config = uvicorn.Config(
        ConformanceServer(broken).app, port=port, log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started, within_seconds=20)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


async def test_streams_pass_or_are_caught() -> None:
    """All at once, since each test listens for a while."""

    async def one(broken: str, names: list[str]) -> list[Result]:
        async with listening(broken) as url:
            found = await asyncio.gather(*(examine("", "tv", [name], url=url) for name in names))
        return [result for results in found for result in results]

    streams = [name for name in DEFECTS if name.startswith("stream")]
    names = [each.name for each in rules_of("tv", [])]
    sound, *others = await asyncio.gather(
        one("", names), *(one(broken, [DEFECTS[broken][1]]) for broken in streams)
    )
    assert failed(sound) == []
    assert [each.rule.name for each in sound if each.outcome == "skipped"] == []
    for broken, (result,) in zip(streams, others, strict=True):
        assert result.outcome == "failed", (broken, result.message)


def test_a_column_with_values_for_some_symbols_is_told() -> None:
    name = "supported-resolutions"
    for shared in ("1", ["1", "5"], [["1", "5"], ["1"]]):
        assert _cell(name, shared, 0, 2)
    with pytest.raises(AnswerError, match="has 1 values for 2 symbols"):
        _cell(name, [["1"]], 0, 2)
    with pytest.raises(AnswerError, match="type has 3 values"):
        _cell("type", ["stock"] * 3, 0, 2)


def test_every_test_has_a_defect_that_shows_it_can_fail() -> None:
    shown = {name for _, name in DEFECTS.values()}
    assert {each.name for each in RULES} == shown


async def test_our_own_udf_surface_passes(client_of: ClientOf) -> None:
    udf = "/api/v1/datafeed/udf/"
    client, anonymous = client_of("datafeed:read"), client_of()
    for each in (client, anonymous):
        each.base_url = httpx.URL(f"http://tests{udf}")
    results = await run_rules(
        Server(client, anonymous, "udf"),
        rules_of("udf", []),
        symbols=[],
        settings=Settings(wait_seconds=0),
    )
    assert failed(results) == []
    assert [each.rule.name for each in results if each.outcome == "skipped"] == []


async def test_reports_say_what_a_chart_would_show(capsys: pytest.CaptureFixture[str]) -> None:
    only = ["historyCountbackMinutes", "historyTimeCorrectness"]
    results = await examine("countback_ignored", "udf", only)
    facts = {"url": "http://x/<udf>", "dialect": "udf", "at": AT}
    shows = results[0].rule.shows
    document = json.loads(report.as_json(results, **facts))  # type: ignore[arg-type]
    assert document["summary"] == {"failed": 1, "passed": 1}
    assert document["tests"][0]["shows"] == shows
    suite = ET.fromstring(report.as_junit(results, **facts))  # type: ignore[arg-type]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert shows in str(failure.text)
    page = report.as_html(results, **facts)  # type: ignore[arg-type]
    assert shows in page
    assert "<udf>" not in page
    report.print_table(Console(width=120), results, url="http://x")
    assert "1 passed, 1 failed, 0 skipped" in capsys.readouterr().out


async def test_command_reports_and_exits(
    tmp_path: Path,
    clock: FixedClock,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ConformanceCommand(clock)
    assert await command.run(["http://127.0.0.1:9", "--only", "noSuchTest"]) == 2
    assert await command.run(["--dialect", "nonsense", "http://x"]) == 2
    assert await command.run([f"http://127.0.0.1:{free_port()}/udf", "--wait", "0"]) == 1
    assert await command.run(["http://x", "--list", "--dialect", "tv"]) == 0
    assert "streamingTimeGrow" in capsys.readouterr().out

    monkeypatch.setenv(TOKEN_VARIABLE, "token")
    output = tmp_path / "report.html"
    async with listening("unsorted") as url:
        arguments = [f"{url}/udf", "--wait", "0", "--output", str(output)]
        code = await command.run([*arguments, "--only", "historyTimeCorrectness"])
        passed = await command.run([*arguments, "--only", "udfTimeFormat", "--report", "junit"])
    assert (code, passed) == (1, 0)
    assert output.read_text().startswith("<?xml")
