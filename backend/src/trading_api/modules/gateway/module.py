"""Puts the gateway together."""

import asyncio
from typing import ClassVar

import orjson

from trading_api import __version__
from trading_api.modules.gateway.adapters.peers import PeerModules
from trading_api.modules.gateway.api.v1 import build_router
from trading_api.modules.gateway.domain import CURRENT_VERSION
from trading_api.modules.gateway.schemas import PlatformHealthView
from trading_api.modules.gateway.service import GatewayService
from trading_api.modules.gateway.ws.v1 import HEALTH_FEED, HealthChannel
from trading_api.runtime.database import Lease
from trading_api.runtime.http.routing import ModuleRouter
from trading_api.runtime.module import (
    BackgroundTask,
    Manifest,
    Module,
    ModuleContext,
    ModuleParts,
)
from trading_api.runtime.ws import Hub

HEALTH_LOOK_SECONDS = 1.0
HEALTH_REPEAT_LOOKS = 5
"""An unchanged health is sent again after so many looks, so that a client sees it is alive."""


class GatewayModule(Module):
    """What no single module can answer: health, versions, registry, merged documents."""

    manifest: ClassVar[Manifest] = Manifest(
        name="gateway",
        summary="The platform as a whole: health, versions, live registry, merged documents",
        url_prefixes=("/",),
        has_websocket=True,
        needs_database=False,
    )

    def build(self, context: ModuleContext) -> ModuleParts:
        """Build the service and its routes; nothing is asked yet."""
        service = GatewayService(
            modules=PeerModules(peers=context.peers, clock=context.clock, version=CURRENT_VERSION),
            processes=context.processes,
            bus=context.bus,
            clock=context.clock,
            version=__version__,
        )

        async def send_health(_: Lease | None) -> None:
            await _send_health(service, context.hub)

        return ModuleParts(
            routers={"v1": ModuleRouter(tags=["gateway"])},
            absolute=build_router(service, is_production=context.settings.is_production),
            channels={"v1": [HealthChannel(service)]},
            tasks=[BackgroundTask("health", send_health)],
        )


async def _send_health(service: GatewayService, hub: Hub) -> None:
    """Look at the platform while somebody listens here; send what changed, else now and then."""
    sent_status: object = None
    looks = 0
    while True:
        await asyncio.sleep(HEALTH_LOOK_SECONDS)
        if HEALTH_FEED not in hub.listened():
            continue
        health = await service.assess_health()
        looks += 1
        status = (health.status, health.issues, {n: m.instances for n, m in health.modules.items()})
        if status == sent_status and looks % HEALTH_REPEAT_LOOKS:
            continue
        sent_status = status
        view = PlatformHealthView.of(health, with_details=False)
        hub.publish_here(HEALTH_FEED, orjson.dumps(view.model_dump(mode="json")))
