"""Builders of the manager's tests: a small fleet of manifests and configs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from trading_api.runtime.topology import (
    LocalPaths,
    Topology,
    build_topology,
    parse_config,
)


@dataclass(frozen=True)
class AVersion:
    name: str


@dataclass(frozen=True)
class AManifest:
    name: str
    has_websocket: bool = True
    needs_database: bool = True
    url_prefixes: tuple[str, ...] = ()
    versions: tuple[AVersion, ...] = (AVersion("v1"),)


MANIFESTS = (
    AManifest("gateway", needs_database=False),
    AManifest("auth", has_websocket=False),
    AManifest("datafeed"),
    AManifest("broker", versions=(AVersion("v1"), AVersion("v2"))),
    AManifest("wallet"),
    AManifest("copy-trading", url_prefixes=("/api/v1/subscriptions/",)),
)

CONFIG = """
nginx: {port: 18080}
servers:
  gateway: {modules: [gateway]}
  auth: {modules: [auth]}
  datafeed: {modules: [datafeed]}
  broker: {modules: [broker]}
  wallet: {modules: [wallet], env: {WALLET_LIMIT: 5, VERBOSE: true}}
  copy-trading: {modules: [copy-trading]}
"""


@pytest.fixture
def manifests() -> tuple[AManifest, ...]:
    return MANIFESTS


BuildTopology = Callable[..., Topology]


@pytest.fixture
def config_text() -> str:
    return CONFIG


@pytest.fixture
def build(short_folder: Path) -> BuildTopology:
    """Build a topology: `build(text, environ=…, modules=…)`."""

    def build_(
        text: str = CONFIG,
        *,
        environ: dict[str, str] | None = None,
        modules: tuple[str, ...] | None = None,
        root: Path = short_folder,
    ) -> Topology:
        settings = environ or {}
        return build_topology(
            parse_config(text, source="test.yaml", environ=settings),
            [each for each in MANIFESTS if modules is None or each.name in modules],
            paths=LocalPaths.under(root),
            environ=settings,
            known=[each.name for each in MANIFESTS],
        )

    return build_


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets; pytest's own is not on every host."""
    folder = Path(tempfile.mkdtemp(prefix="tapi-"))
    yield folder
    shutil.rmtree(folder)
