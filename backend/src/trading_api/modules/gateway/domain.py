"""How the platform is, from how its modules are; and how many documents become one.

Pure functions over values. Asking the modules is the adapter's work.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal


class HealthStatus(StrEnum):
    """How well a module or the platform serves; ordered from good to bad."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


DocumentKind = Literal["openapi", "asyncapi"]

PASSED = "ok"
"""Text of a check that passes; any other text is the reason why it doesn't."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What one module answered when it was asked how it is.

    Attributes:
        version: of the program that answered; None where nothing did.
        latency_us: time to the answer, microseconds; None where none came in time.
        checks: every readiness check and ``ok`` or the reason.
        failures: names of checks without which the module serves nobody.
        silence: why there is no answer; None where there is one.
    """

    module: str
    version: str | None = None
    latency_us: int | None = None
    checks: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    failures: frozenset[str] = frozenset()
    silence: str | None = None


@dataclass(frozen=True, slots=True)
class ModuleHealth:
    """One module's part of the platform's health.

    Attributes:
        instances: announced processes that serve it; at least 1 where it answered.
    """

    status: HealthStatus
    instances: int
    version: str | None
    latency_us: int | None
    checks: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PlatformHealth:
    """The platform's health at one instant.

    Attributes:
        uptime_seconds: of the process that looked.
        bus: ``up`` or ``down``.
        databases: ``up`` or ``down`` by module that has one.
        issues: one line for each thing that isn't well, by module.
    """

    status: HealthStatus
    version: str
    uptime_seconds: int
    modules: Mapping[str, ModuleHealth]
    bus: str
    databases: Mapping[str, str]
    issues: tuple[str, ...]


def assess_module(probe: Probe, *, instances: int) -> ModuleHealth:
    """Judge one module: unhealthy when it can't serve, degraded when it serves worse."""
    if probe.silence is not None or probe.failures:
        status = HealthStatus.UNHEALTHY
    elif any(reason != PASSED for reason in probe.checks.values()):
        status = HealthStatus.DEGRADED
    else:
        status = HealthStatus.HEALTHY
    at_least = 0 if probe.silence is not None else 1
    return ModuleHealth(
        status=status,
        instances=max(at_least, instances),
        version=probe.version,
        latency_us=probe.latency_us,
        checks=probe.checks,
    )


def assess_platform(
    probes: Sequence[Probe],
    *,
    instances: Mapping[str, int],
    is_bus_up: bool,
    version: str,
    uptime_seconds: int,
) -> PlatformHealth:
    """Judge the platform: as bad as its worst module; without its bus at best degraded.

    Args:
        instances: announced processes by module.
    """
    modules = {
        probe.module: assess_module(probe, instances=instances.get(probe.module, 0))
        for probe in sorted(probes, key=lambda each: each.module)
    }
    statuses = {each.status for each in modules.values()}
    if HealthStatus.UNHEALTHY in statuses:
        status = HealthStatus.UNHEALTHY
    elif HealthStatus.DEGRADED in statuses or not is_bus_up:
        status = HealthStatus.DEGRADED
    else:
        status = HealthStatus.HEALTHY
    return PlatformHealth(
        status=status,
        version=version,
        uptime_seconds=uptime_seconds,
        modules=modules,
        bus="up" if is_bus_up else "down",
        databases={
            probe.module: "up" if probe.checks["database"] == PASSED else "down"
            for probe in sorted(probes, key=lambda each: each.module)
            if "database" in probe.checks
        },
        issues=_list_issues(probes, is_bus_up=is_bus_up),
    )


@dataclass(frozen=True, slots=True)
class ApiVersion:
    """One version of the platform's API.

    Attributes:
        released: None while it is planned.
        sunset: the day it stops answering; None while no end is planned.
        breaking_changes: against the version before; announced ones where it is planned.
    """

    name: str
    status: Literal["stable", "planned", "deprecated"]
    released: date | None = None
    sunset: date | None = None
    deprecation_notice: str | None = None
    breaking_changes: tuple[str, ...] = ()


CURRENT_VERSION = "v1"

