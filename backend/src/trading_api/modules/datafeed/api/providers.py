"""How the providers of market data are."""

from trading_api.kernel.clock import Clock
from trading_api.modules.datafeed import schemas
from trading_api.modules.datafeed.service import ProviderService
from trading_api.runtime.http import Access, ModuleRouter


def build_providers_router(
    *, providers: ProviderService, clock: Clock, access: Access
) -> ModuleRouter:
    """Build the route of the providers' state.

    Args:
        access: who may read market data.
    """
    router = ModuleRouter(tags=["datafeed"])

    @router.get(
        "/providers",
        access=access,
        response_model=list[schemas.ProviderView],
        summary="Tell how each provider is, seen from the process that answers",
    )
    async def list_providers() -> list[schemas.ProviderView]:
        now = clock.now()
        return [schemas.provider_view(each, now=now) for each in await providers.list_providers()]

    return router
