"""Where requests come in: which market is meant, whose desk is opened, whether it may trade."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from trading_api.kernel.errors import FieldError, TradingError
from trading_api.modules.broker.domain.instrument import Instrument, Policy, Quote
from trading_api.modules.broker.domain.order import Order, OrderTicket
from trading_api.modules.broker.errors import (
    AccountNotFoundError,
    InstrumentNotTradableError,
    InstrumentUnknownError,
    MarketUnavailableError,
)
from trading_api.modules.broker.ports import InstrumentSource, QuoteSource
from trading_api.modules.broker.service.desk import Books, Desk
from trading_api.modules.broker.service.floor import Floor
from trading_api.runtime.database import Transaction


class Counter:
    """Opens desks for requests and brings their tickets to the floor."""

    def __init__(
        self,
        *,
        books: Books,
        quotes: QuoteSource,
        instruments: InstrumentSource,
        policy: Policy,
        floor: Floor,
    ) -> None:
        self._books = books
        self._quotes = quotes
        self._instruments = instruments
        self._floor = floor
        self.policy = policy

    async def look_up(self, symbol: str) -> Instrument | TradingError:
        """Return an instrument with its quote refreshed, or the error to raise about it.

        The error is raised later, after repeats were answered: those need no market.
        """
        try:
            found = await self._instruments.find(symbol)
        except MarketUnavailableError as error:
            return error
        if found is None:
            return InstrumentUnknownError(
                "there is no such instrument",
                errors=[FieldError("symbol", "unknown", "names no instrument")],
            )
        await self._quotes.refresh([symbol])
        return found

    async def open_desk(self, transaction: Transaction, account_id: str, now: datetime) -> Desk:
        """Lock an account.

        Raises:
            AccountNotFoundError: there is none.
        """
        desk = await Desk.open(self._books, transaction, account_id, now)
        if desk is None:
            raise AccountNotFoundError("there is no such trading account")
        return desk

    async def accept(
        self,
        desk: Desk,
        ticket: OrderTicket,
        market: Instrument | TradingError,
        *,
        body: Mapping[str, Any],
        client_order_id: str | None = None,
    ) -> Order:
        """Measure, judge and accept a ticket, and fill it where a fresh quote allows.

        Raises:
            OrderInvalidError, StaleQuoteError, InsufficientMarginError and what else refuses an
            order; the desk is as it was then.
        """
        instrument, quote = self.ensure_tradable(market, desk)
        order = self._floor.draft(desk, ticket, instrument, quote, client_order_id=client_order_id)
        await self._floor.ensure_acceptable(desk, order, instrument, quote)
        return await self._floor.accept(desk, order, instrument, quote, body=body)

    def ensure_tradable(
        self, market: Instrument | TradingError, desk: Desk
    ) -> tuple[Instrument, Quote]:
        """Return an instrument that the account can trade, and its newest quote.

        Raises:
            InstrumentUnknownError, InstrumentNotTradableError: the symbol can't be traded.
            MarketUnavailableError: there is no quote yet, or the market can't be asked.
        """
        if isinstance(market, TradingError):
            raise market
        is_known = market.kind in self.policy.leverage_by_kind
        if not (market.tradable and is_known):
            raise InstrumentNotTradableError(
                f"{market.symbol} can't be traded on this account; DEMO instruments can",
                errors=[FieldError("symbol", "not_tradable", "is not tradable on this account")],
            )
        return market, self._known_quote(market)

    def _known_quote(self, instrument: Instrument) -> Quote:
        quote = self._quotes.find(instrument.symbol)
        if quote is None or quote.price_scale != instrument.price_scale:
            raise MarketUnavailableError(
                "there is no quote of this instrument yet", retry_after_seconds=1
            )
        return quote
