"""gunicorn's worker for modules with several workers: uvicorn with the same settings as one."""

from __future__ import annotations

import warnings
from typing import Any

from trading_api.manager.processes import tie_to_parent
from trading_api.manager.serve import server_settings

with warnings.catch_warnings():
    # The class moved to a package of its own that only re-exports these few lines.
    warnings.simplefilter("ignore", DeprecationWarning)
    from uvicorn.workers import UvicornWorker

_TAKEN_FROM_GUNICORN = ("log_config", "timeout_keep_alive", "backlog", "forwarded_allow_ips")


class ModuleWorker(UvicornWorker):
    """Serve the application that gunicorn loaded."""

    CONFIG_KWARGS: dict[str, Any] = {
        key: value
        for key, value in server_settings(None).items()
        if key not in _TAKEN_FROM_GUNICORN
    }

    def init_process(self) -> None:
        """Serve until told to stop; a killed master takes its workers along."""
        tie_to_parent(self.ppid)
        super().init_process()
