"""What the last start prepared, so that the next one needn't import every module to know it.

Importing the modules, comparing revisions and looking through the seeds costs more than all else
that the manager does at a start. Where nothing it depends on has changed since, it is skipped; each
process checks its own database again anyway.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from pathlib import Path

from trading_api.manager.sources import list_sources
from trading_api.manager.surroundings import Surroundings
from trading_api.runtime.topology import DeploymentConfig, ManifestLike, database_url_of

_ENTRY_POINT_GROUP = "trading_api.modules"
_PACKAGE = Path(__file__).resolve().parents[1]
_FILE = "prepared.json"
# Prefixes of the platform's own variables; the modules' are their names.
_PLATFORM_PREFIXES = ("DATABASE_", "DB_", "REDIS_", "TRADING_", "ENVIRONMENT", "ENABLED_MODULES")


@dataclass(frozen=True, slots=True)
class PreparedVersion:
    """One API version of a module."""

    name: str


@dataclass(frozen=True, slots=True)
class PreparedManifest:
    """What the topology needs to know of a module."""

    name: str
    versions: tuple[PreparedVersion, ...]
    url_prefixes: tuple[str, ...]
    has_websocket: bool
    needs_database: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """The enabled modules' manifests and the names of all modules there are."""

    manifests: tuple[PreparedManifest, ...]
    known: tuple[str, ...]


def find_prepared(
    config: DeploymentConfig, around: Surroundings, *, package: Path = _PACKAGE
) -> Prepared | None:
    """Return what the last start prepared; None where it has to be done again.

    Done again always: with third-party modules, whose sources aren't watched, and with databases
    that aren't files of this host.
    """
    try:
        raw = json.loads((around.paths.run / _FILE).read_text())
        if raw["fingerprint"] != _fingerprint(config, around, package):
            return None
        databases = {Path(path): inode for path, inode in raw["databases"].items()}
        if any(path.stat().st_ino != inode for path, inode in databases.items()):
            return None
        return Prepared(
            manifests=tuple(
                PreparedManifest(
                    **{
                        **each,
                        "versions": tuple(PreparedVersion(**v) for v in each["versions"]),
                        "url_prefixes": tuple(each["url_prefixes"]),
                    }
                )
                for each in raw["manifests"]
            ),
            known=tuple(raw["known"]),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None


def save_prepared(
    manifests: Sequence[ManifestLike],
    known: Sequence[str],
    config: DeploymentConfig,
    around: Surroundings,
    *,
    package: Path = _PACKAGE,
) -> None:
    """Note that everything is prepared, if the next start may rely on it."""
    path = around.paths.run / _FILE
    path.unlink(missing_ok=True)
    databases: dict[str, int] = {}
    for manifest in manifests:
        if not manifest.needs_database:
            continue
        file = around.paths.data / f"{manifest.name}.db"
        if database_url_of(manifest.name, around.merged) is not None or not file.is_file():
            return
        databases[str(file)] = file.stat().st_ino
    if entry_points(group=_ENTRY_POINT_GROUP):
        return
    content = {
        "fingerprint": _fingerprint(config, around, package),
        "databases": databases,
        "manifests": [
            asdict(
                PreparedManifest(
                    name=each.name,
                    versions=tuple(PreparedVersion(version.name) for version in each.versions),
                    url_prefixes=tuple(each.url_prefixes),
                    has_websocket=each.has_websocket,
                    needs_database=each.needs_database,
                )
            )
            for each in manifests
        ],
        "known": list(known),
    }
    path.write_text(json.dumps(content))


def _fingerprint(config: DeploymentConfig, around: Surroundings, package: Path) -> str:
    digest = hashlib.sha256()
    digest.update(f"{sys.executable} {sys.version} {around.paths}".encode())
    digest.update(config.model_dump_json().encode())
    for path in list_sources(package):
        status = path.stat()
        digest.update(f"{path} {status.st_mtime_ns} {status.st_size}\n".encode())
    for name, text in sorted(_relevant(config, around).items()):
        digest.update(f"{name}={text}\n".encode())
    if around.paths.secrets.is_dir():
        names = sorted(path.name for path in around.paths.secrets.iterdir())
        digest.update(" ".join(names).encode())
    return digest.hexdigest()


def _relevant(config: DeploymentConfig, around: Surroundings) -> Mapping[str, str]:
    """Return the variables that a module or the platform may read; a shell's own don't matter."""
    modules = [module for server in config.servers.values() for module in server.modules]
    prefixes = (
        *_PLATFORM_PREFIXES,
        *(f"{module.upper().replace('-', '_')}_" for module in modules),
    )
    return {
        name: text
        for name, text in around.merged.items()
        if name in around.dotenv or name.startswith(prefixes)
    }
