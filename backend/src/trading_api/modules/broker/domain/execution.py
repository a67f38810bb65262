"""Executions: the append-only record of what filled, and on which quote."""

from dataclasses import dataclass
from datetime import datetime

from trading_api.modules.broker.domain.conversion import Conversion
from trading_api.modules.broker.domain.matching import Liquidity
from trading_api.modules.broker.domain.order import OrderSide


@dataclass(frozen=True, slots=True)
class Execution:
    """One fill of one order.

    Attributes:
        execution_id: ours; unique, never reused.
        sequence: number of its event on the account, so the order among the account's fills.
        quantity: raw.
        price: raw.
        slippage: how much worse than the quote the size of the order made the price; raw.
        position_id: the position that it changed: the symbol under netting.
        closed_quantity: of ``quantity``, what closed the position held before; raw.
        signed_quantity_after: the position afterwards, raw.
        realized: what the closed part earned, 10^-8 of the currency.
        realized_minor: the same in minor units, as posted.
        commission_minor: as posted.
        quote_bid: bid of the quote it filled on, raw.
        quote_ask: ask of that quote, raw.
        quote_sequence: that quote's number.
        quote_at: that quote's instant, UTC.
        executed_at: UTC.
        conversion: from the currency of prices, at this fill's rate; None where there was none.
    """

    execution_id: str
    account_id: str
    order_id: str
    sequence: int
    symbol: str
    side: OrderSide
    price_scale: int
    quantity_scale: int
    quantity: int
    price: int
    slippage: int
    position_id: str
    closed_quantity: int
    signed_quantity_after: int
    realized: int
    realized_minor: int
    commission_minor: int
    currency: str
    currency_scale: int
    liquidity: Liquidity
    quote_bid: int
    quote_ask: int
    quote_sequence: int
    quote_at: datetime
    executed_at: datetime
    conversion: Conversion | None = None
