"""Executions and positions on the wire."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    Field,
)

from trading_api.kernel.values import decimal_of
from trading_api.modules.broker.domain.execution import Execution
from trading_api.modules.broker.domain.instrument import (
    Quote,
)
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.schemas.instruments import QuoteView
from trading_api.modules.broker.schemas.wire import (
    SIDE_NUMBERS,
    Milliseconds,
    Number,
    View,
    decimal_or_none,
    money_of,
    ms_of,
    percent_of,
    pips_of,
    rounded,
)


class ExecutionView(View):
    """A fill: TradingView's Execution with some more."""

    id: str
    order_id: str
    account_id: str
    symbol: str
    side: Literal[1, -1]
    qty: Number
    price: Number
    time: Milliseconds
    commission: Number
    slippage: Number = Field(description="how much worse than the quote its size made the price")
    position_id: str
    realized_pl: Number = Field(description="what the closed part earned, before commission")
    currency: str
    is_close: bool = Field(description="whether it closed anything")
    closed_qty: Number
    liquidity: Literal["MAKER", "TAKER"]
    quote: QuoteView
    sequence: int = Field(description="number of its event on the account")

    @classmethod
    def of(cls, execution: Execution) -> "ExecutionView":
        """Translate an execution."""
        price_scale, quantity_scale = execution.price_scale, execution.quantity_scale
        return cls.model_construct(
            id=execution.execution_id,
            order_id=execution.order_id,
            account_id=execution.account_id,
            symbol=execution.symbol,
            side=SIDE_NUMBERS[execution.side],
            qty=decimal_of(execution.quantity, quantity_scale),
            price=decimal_of(execution.price, price_scale),
            time=ms_of(execution.executed_at),
            commission=decimal_of(execution.commission_minor, execution.currency_scale),
            slippage=decimal_of(execution.slippage, price_scale),
            position_id=execution.position_id,
            realized_pl=decimal_of(execution.realized_minor, execution.currency_scale),
            currency=execution.currency,
            is_close=execution.closed_quantity > 0,
            closed_qty=decimal_of(execution.closed_quantity, quantity_scale),
            liquidity=execution.liquidity.value,
            quote=QuoteView.model_construct(
                bid=decimal_of(execution.quote_bid, price_scale),
                ask=decimal_of(execution.quote_ask, price_scale),
                sequence=execution.quote_sequence,
                time=ms_of(execution.quote_at),
            ),
            sequence=execution.sequence,
        )


class PositionView(View):
    """What is held of an instrument; ``qty`` 0 tells that it was closed."""

    id: str = Field(description="the symbol; on a hedging account the position's own id")
    account_id: str
    symbol: str
    qty: Number
    side: Literal[1, -1]
    avg_price: Number = Field(description="average entry price, rounded to 8 decimals; 0 when flat")
    realized_pl: Number
    commission: Number
    take_profit: Number | None
    stop_loss: Number | None
    trailing_stop_pips: Number | None
    trailing_stop_percent: Number | None
    open_time: Milliseconds | None
    update_time: Milliseconds
    mark_price: Number | None = Field(
        default=None, description="longs at the bid, shorts at the ask; only where asked by HTTP"
    )
    unrealized_pl: Number | None = None
    margin: Number | None = None

    @classmethod
    def of(cls, position: Position, marked_to: Mapping[str, Quote] | None = None) -> "PositionView":
        """Translate a position, with what it is worth where quotes are given."""
        terms = position.terms
        worth: dict[str, Any] = {"mark_price": None, "unrealized_pl": None, "margin": None}
        if marked_to is not None:
            mark = position.mark(marked_to.get(position.symbol))
            position = position.at(marked_to)
            worth = {
                "mark_price": decimal_of(mark, terms.price_scale),
                "unrealized_pl": money_of(position.compute_unrealized(mark), terms.currency),
                "margin": money_of(position.compute_margin(mark), terms.currency),
            }
        return cls.model_construct(
            id=position.position_id,
            account_id=position.account_id,
            symbol=position.symbol,
            qty=decimal_of(abs(position.signed_quantity), terms.quantity_scale),
            side=-1 if position.signed_quantity < 0 else 1,
            avg_price=rounded(position.average_entry_price()),
            realized_pl=money_of(position.realized_minor, terms.currency),
            commission=money_of(position.commission_minor, terms.currency),
            take_profit=decimal_or_none(position.brackets.take_profit, terms.price_scale),
            stop_loss=decimal_or_none(position.brackets.stop_loss, terms.price_scale),
            trailing_stop_pips=pips_of(position.brackets.trailing),
            trailing_stop_percent=percent_of(position.brackets.trailing),
            open_time=ms_of(position.opened_at) if position.opened_at else None,
            update_time=ms_of(position.updated_at),
            **worth,
        )
