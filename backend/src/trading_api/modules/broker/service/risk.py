"""Pre-trade risk: what an account may take on, asked inside the transaction that accepts."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from trading_api.kernel.clock import to_us
from trading_api.kernel.errors import FieldError
from trading_api.kernel.values import Currency, decimal_of
from trading_api.modules.broker.domain.account import Valuation, compute_valuation
from trading_api.modules.broker.domain.conversion import Conversion, find_conversion
from trading_api.modules.broker.domain.instrument import Instrument, Policy, Quote
from trading_api.modules.broker.domain.margin import compute_reservation, is_countable
from trading_api.modules.broker.domain.order import Order
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.domain.risk import (
    Exposure,
    compute_worst_value,
    ensure_exposure,
    ensure_may_trade,
    ensure_order_count,
    ensure_price_band,
    is_closing,
    take_turn,
)
from trading_api.modules.broker.errors import (
    InstrumentNotTradableError,
    InsufficientMarginError,
    OrderInvalidError,
)
from trading_api.modules.broker.ports import QuoteSource
from trading_api.modules.broker.service.desk import Desk


class RiskGate:
    """What acceptance and triggers ask of an account before its exposure may grow."""

    def __init__(self, *, quotes: QuoteSource, policy: Policy) -> None:
        self._quotes = quotes
        self._policy = policy

    def position_of(self, desk: Desk, instrument: Instrument) -> Position:
        """Return the desk's position in an instrument, a flat one on today's terms if need be."""
        position = desk.positions.get(instrument.symbol)
        account = desk.account
        conversion = self.conversion_of(instrument, account.currency)
        terms = self._policy.terms_of(instrument, account.currency, account.leverages, conversion)
        if position is None:
            position = Position(desk.account.account_id, terms, desk.now)
        elif position.is_flat and not position.reserved_minor:
            # Nothing hangs on the old terms any more.
            position = replace(position, terms=terms)
        elif conversion != position.terms.conversion:
            # Reservations are reckoned anew at today's rate.
            position = replace(position, terms=replace(position.terms, conversion=conversion))
            desk.keep(position)
        desk.positions[instrument.symbol] = position
        return position

    def conversion_of(self, instrument: Instrument, account: Currency) -> Conversion | None:
        """Return how an instrument's results become the account's money; None where they are it.

        Raises:
            InstrumentNotTradableError: no pair converts between the two.
        """
        if instrument.quote_currency == account.code:
            return None
        exchange = instrument.symbol.partition(":")[0]
        found = find_conversion(
            instrument.quote_currency, account.code, exchange, self._quotes.find
        )
        if found is None:
            message = f"nothing converts {instrument.quote_currency} into {account.code}"
            raise InstrumentNotTradableError(
                f"{instrument.symbol} can't be traded on this account: {message}",
                errors=[FieldError("symbol", "not_tradable", message)],
            )
        return found

    def ensure_allowed(
        self, desk: Desk, order: Order, others: Sequence[Order], quote: Quote, *, is_new: bool
    ) -> None:
        """Refuse what the kill switches, the price band or the limits forbid.

        What closes is bound by the kill switch "halted" alone.

        Args:
            others: the other open orders of its instrument.

        Raises:
            TradingHaltedError, TradingReduceOnlyError: a kill switch.
            PriceBandError: a price is too far from the market.
            OpenOrdersLimitError, PositionLimitError, ExposureLimitError: too much of it.
        """
        limits, position = self._policy.limits, desk.positions[order.symbol]
        closes = is_closing(order, position, others)
        ensure_may_trade(desk.account, closes=closes)
        if not closes:
            ensure_price_band(order, quote, limits)
            if is_new:
                ensure_order_count(others, limits)
            exposure = Exposure(
                compute_worst_value(position, [*others, order]),
                sum(
                    compute_worst_value(each, ())
                    for each in desk.positions.values()
                    if each.position_id != position.position_id
                ),
            )
            ensure_exposure(exposure, desk.account.currency, limits)

    def ensure_legs_allowed(self, desk: Desk) -> None:
        """Refuse new legs and new prices of legs where the kill switch "halted" does.

        Raises:
            TradingHaltedError: nothing but cancels is taken.
        """
        ensure_may_trade(desk.account, closes=True)

    def take_turn(self, desk: Desk) -> None:
        """Count a new order or a change of one in the account's rate.

        Raises:
            OrderRateError: too many at once.
        """
        pace_us = take_turn(desk.account.pace_us, to_us(desk.now), self._policy.limits)
        if pace_us != desk.account.pace_us:
            desk.account = replace(desk.account, pace_us=pace_us)

    async def ensure_carried(self, desk: Desk, symbol: str, orders: Sequence[Order]) -> None:
        """Refuse orders that need more than is available; those that only close need nothing."""
        position = desk.positions[symbol]
        if not is_countable(position, orders):
            raise OrderInvalidError(
                "qty: the account's exposure would be too large to count",
                errors=[FieldError("qty", "value_too_large", "exposure is out of range")],
            )
        added = compute_reservation(position, orders) - position.reserved_minor
        if added <= 0:
            return
        valuation = await self.value(desk)
        if valuation.available_minor < added:
            currency = desk.account.currency
            raise InsufficientMarginError(
                "the account hasn't the margin that this order needs",
                required=f"{decimal_of(added, currency.scale):f}",
                available=f"{decimal_of(valuation.available_minor, currency.scale):f}",
                currency=currency.code,
            )

    async def value(self, desk: Desk) -> Valuation:
        """Return what the account is worth at the newest quotes known."""
        balance = await desk.load_balance()
        return compute_valuation(
            cash_minor=balance.total.minor,
            positions=desk.positions.values(),
            quotes=newest(self._quotes.find, desk.positions.values()),
            held_minor=balance.held.minor,
        )

    async def is_carried(self, desk: Desk, order: Order) -> bool:
        """Tell whether a stop's account can still carry it at its trigger."""
        position = desk.positions[order.symbol]
        reserves = compute_reservation(position, [order])
        if reserves == 0:
            return True
        valuation = await self.value(desk)
        # The order's own reservation is in the valuation already.
        return valuation.available_minor >= 0


def newest(find: Callable[[str], Quote | None], positions: Iterable[Position]) -> dict[str, Quote]:
    """Return the newest known quotes of those positions' instruments that have one."""
    found = {}
    for each in positions:
        found[each.symbol] = find(each.symbol)
        if each.terms.conversion is not None:
            found[each.terms.conversion.pair] = find(each.terms.conversion.pair)
    return {symbol: quote for symbol, quote in found.items() if quote is not None}
