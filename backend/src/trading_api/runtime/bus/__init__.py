"""The bus: prices by pub/sub (newest wins), facts by streams (at least once).

The database is the truth; the bus is wake-up and cache. With it down, requests still work.
"""

from trading_api.runtime.bus.bus import Bus, BusCommandError, BusUnavailableError, Subscription

__all__ = ["Bus", "BusCommandError", "BusUnavailableError", "Subscription"]
