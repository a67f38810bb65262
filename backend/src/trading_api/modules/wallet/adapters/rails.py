"""Finds payment rails: the two of the platform, and third parties' by entry point."""

from collections.abc import Callable
from importlib.metadata import entry_points

from trading_api.modules.wallet.adapters.manual_rail import ManualRail
from trading_api.modules.wallet.adapters.sandbox_rail import SandboxRail
from trading_api.modules.wallet.ports import PaymentRail
from trading_api.runtime.settings import ConfigurationError

ENTRY_POINT_GROUP = "trading_api.payment_rails"

_BUILT_IN: dict[str, Callable[[], PaymentRail]] = {"sandbox": SandboxRail, "manual": ManualRail}


def make_rail(name: str, *, group: str = ENTRY_POINT_GROUP) -> PaymentRail:
    """Return the rail of a name.

    Raises:
        ConfigurationError: Nobody brings a rail of that name, or it can't be made.
    """
    made = _BUILT_IN.get(name)
    found = {each.name: each for each in entry_points(group=group)}
    if made is None and name not in found:
        known = ", ".join(sorted({*_BUILT_IN, *found}))
        raise ConfigurationError([f"WALLET_PAYMENT_RAIL: {name!r} is not known (known: {known})"])
    try:
        rail = made() if made is not None else found[name].load()()
    except Exception as error:
        # A third party's code may fail in any way; whoever starts the platform must hear of it.
        raise ConfigurationError(
            [f"WALLET_PAYMENT_RAIL: {name!r} can't be made: {type(error).__name__}: {error}"]
        ) from error
    return rail
