"""Crash points: places where a fault run ends the process, as a power cut would.

`TRADING_CRASH_AT` names one of them; without it, and always in production, nothing happens.
"""

import os
from collections.abc import Callable, Mapping

from trading_api.runtime.settings import PlatformSettings

NAME = "TRADING_CRASH_AT"
EXIT_KILLED = 137
"""What a shell says of a process that was killed by SIGKILL."""


def crash_points(environ: Mapping[str, str], settings: PlatformSettings) -> Callable[[str], None]:
    """Return what is told each point's name; it ends the process at the one that was named."""
    wanted = "" if settings.is_production else environ.get(NAME, "")

    def reach(point: str) -> None:
        if wanted and point == wanted:
            os._exit(EXIT_KILLED)

    return reach
