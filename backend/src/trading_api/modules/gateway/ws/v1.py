"""Version 1 of the gateway's socket: the platform's health as it changes."""

from collections.abc import Sequence
from typing import Any, ClassVar

from trading_api.modules.gateway.schemas import HealthParams, PlatformHealthView
from trading_api.modules.gateway.service import GatewayService
from trading_api.runtime.http.access import Access
from trading_api.runtime.identity import Principal
from trading_api.runtime.ws import PriceChannel

HEALTH_FEED = "health"


class HealthChannel(PriceChannel[HealthParams]):
    """The platform's health: at once, when it changes, and every few seconds."""

    route: ClassVar = "health"
    params: ClassVar = HealthParams
    update: ClassVar = PlatformHealthView
    access: ClassVar = Access.user(with_keys=True)

    def __init__(self, service: GatewayService) -> None:
        self._service = service

    def feeds(self, params: HealthParams) -> Sequence[str]:
        """Return the one feed there is."""
        return (HEALTH_FEED,)

    async def snapshot(self, principal: Principal | None, params: HealthParams) -> Sequence[Any]:
        """Return the health of this moment, without what only operators may see."""
        health = await self._service.assess_health()
        return [PlatformHealthView.of(health, with_details=False).model_dump(mode="json")]
