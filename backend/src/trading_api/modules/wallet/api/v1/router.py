"""Every route of v1."""

from trading_api.kernel.clock import Clock
from trading_api.modules.wallet.api.v1.money import add_money_routes
from trading_api.modules.wallet.api.v1.movements import add_movement_routes
from trading_api.modules.wallet.api.v1.operators import add_operator_routes
from trading_api.modules.wallet.api.v1.parts import Services
from trading_api.runtime.http import ModuleRouter
from trading_api.runtime.http.cursors import Cursors


def build_router(services: Services, *, clock: Clock, cursors: Cursors) -> ModuleRouter:
    """Declare the routes of v1.

    Args:
        services: The use cases.
        clock: Tells every request its instant.
        cursors: Of the lists; each list's filters name it.
    """
    router = ModuleRouter(tags=["wallet"])
    add_money_routes(router, services, clock=clock, cursors=cursors)
    add_movement_routes(router, services, clock=clock, cursors=cursors)
    add_operator_routes(router, services, clock=clock)
    return router