API_VERSIONS = (
    ApiVersion("v1", "stable", released=date(2026, 11, 22)),
    ApiVersion(
        "v2",
        "planned",
        breaking_changes=(
            "lists are objects with `items` and `next_cursor` instead of bare arrays with a header",
            "amounts are text in every answer, also where v1 sends a number",
            "POST and DELETE need an Idempotency-Key",
        ),
    ),
)


def merge_openapi(
    documents: Mapping[str, Mapping[str, Any]], *, title: str, version: str, summary: str
) -> dict[str, Any]:
    """Join the OpenAPI documents of all modules into one.

    Components get their module's name in front, ``broker_OrderView``, whether or not two modules
    use the same name: so no name depends on which modules run. Security schemes are the
    platform's and stay as they are.
    """
    merged: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "summary": summary},
        "tags": [],
        "paths": {},
        "components": {},
    }
    for module, document in documents.items():
        own = _with_prefixed_names(document, module, untouched=_SHARED)
        info = own.get("info", {})
        merged["info"].setdefault("license", info.get("license", {"name": "MIT"}))
        merged["tags"].append({"name": module, "description": info.get("summary", "")})
        for path, operations in own.get("paths", {}).items():
            merged["paths"].setdefault(path, operations)
        for kind, components in own.get("components", {}).items():
            merged["components"].setdefault(kind, {}).update(components)
    return merged


def merge_asyncapi(
    documents: Mapping[str, Mapping[str, Any]], *, title: str, version: str, description: str
) -> dict[str, Any]:
    """Join the AsyncAPI documents of all modules into one, names prefixed by module.

    Server and security schemes are the platform's and stay as they are.
    """
    merged: dict[str, Any] = {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version, "description": description},
        "defaultContentType": "application/json",
        "servers": {},
        "channels": {},
        "operations": {},
        "components": {},
    }
    for module, document in documents.items():
        own = _with_prefixed_names(document, module, untouched=_SHARED)
        for section in ("servers", "channels", "operations"):
            merged[section].update(own.get(section, {}))
        for kind, components in own.get("components", {}).items():
            merged["components"].setdefault(kind, {}).update(components)
    return merged


_NAMED_SECTIONS = ("channels", "operations")
_SHARED = frozenset({"securitySchemes"})


def _with_prefixed_names(
    document: Mapping[str, Any], module: str, *, untouched: frozenset[str]
) -> dict[str, Any]:
    """Return a copy whose named parts, and the references to them, carry the module's name."""
    copied: dict[str, Any] = deepcopy(dict(document))
    for section in _NAMED_SECTIONS:
        if section in copied:
            copied[section] = {f"{module}_{name}": each for name, each in copied[section].items()}
    components = copied.get("components", {})
    for kind in components.keys() - untouched:
        components[kind] = {f"{module}_{name}": each for name, each in components[kind].items()}
    prefixed: dict[str, Any] = _prefix_references(copied, module, untouched)
    return prefixed


def _prefix_references(value: Any, module: str, untouched: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {name: _prefix_references(item, module, untouched) for name, item in value.items()}
    if isinstance(value, list):
        return [_prefix_references(item, module, untouched) for item in value]
    if isinstance(value, str) and value.startswith("#/"):
        return _prefix_reference(value, module, untouched)
    return value


def _prefix_reference(reference: str, module: str, untouched: frozenset[str]) -> str:
    parts = reference.split("/")
    if len(parts) >= 4 and parts[1] == "components" and parts[2] not in untouched:
        parts[3] = f"{module}_{parts[3]}"
    elif len(parts) >= 3 and parts[1] in _NAMED_SECTIONS:
        parts[2] = f"{module}_{parts[2]}"
    return "/".join(parts)


def _list_issues(probes: Sequence[Probe], *, is_bus_up: bool) -> tuple[str, ...]:
    issues = [] if is_bus_up else ["bus: does not answer; live updates and events wait"]
    for probe in sorted(probes, key=lambda each: each.module):
        if probe.silence is not None:
            issues.append(f"{probe.module}: {probe.silence}")
        issues += [
            f"{probe.module}: {name}: {reason}"
            for name, reason in probe.checks.items()
            if reason != PASSED
        ]
    return tuple(issues)
