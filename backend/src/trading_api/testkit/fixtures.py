"""Fixtures that every test may use; loaded by ``conftest.py``."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from trading_api.kernel.ids import UuidV7Ids
from trading_api.runtime import context
from trading_api.runtime.secrets import ensure_secrets
from trading_api.runtime.settings import PlatformSettings, load_settings
from trading_api.testkit.clocks import FixedClock

MODULES = ("auth", "broker", "datafeed", "gateway", "wallet")


@pytest.fixture(autouse=True, scope="session")
def _plain_logs() -> None:
    # structlog's default prints every local variable of a traceback, which takes seconds.
    renderer = structlog.dev.ConsoleRenderer(
        colors=False, exception_formatter=structlog.dev.plain_traceback
    )
    structlog.configure(processors=[structlog.processors.add_log_level, renderer])


@pytest.fixture(autouse=True)
def _no_context_left_over() -> Iterator[None]:
    tokens = [each.set(None) for each in (context.request_id, context.causation_id)]
    yield
    for variable, token in zip((context.request_id, context.causation_id), tokens, strict=True):
        variable.reset(token)


@pytest.fixture
def clock() -> FixedClock:
    """A clock that stands at Monday, 14:30 UTC."""
    return FixedClock()


@pytest.fixture
def ids() -> UuidV7Ids:
    """Real identifiers."""
    return UuidV7Ids()


@pytest.fixture(scope="session")
def secrets_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host's keys, made once: RSA keys are slow to make."""
    directory = tmp_path_factory.mktemp("host") / "secrets"
    ensure_secrets(directory, modules=MODULES)
    return directory


@pytest.fixture
def environ(tmp_path: Path, secrets_directory: Path) -> dict[str, str]:
    """The environment of a development host in a folder of its own."""
    local = tmp_path / "local"
    local.mkdir()
    (local / "secrets").symlink_to(secrets_directory)
    (local / "run").mkdir()
    return {"TRADING_LOCAL_DIR": str(local), "ENVIRONMENT": "development"}


@pytest.fixture
def settings(environ: dict[str, str]) -> PlatformSettings:
    """Settings of that host."""
    return load_settings(PlatformSettings, environ)
