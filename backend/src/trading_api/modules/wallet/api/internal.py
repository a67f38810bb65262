"""What other modules ask of wallets; internal, so nginx routes no such path."""

from trading_api.kernel.clock import Clock
from trading_api.modules.wallet.api.v1.operators import add_hold_routes
from trading_api.modules.wallet.api.v1.parts import Services
from trading_api.runtime.http import Access, ModuleRouter

PREFIX = "/internal/v1/wallet"


def build_router(services: Services, *, clock: Clock) -> ModuleRouter:
    """Declare the routes."""
    router = ModuleRouter(tags=["internal"])
    add_hold_routes(router, services, clock=clock, access=Access.internal(), prefix=PREFIX)
    return router
