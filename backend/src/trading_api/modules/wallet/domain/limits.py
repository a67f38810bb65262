"""What one request and one day may move, by currency; every refusal carries the numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from trading_api.kernel.errors import FieldError
from trading_api.kernel.values import Money
from trading_api.modules.wallet.errors import (
    AmountAboveMaximumError,
    AmountBelowMinimumError,
    DailyLimitError,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one kind of request, by currency code; a currency without one has none.

    Attributes:
        minimum: The least of one request.
        maximum: The most of one request.
        daily: The most of one UTC day, what waits for confirmation included.
    """

    minimum: Mapping[str, Money] = field(default_factory=dict)
    maximum: Mapping[str, Money] = field(default_factory=dict)
    daily: Mapping[str, Money] = field(default_factory=dict)

    def ensure_single(self, amount: Money) -> None:
        """Judge one request by itself.

        Raises:
            AmountBelowMinimumError, AmountAboveMaximumError: With the limit.
        """
        code = amount.currency.code
        least, most = self.minimum.get(code), self.maximum.get(code)
        if least is not None and amount < least:
            message = f"at least {least} {code} at once"
            raise AmountBelowMinimumError(
                message,
                errors=[FieldError("amount", "below_minimum", message)],
                requested=str(amount),
                minimum=str(least),
                currency=code,
            )
        if most is not None and most < amount:
            message = f"at most {most} {code} at once"
            raise AmountAboveMaximumError(
                message,
                errors=[FieldError("amount", "above_maximum", message)],
                requested=str(amount),
                maximum=str(most),
                currency=code,
            )

    def ensure_daily(self, amount: Money, *, used: Money) -> None:
        """Judge a request beside what the day has seen.

        Raises:
            DailyLimitError: With the limit and what is left.
        """
        code = amount.currency.code
        limit = self.daily.get(code)
        if limit is not None and limit < used + amount:
            left = Money(max(0, limit.minor - used.minor), amount.currency)
            raise DailyLimitError(
                f"{limit} {code} a day, {left} left",
                limit=str(limit),
                used=str(used),
                left=str(left),
                requested=str(amount),
                currency=code,
            )


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class WalletLimits:
    """The limits of every kind of request."""

    deposit: Limits = NO_LIMITS
    withdrawal: Limits = NO_LIMITS
    transfer: Limits = NO_LIMITS
    exchange: Limits = NO_LIMITS
