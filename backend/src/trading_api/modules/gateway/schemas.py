"""The gateway's answers on the wire."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from trading_api.kernel.clock import from_us
from trading_api.modules.gateway.domain import (
    PASSED,
    ApiVersion,
    ModuleHealth,
    PlatformHealth,
)
from trading_api.runtime.announce import Announcement, ProcessState
from trading_api.runtime.http.wire import RequestModel, ResponseModel

StatusText = Literal["healthy", "degraded", "unhealthy"]


class RootView(ResponseModel):
    """What this installation is and where to go on."""

    name: str
    version: str
    api_version: str = Field(description="the version that clients should use now")
    modules: list[str]
    links: dict[str, str]


class ModuleHealthView(ResponseModel):
    """One module's health."""

    status: StatusText
    instances: int = Field(description="processes that serve it")
    version: str | None
    latency_ms: float | None = Field(description="time to its answer; null where none came")
    checks: dict[str, str] = Field(
        description="`ok`, or the reason for operators and `failing` for everybody else"
    )

    @classmethod
    def of(cls, health: ModuleHealth, *, with_details: bool) -> "ModuleHealthView":
        """Show a module's health; reasons only to those who may see inside."""
        return cls(
            status=health.status.value,
            instances=health.instances,
            version=health.version,
            latency_ms=None if health.latency_us is None else health.latency_us / 1000,
            checks={
                name: reason if with_details or reason == PASSED else "failing"
                for name, reason in health.checks.items()
            },
        )


class PlatformHealthView(ResponseModel):
    """The health of the whole platform; 503 exactly where it is unhealthy."""

    status: StatusText
    version: str
    uptime: int = Field(description="seconds that the answering process has run")
    modules: dict[str, ModuleHealthView]
    bus: str = Field(description="`up` or `down`")
    databases: dict[str, str] = Field(description="`up` or `down` by module that has one")
    issues: list[str] = Field(description="what isn't well, one line each")

    @classmethod
    def of(cls, health: PlatformHealth, *, with_details: bool) -> "PlatformHealthView":
        """Show the platform's health; reasons only to those who may see inside."""
        modules = {
            name: ModuleHealthView.of(each, with_details=with_details)
            for name, each in health.modules.items()
        }
        issues = list(health.issues)
        if not with_details:
            issues = [
                f"{name} is {each.status}"
                for name, each in modules.items()
                if each.status != "healthy"
            ]
        return cls(
            status=health.status.value,
            version=health.version,
            uptime=health.uptime_seconds,
            modules=modules,
            bus=health.bus,
            databases=dict(health.databases),
            issues=issues,
        )


class ApiVersionView(ResponseModel):
    """One version of the API."""

    version: str
    status: Literal["stable", "planned", "deprecated"]
    release_date: str | None
    sunset_date: str | None
    deprecation_notice: str | None
    breaking_changes: list[str]
    links: dict[str, str] = Field(description="empty while it is planned")

    @classmethod
    def of(cls, version: ApiVersion) -> "ApiVersionView":
        """Show a version; a planned one has no pages yet."""
        prefix = f"/api/{version.name}"
        links = {
            "docs": f"{prefix}/docs",
            "openapi": f"{prefix}/openapi.json",
            "asyncapi": f"{prefix}/ws/asyncapi.json",
            "health": f"{prefix}/health",
        }
        return cls(
            version=version.name,
            status=version.status,
            release_date=version.released.isoformat() if version.released else None,
            sunset_date=version.sunset.isoformat() if version.sunset else None,
            deprecation_notice=version.deprecation_notice,
            breaking_changes=list(version.breaking_changes),
            links={} if version.status == "planned" else links,
        )


class ApiVersionsView(ResponseModel):
    """Every version of the API."""

    current_version: str
    available_versions: list[ApiVersionView]
    documentation_url: str
    support_contact: str


class ProcessView(ResponseModel):
    """One process as the live registry knows it."""

    instance: str
    process: str
    version: str
    address: str
    started_at: datetime
    last_heartbeat: datetime
    state: ProcessState

    @classmethod
    def of(cls, announcement: Announcement) -> "ProcessView":
        """Show an announcement."""
        return cls(
            instance=announcement.instance,
            process=announcement.process,
            version=announcement.version,
            address=announcement.address,
            started_at=from_us(announcement.started_at_us),
            last_heartbeat=from_us(announcement.heartbeat_at_us),
            state=announcement.state,
        )


class ModuleView(ResponseModel):
    """One module and the processes that serve it."""

    module: str
    versions: list[str]
    instances: list[ProcessView] = Field(description="empty where nothing serves it right now")


class HealthParams(RequestModel):
    """The health channel takes no parameters."""
