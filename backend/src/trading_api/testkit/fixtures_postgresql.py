"""Fixtures: a real PostgreSQL, and tests that run on both databases."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from trading_api.testkit.postgresql import (
    NoPostgresqlError,
    create_database,
    drop_database,
    drop_schemas,
    session_server,
)


@pytest.fixture(scope="session")
def postgresql_worker_database() -> Iterator[URL]:
    """The database of this test worker.

    Without a server tests are skipped, except where ``CI`` or ``TEST_POSTGRESQL_REQUIRED`` is set.
    """
    try:
        server = session_server()
    except NoPostgresqlError as error:
        if os.environ.get("CI") or os.environ.get("TEST_POSTGRESQL_REQUIRED"):
            raise
        pytest.skip(str(error))
    # By process: a test may run another pytest, which inherits this one's worker name.
    name = f"trading_test_{os.getpid()}"
    yield create_database(server, name)
    drop_database(server, name)


@pytest.fixture
def postgresql_url(postgresql_worker_database: URL) -> Iterator[str]:
    """URL of an empty PostgreSQL database; every schema made in it is dropped afterwards."""
    yield postgresql_worker_database.render_as_string(hide_password=False)
    drop_schemas(postgresql_worker_database)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database; the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/module.db"
    url: str = request.getfixturevalue("postgresql_url")
    return url
