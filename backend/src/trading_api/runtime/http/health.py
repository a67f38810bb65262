"""What every module answers about itself: alive, ready, healthy, and its versions."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from trading_api import __version__
from trading_api.kernel.clock import Clock
from trading_api.runtime.http.access import Access
from trading_api.runtime.http.routing import ModuleRouter
from trading_api.runtime.http.wire import ResponseModel
from trading_api.runtime.module import Check, Manifest, ModuleVersion

CHECK_TIMEOUT_SECONDS = 1.0


class HealthView(ResponseModel):
    """Whether a module is well."""

    status: Literal["healthy", "degraded", "unhealthy"]
    message: str
    timestamp: datetime
    module_name: str
    api_version: str


class VersionView(ResponseModel):
    """One version of a module's API."""

    version: str
    release_date: str | None
    status: str
    breaking_changes: list[str]
    deprecation_notice: str | None
    sunset_date: str | None

    @classmethod
    def of(cls, version: ModuleVersion) -> "VersionView":
        """Show a declared version."""
        return cls(
            version=version.name,
            release_date=version.released.isoformat() if version.released else None,
            status=version.status,
            breaking_changes=list(version.breaking_changes),
            deprecation_notice=version.deprecation_notice,
            sunset_date=version.sunset.isoformat() if version.sunset else None,
        )


class VersionsView(ResponseModel):
    """Every version of a module's API."""

    current_version: str
    available_versions: list[VersionView]
    documentation_url: str
    support_contact: str


class Readiness:
    """Collects the reasons why a module is not ready.

    Args:
        required: checks without which it serves nobody (its database).
        degrading: checks without which it serves, worse (the bus).
    """

    def __init__(self, *, required: Sequence[Check], degrading: Sequence[Check]) -> None:
        self._required = required
        self._degrading = degrading
        self.is_draining = False

    @property
    def names(self) -> list[str]:
        """Return the names of all checks."""
        return [check.name for check in (*self._required, *self._degrading)]

    async def failures(self) -> dict[str, str]:
        """Return what keeps the module from serving, by check; empty when ready."""
        if self.is_draining:
            return {"draining": "the process is stopping"}
        return await _failures(self._required)

    async def degradations(self) -> dict[str, str]:
        """Return what makes it serve worse, by check."""
        return await _failures(self._degrading)


def health_router(
    manifest: Manifest, version: ModuleVersion, readiness: Readiness, clock: Clock
) -> ModuleRouter:
    """Declare ``/health``, ``/versions`` and ``/version`` of one version of a module."""
    router = ModuleRouter(tags=[manifest.name])
    view = VersionView.of(version)

    @router.get("/health", access=Access.public(), response_model=HealthView)
    async def get_health() -> HealthView:
        """Tell whether this module is well; always 200, the answer is in the body."""
        failures = await readiness.failures()
        degradations = await readiness.degradations()
        status: Literal["healthy", "degraded", "unhealthy"] = (
            "unhealthy" if failures else "degraded" if degradations else "healthy"
        )
        reasons = [f"{name}: {reason}" for name, reason in (failures | degradations).items()]
        return HealthView(
            status=status,
            message="; ".join(reasons) or "all checks pass",
            timestamp=clock.now(),
            module_name=manifest.name,
            api_version=version.name,
        )

    @router.get("/versions", access=Access.public(), response_model=VersionsView)
    async def list_versions() -> VersionsView:
        """List the versions of this module's API."""
        stable = [each for each in manifest.versions if each.status == "stable"]
        return VersionsView(
            current_version=(stable or list(manifest.versions))[-1].name,
            available_versions=[VersionView.of(each) for each in manifest.versions],
            documentation_url=f"/api/{version.name}/{manifest.name}/docs",
            support_contact=f"the operator of this installation (trading-api {__version__})",
        )

    @router.get("/version", access=Access.public(), response_model=VersionView)
    async def get_version() -> VersionView:
        """Describe the version of this module's API that this path belongs to."""
        return view

    return router


async def _failures(checks: Sequence[Check]) -> dict[str, str]:
    async def failure(check: Check) -> str | None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                await check.run()
        except TimeoutError:
            return "no answer in time"
        except Exception as error:  # noqa: BLE001 - any failure is the reason
            return str(error) or type(error).__name__
        return None

    found = await asyncio.gather(*(failure(check) for check in checks))
    return {
        check.name: reason
        for check, reason in zip(checks, found, strict=True)
        if reason is not None
    }
