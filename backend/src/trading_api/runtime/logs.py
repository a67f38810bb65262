"""Logs: an event name and fields, one line each, on standard output; the supervisor owns files."""

import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

from trading_api.runtime import context
from trading_api.runtime.settings import PlatformSettings

_SECRET_WORDS = ("password", "secret", "token", "authorization", "cookie", "api_key")
_TEXT_LENGTH_MAX = 2048


def configure_logs(settings: PlatformSettings, *, process: str) -> None:
    """Set up structlog and the standard library's logging to write alike.

    Args:
        process: name of this process, on every line.
    """
    is_json = settings.log_format == "json" or (
        settings.log_format == "auto" and settings.is_production
    )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_request_id,
        _redact,
    ]
    if is_json:
        shared.append(structlog.processors.format_exc_info)
        renderer: Any = structlog.processors.JSONRenderer()
    else:
        # Never the default: it prints local variables, secrets among them, and takes seconds.
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(),
            pad_event_to=28,
            exception_formatter=structlog.dev.plain_traceback,
        )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.log_level]
        ),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "gunicorn.error"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    # The edge logs each request once; a second line per request costs a third of the request.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("httpx").setLevel("WARNING")
    logging.getLogger("aiosqlite").setLevel("WARNING")
    structlog.contextvars.bind_contextvars(process=process)


def _add_request_id(_logger: WrappedLogger, _name: str, fields: EventDict) -> EventDict:
    found = context.request_id.get()
    if found is not None:
        fields.setdefault("request_id", found)
    return fields


def _redact(_logger: WrappedLogger, _name: str, fields: EventDict) -> EventDict:
    for name, value in fields.items():
        if any(word in name.lower() for word in _SECRET_WORDS):
            fields[name] = "[redacted]"
        elif isinstance(value, str) and len(value) > _TEXT_LENGTH_MAX:
            fields[name] = value[:_TEXT_LENGTH_MAX] + "…"
    return fields
