"""The register of tests, and what one comes to."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from trading_api.modules.datafeed.commands.conformance.server import (
    AnswerError,
    Dialect,
    Server,
    SymbolInfo,
)

Outcome = Literal["passed", "failed", "skipped"]


class BrokenRuleError(Exception):
    """The server broke the rule; the text says where and how."""


class NotApplicableError(Exception):
    """Nothing here can show the rule; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run is to be made.

    Attributes:
        has_auth: whether the server wants a sign-in; its refusals are tested then.
        wait_seconds: between two questions whose answers are compared, and of a stream.
    """

    has_auth: bool = True
    wait_seconds: float = 10.0


@dataclass(slots=True)
class Run:
    """What a test works with.

    Attributes:
        symbols: one of each kind that the server offers, or those named by the user.
        notes: what was looked at, for the report.
        recording: what came on the stream, once a test has listened; the others look at the same.
    """

    server: Server
    symbols: Sequence[SymbolInfo]
    settings: Settings
    notes: list[str] = field(default_factory=list)
    recording: Any = None

    def note(self, text: str) -> None:
        """Say in the report what was looked at."""
        self.notes.append(text)

    def with_minutes(self) -> list[SymbolInfo]:
        """Return the symbols that have bars within the day.

        Raises:
            NotApplicableError: none has.
        """
        found = [each for each in self.symbols if each.finest is not None]
        if not found:
            raise NotApplicableError("no symbol has bars within the day")
        return found


@dataclass(frozen=True, slots=True)
class Rule:
    """One test.

    Attributes:
        name: as published.
        dialects: where it applies.
        shows: what a chart would show the user of a server that fails it.
        run: raises ``BrokenRuleError`` or ``NotApplicableError``.
    """

    name: str
    dialects: frozenset[Dialect]
    shows: str
    run: Callable[[Run], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Result:
    """What a test came to.

    Attributes:
        message: why it failed or was skipped, or what was looked at.
    """

    rule: Rule
    outcome: Outcome
    message: str
    seconds: float


RULES: list[Rule] = []

Checker = Callable[[Run], Awaitable[None]]


def rule(
    name: str, *, shows: str, dialects: Sequence[Dialect] = ("udf", "tv")
) -> Callable[[Checker], Checker]:
    """Register a test under its published name."""

    def register(run: Checker) -> Checker:
        RULES.append(Rule(name, frozenset(dialects), shows, run))
        return run

    return register


def ensure(condition: object, message: str) -> None:
    """Break the rule unless the condition holds."""
    if not condition:
        raise BrokenRuleError(message)


async def run_rule(each: Rule, run: Run) -> Result:
    """Run one test; whatever the server does, this returns."""
    began = time.perf_counter()
    run.notes.clear()
    outcome: Outcome = "passed"
    try:
        await each.run(run)
        message = "; ".join(run.notes)
    except NotApplicableError as error:
        outcome, message = "skipped", str(error)
    except (BrokenRuleError, AnswerError) as error:
        outcome, message = "failed", str(error)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        outcome, message = "failed", f"an answer has a form that can't be read: {error!r}"
    except httpx.HTTPError as error:
        outcome, message = "failed", f"no answer: {type(error).__name__} {error}".strip()
    return Result(each, outcome, message, time.perf_counter() - began)
