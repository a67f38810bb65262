"""``trading-api conformance URL``: arguments, the run, the report."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import httpx
from rich.console import Console

from trading_api.kernel.clock import Clock
from trading_api.modules.datafeed.commands.conformance import (
    basics,
    history,
    report,
    streaming,
)
from trading_api.modules.datafeed.commands.conformance.rules import (
    RULES,
    Result,
    Rule,
    Run,
    Settings,
    run_rule,
)
from trading_api.modules.datafeed.commands.conformance.server import (
    TIMEOUT_SECONDS,
    AnswerError,
    Dialect,
    Server,
)

EXIT_USAGE = 2
TOKEN_VARIABLE = "CONFORMANCE_TOKEN"  # noqa: S105 - a name
PASSWORD_VARIABLE = "CONFORMANCE_PASSWORD"  # noqa: S105

_GROUPS = (basics, history, streaming)
"""Importing them registers their rules, in this order."""

_REPORTS = {"json": report.as_json, "html": report.as_html, "junit": report.as_junit}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the verb's arguments."""
    parser = argparse.ArgumentParser(
        prog="trading-api conformance",
        description="Run TradingView's data tests against a server.",
        epilog=f"A bearer token is read from {TOKEN_VARIABLE}. Without one the tv dialect signs in "
        f"with --login and the password in {PASSWORD_VARIABLE}.",
    )
    parser.add_argument("url", help="address of the surface, such as …/api/v1/datafeed/udf")
    parser.add_argument("--dialect", choices=get_args(Dialect), default="udf")
    parser.add_argument("--only", default="", help="names of tests, by comma")
    parser.add_argument("--symbols", default="", help="tickers to look at, by comma")
    parser.add_argument("--report", choices=sorted(_REPORTS), help="print this in place of a table")
    parser.add_argument("--output", type=Path, help="write the report there, keep the table")
    parser.add_argument("--login", default="", help="tv: login name")
    parser.add_argument("--no-auth", action="store_true", help="the server needs no sign-in")
    parser.add_argument("--list", action="store_true", help="list the tests and end")
    parser.add_argument(
        "--wait",
        type=float,
        default=120.0,
        help="seconds between compared answers, and of a stream (default 120)",
    )
    return parser


def rules_of(dialect: Dialect, only: Sequence[str]) -> list[Rule]:
    """Return the tests of a dialect, in order, only the named ones where any is named.

    Raises:
        ValueError: a name is unknown.
    """
    found = [each for each in RULES if dialect in each.dialects]
    unknown = set(only) - {each.name for each in found}
    if unknown:
        raise ValueError(f"the dialect {dialect} has no test {', '.join(sorted(unknown))}")
    return [each for each in found if not only or each.name in only]


async def run_rules(
    server: Server, rules: Sequence[Rule], *, symbols: Sequence[str], settings: Settings
) -> list[Result]:
    """Run tests one after another.

    Raises:
        AnswerError: the server offers no symbol to test with.
        httpx.HTTPError: it doesn't answer at all.
    """
    found = await server.symbols(list(symbols))
    if not found:
        raise AnswerError("the server offers no symbol; name one with --symbols")
    run = Run(server, found, settings)
    return [await run_rule(each, run) for each in rules]


class ConformanceCommand:
    """The verb; exit code 0: all passed, 1: something failed, 2: usage."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def run(self, arguments: Sequence[str]) -> int:
        """Run the tests and report."""
        try:
            options = build_parser().parse_args(list(arguments))
        except SystemExit as error:
            return int(error.code or 0)
        dialect: Dialect = options.dialect
        try:
            rules = rules_of(dialect, [each for each in options.only.split(",") if each])
        except ValueError as error:
            return _complain(str(error))
        console = Console()
        if options.list:
            for each in rules:
                console.print(f"{each.name}: {each.shows}", highlight=False)
            return 0
        settings = Settings(has_auth=not options.no_auth, wait_seconds=options.wait)
        base = options.url.rstrip("/") + "/"
        token = os.environ.get(TOKEN_VARIABLE, "")
        password = os.environ.get(PASSWORD_VARIABLE, "")
        credentials = (options.login, password) if options.login else None
        symbols = [each for each in options.symbols.split(",") if each]
        async with (
            httpx.AsyncClient(
                base_url=base, headers=_bearer(token), timeout=TIMEOUT_SECONDS, trust_env=False
            ) as client,
            httpx.AsyncClient(base_url=base, timeout=TIMEOUT_SECONDS, trust_env=False) as anonymous,
        ):
            server = Server(client, anonymous, dialect, credentials)
            try:
                if credentials and not token:
                    client.headers.update(_bearer(await _sign_in(anonymous, *credentials)))
                results = await run_rules(server, rules, symbols=symbols, settings=settings)
            except (AnswerError, httpx.HTTPError) as error:
                return _complain(f"{options.url}: {error or type(error).__name__}", code=1)
        failed = any(each.outcome == "failed" for each in results)
        text = ""
        if options.report or options.output:
            encode = _REPORTS[options.report or options.output.suffix.lstrip(".") or "json"]
            text = encode(results, url=options.url, dialect=dialect, at=self._clock.now())
        if options.output:
            options.output.write_text(text)
        if options.report and not options.output:
            sys.stdout.write(text + "\n")
        else:
            report.print_table(console, results, url=options.url)
        return 1 if failed else 0


async def _sign_in(client: httpx.AsyncClient, login: str, password: str) -> str:
    answer = await client.post("authorize", data={"login": login, "password": password})
    try:
        return str(answer.json()["d"]["access_token"])
    except (ValueError, KeyError, TypeError):
        raise AnswerError(f"/authorize answers {answer.status_code}") from None


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _complain(text: str, *, code: int = EXIT_USAGE) -> int:
    sys.stderr.write(f"error: {text}\n")
    return code
