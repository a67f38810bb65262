"""What the house lets any one account do, whatever its money would carry."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RiskLimits:
    """Limits asked before an order is accepted; 0 switches one off.

    Attributes:
        price_band_ppm: how far a limit or trigger price may lie from the market, parts per million.
        position_value_max: worst value of one instrument's position, units of the account's
            currency.
        exposure_max: worst value of all positions together, units of the account's currency.
        open_orders_max: open orders of one instrument.
        orders_per_second: orders an account may place in the long run.
        orders_burst: orders it may place at once.
    """

    price_band_ppm: int = 0
    position_value_max: int = 0
    exposure_max: int = 0
    open_orders_max: int = 0
    orders_per_second: int = 0
    orders_burst: int = 0
