"""Rules asked of an order before it is accepted; each refusal names its numbers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trading_api.kernel.values import Currency, decimal_of
from trading_api.modules.broker.domain.account import Account, TradingState
from trading_api.modules.broker.domain.instrument import COST_SCALE, PPM, Quote
from trading_api.modules.broker.domain.limits import RiskLimits
from trading_api.modules.broker.domain.order import Order, OrderSide
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.errors import (
    ExposureLimitError,
    OpenOrdersLimitError,
    OrderRateError,
    PositionLimitError,
    PriceBandError,
    TradingHaltedError,
    TradingReduceOnlyError,
)

_SECOND_US = 1_000_000


def is_closing(order: Order, position: Position, others: Iterable[Order]) -> bool:
    """Tell whether an order can only make a position smaller, whatever else fills before it."""
    if order.reduce_only:
        return True
    same_side = sum(
        each.leaves_quantity
        for each in others
        if each.side is order.side and not each.reduce_only and each.order_id != order.order_id
    )
    return order.leaves_quantity + same_side <= -order.side.sign * position.signed_quantity


def may_fill(account: Account, order: Order, position: Position) -> bool:
    """Tell whether the kill switches let a resting order fill."""
    match account.effective_state:
        case TradingState.ACTIVE:
            return True
        case TradingState.REDUCE_ONLY:
            return is_closing(order, position, ())
        case TradingState.HALTED:
            return False


def ensure_may_trade(account: Account, *, closes: bool) -> None:
    """Refuse what the kill switches of the account and the platform forbid.

    Raises:
        TradingHaltedError: nothing but cancels is taken.
        TradingReduceOnlyError: only what closes is taken.
    """
    for scope, state in (("platform", account.platform_state), ("account", account.trading_state)):
        if state is TradingState.HALTED:
            raise TradingHaltedError(
                f"trading on this {scope} is halted; open orders can be canceled", scope=scope
            )
        if state is TradingState.REDUCE_ONLY and not closes:
            raise TradingReduceOnlyError(
                f"this {scope} takes only orders that close positions", scope=scope
            )


def ensure_price_band(order: Order, quote: Quote, limits: RiskLimits) -> None:
    """Refuse prices so far from the market that they must be a mistake.

    Raises:
        PriceBandError: a limit or trigger price lies outside.
    """
    if not limits.price_band_ppm:
        return
    reference = quote.touch(order.side)
    reach = reference * limits.price_band_ppm // PPM
    for name, price in (("limitPrice", order.limit_price), ("stopPrice", order.trigger_price)):
        if price is not None and abs(price - reference) > reach:
            raise PriceBandError(
                f"{name} is too far from the market",
                price=_text(price, order.price_scale),
                lowest=_text(max(0, reference - reach), order.price_scale),
                highest=_text(reference + reach, order.price_scale),
            )


def ensure_order_count(others: Sequence[Order], limits: RiskLimits) -> None:
    """Refuse one more open order of an instrument than there may be.

    Raises:
        OpenOrdersLimitError: there are as many as there may be.
    """
    if limits.open_orders_max and len(others) >= limits.open_orders_max:
        raise OpenOrdersLimitError(
            f"an account may have {limits.open_orders_max} open orders of one instrument",
            open_orders=len(others),
            open_orders_max=limits.open_orders_max,
        )


@dataclass(frozen=True, slots=True)
class Exposure:
    """The worst value an account may come to hold, 10^-8 of its currency."""

    of_instrument: int
    of_others: int


def compute_worst_value(position: Position, orders: Sequence[Order]) -> int:
    """Return the worst value of a position if its orders fill, 10^-8, at their dearest prices."""
    terms = position.terms
    worst = terms.compute_value(abs(position.signed_quantity), position.last_price)
    for side in OrderSide:
        theirs = [each for each in orders if each.side is side and not each.reduce_only]
        if not theirs:
            continue
        price = max(each.reserve_price for each in theirs)
        quantity = side.sign * sum(each.leaves_quantity for each in theirs)
        value = terms.compute_value(abs(position.signed_quantity + quantity), price)
        worst = max(worst, value)
    return terms.to_account(worst)


def ensure_exposure(exposure: Exposure, currency: Currency, limits: RiskLimits) -> None:
    """Refuse what would make a position, or all of them together, larger than the house allows.

    Raises:
        PositionLimitError: of the instrument.
        ExposureLimitError: of the account.
    """
    one = int(10**COST_SCALE)
    if limits.position_value_max and exposure.of_instrument > limits.position_value_max * one:
        raise PositionLimitError(
            "the position would be larger than an account may hold",
            value=_text(exposure.of_instrument, COST_SCALE),
            value_max=str(limits.position_value_max),
            currency=currency.code,
        )
    total = exposure.of_instrument + exposure.of_others
    if limits.exposure_max and total > limits.exposure_max * one:
        raise ExposureLimitError(
            "all positions together would be larger than an account may hold",
            value=_text(total, COST_SCALE),
            value_max=str(limits.exposure_max),
            currency=currency.code,
        )


def take_turn(pace_us: int, now_us: int, limits: RiskLimits) -> int:
    """Return an account's pace after one more order or change (the generic cell rate algorithm).

    Args:
        pace_us: when the account's orders so far are worked off, microseconds since 1970 UTC.

    Raises:
        OrderRateError: too many at once; nothing is counted.
    """
    if not limits.orders_per_second:
        return pace_us
    interval = _SECOND_US // limits.orders_per_second
    after = max(pace_us, now_us) + interval
    if after - now_us > interval * limits.orders_burst:
        raise OrderRateError(
            f"an account may place or change {limits.orders_burst} orders at once and "
            f"{limits.orders_per_second} a second in the long run",
            retry_after_seconds=1,
            orders_per_second=limits.orders_per_second,
            orders_burst=limits.orders_burst,
        )
    return after


def _text(raw: int, scale: int) -> str:
    return f"{decimal_of(raw, scale).normalize():f}"
