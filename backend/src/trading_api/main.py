"""``uvicorn trading_api.main:app``: the modules that ``ENABLED_MODULES`` names, in one process."""

import os

from trading_api.app import create_app
from trading_api.runtime.logs import configure_logs
from trading_api.runtime.production import ensure_startable
from trading_api.runtime.registry import load
from trading_api.runtime.settings import PlatformSettings, load_settings

settings = load_settings(PlatformSettings)
ensure_startable(settings, os.environ)
configure_logs(settings, process=os.environ.get("PROCESS_NAME", "process"))
app = create_app(
    load(settings.enabled_modules),
    settings=settings,
    process_name=os.environ.get("PROCESS_NAME", "process"),
)
