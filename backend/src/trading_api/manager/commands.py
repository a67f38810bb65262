"""Verbs that modules bring: `seed`, `users`, `keys` and whatever else they declare.

The application is named by a string, not imported: the manager knows the topology and the
registry, and composing modules is the application's business.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from typing import Any

from trading_api.manager.surroundings import Surroundings

_APPLICATION = "trading_api.app"


class ModuleFailedError(Exception):
    """A module can't be built, or its verb failed; the message names it and the reason."""

    def __init__(self, module: str, error: Exception, *, what: str = "can't be built") -> None:
        super().__init__(f"the module {module!r} {what}: {type(error).__name__}: {error}")


def run(
    verb: str, arguments: Sequence[str], modules: Sequence[str], around: Surroundings
) -> int | None:
    """Run a verb in every module that brings it, one after the other; stop at the first failure.

    Args:
        verb: such as `seed`.
        arguments: what follows it.
        modules: names of the modules asked.
        around: settings and folders.

    Raises:
        ConfigurationError: a module's settings are wrong.
        ModuleFailedError: a module can't be built, or its verb raised.

    Returns:
        The exit code; None where no module brings the verb.
    """
    # Not at the top: importing the modules takes longer than all that status or stop do.
    from trading_api.runtime import registry
    from trading_api.runtime.settings import (
        ConfigurationError,
        PlatformSettings,
        load_settings,
    )

    environ = around.application
    settings = load_settings(PlatformSettings, environ)
    known = registry.discover()
    code: int | None = None
    for name in modules:
        try:
            process = importlib.import_module(_APPLICATION).create_app(
                {name: known[name]}, settings=settings, environ=environ, process_name="manager"
            )
            process.complete_routes()
        except ConfigurationError:
            raise
        except Exception as error:
            raise ModuleFailedError(name, error) from error
        for command in _commands_of(process, verb):
            try:
                code = asyncio.run(_run_and_close(command, arguments, process))
            except Exception as error:
                raise ModuleFailedError(name, error, what=f"failed at {verb!r}") from error
            if code:
                return code
    return code


def _commands_of(process: Any, verb: str) -> list[Any]:
    return [
        command
        for hosted in process.hosted.values()
        for command in hosted.parts.commands
        if command.name == verb
    ]


async def _run_and_close(command: Any, arguments: Sequence[str], process: Any) -> int:
    try:
        return int(await command.run(list(arguments)))
    finally:
        for hosted in process.hosted.values():
            if hosted.context.database is not None:
                await hosted.context.database.close()
        await process.peers.close()
