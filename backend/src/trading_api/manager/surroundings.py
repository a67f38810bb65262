"""What the manager finds around it: environment, `.env` files and the fleet's folders."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from trading_api.manager.engine import SupervisordEngine
from trading_api.runtime.environment import dotenv_paths, load_dotenv
from trading_api.runtime.topology import LocalPaths, local_root, socket_path


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the manager finds around it.

    `environ` is the process environment alone, `dotenv` what `.env` files say.
    """

    environ: Mapping[str, str]
    dotenv: Mapping[str, str]
    paths: LocalPaths

    @property
    def merged(self) -> dict[str, str]:
        """Return both, the process environment over `.env`."""
        return {**self.dotenv, **self.environ}

    @property
    def application(self) -> dict[str, str]:
        """Return what a module composed in the manager's own process is told."""
        return {**self.merged, "TRADING_LOCAL_DIR": str(self.paths.run.parent)}

    @property
    def engine(self) -> SupervisordEngine:
        """Return the engine of this fleet, whether or not it runs."""
        return SupervisordEngine(
            python=sys.executable,
            config=self.paths.run / "supervisor" / "supervisord.conf",
            socket_path=socket_path(self.paths.run, "supervisor.sock"),
            record=self.paths.run / "pids" / "supervisord.json",
            log_folder=self.paths.log,
        )


def look_around(environ: Mapping[str, str] | None = None) -> Surroundings:
    """Read `.env` and find the fleet's folders.

    Raises:
        ConfigurationError: `.env` is broken.
    """
    own = dict(os.environ if environ is None else environ)
    dotenv = load_dotenv(dotenv_paths())
    return Surroundings(own, dotenv, LocalPaths.under(local_root({**dotenv, **own})))
