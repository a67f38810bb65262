"""Exact values: integers of a fixed scale, Decimal only at the edges, never float."""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import total_ordering
from types import MappingProxyType
from typing import Self

from trading_api.kernel.errors import AmountOutOfRangeError, InvalidValueError

MINOR_MAX = 10**15
"""Largest absolute amount in minor units; keeps every sum of a ledger inside 63 bits."""


@dataclass(frozen=True, slots=True)
class Currency:
    """A currency and the number of decimals of its minor unit (ISO 4217; crypto by custom).

    Attributes:
        code: upper-case code such as ``USD``.
        scale: decimals of one minor unit: 2 for USD (cents), 0 for JPY, 8 for BTC.
    """

    code: str
    scale: int


CURRENCIES = MappingProxyType(
    {
        each.code: each
        for each in (
            Currency("USD", 2),
            Currency("EUR", 2),
            Currency("GBP", 2),
            Currency("CHF", 2),
            Currency("JPY", 0),
            Currency("AUD", 2),
            Currency("CAD", 2),
            Currency("USDT", 6),
            Currency("USDC", 6),
            Currency("BTC", 8),
            Currency("ETH", 8),
        )
    }
)


def currency(code: str) -> Currency:
    """Return the known currency of that upper-case code.

    Raises:
        InvalidValueError: the code is not known.
    """
    found = CURRENCIES.get(code)
    if found is None:
        raise InvalidValueError(f"{code!r:.12} is not a currency known here", known=[*CURRENCIES])
    return found


def raw_of(value: Decimal, scale: int) -> int:
    """Return ``value`` as an integer count of 10^-scale, exactly.

    Raises:
        InvalidValueError: not finite, or more decimals than the scale has.
    """
    if not value.is_finite():
        raise InvalidValueError("the number must be finite")
    try:
        shifted = value.scaleb(scale)
        raw = int(shifted)
    except (InvalidOperation, OverflowError) as error:
        raise InvalidValueError("the number is out of range") from error
    if raw != shifted:
        raise InvalidValueError(f"the number has more than {scale} decimals", scale=scale)
    return raw


def decimal_of(raw: int, scale: int) -> Decimal:
    """Return an integer count of 10^-scale as a Decimal with exactly ``scale`` decimals."""
    return Decimal(raw).scaleb(-scale)


@total_ordering
@dataclass(frozen=True, slots=True)
class Money:
    """An amount of one currency.

    Attributes:
        minor: signed count of minor units (cents for USD).
        currency: what it is an amount of; arithmetic across currencies is a programmer's error.
    """

    minor: int
    currency: Currency

    @classmethod
    def of(cls, amount: Decimal, currency: Currency) -> Self:
        """Build from a Decimal amount of the major unit, exactly.

        Raises:
            InvalidValueError: more decimals than the currency has, or not finite.
            AmountOutOfRangeError: beyond 10^15 minor units.
        """
        if amount.is_finite() and amount.adjusted() > 18:
            raise AmountOutOfRangeError("the amount is out of range")
        minor = raw_of(amount, currency.scale)
        if abs(minor) > MINOR_MAX:
            raise AmountOutOfRangeError("the amount is out of range", minor_max=MINOR_MAX)
        return cls(minor, currency)

    @classmethod
    def parse(cls, text: str, currency: Currency) -> Self:
        """Build from decimal text such as ``"10.50"``; errors as ``of``."""
        try:
            amount = Decimal(text)
        except InvalidOperation as error:
            raise InvalidValueError("not a decimal number") from error
        return cls.of(amount, currency)

    def to_decimal(self) -> Decimal:
        """Return the amount in major units with the currency's decimals."""
        return decimal_of(self.minor, self.currency.scale)

    def __str__(self) -> str:
        return f"{self.to_decimal():f}"

    def __add__(self, other: Self) -> Self:
        self._ensure_same(other)
        return type(self)(self.minor + other.minor, self.currency)

    def __sub__(self, other: Self) -> Self:
        self._ensure_same(other)
        return type(self)(self.minor - other.minor, self.currency)

    def __neg__(self) -> Self:
        return type(self)(-self.minor, self.currency)

    def __lt__(self, other: Self) -> bool:
        self._ensure_same(other)
        return self.minor < other.minor

    def _ensure_same(self, other: Self) -> None:
        assert self.currency == other.currency, "amounts of two currencies don't mix"


@total_ordering
@dataclass(frozen=True, slots=True)
class _Scaled:
    """A count of 10^-scale; two values compare by what they mean, not by their scale."""

    raw: int
    scale: int

    @classmethod
    def of(cls, value: Decimal, scale: int) -> Self:
        """Build from a Decimal, exactly.

        Raises:
            InvalidValueError: more decimals than the scale, or not finite.
        """
        return cls(raw_of(value, scale), scale)

    def to_decimal(self) -> Decimal:
        """Return the value with exactly ``scale`` decimals."""
        return decimal_of(self.raw, self.scale)

    def __str__(self) -> str:
        return f"{self.to_decimal():f}"

    def __lt__(self, other: Self) -> bool:
        return self._at(other.scale) < other._at(self.scale)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return self._at(other.scale) == other._at(self.scale)

    def _at(self, other_scale: int) -> int:
        return self.raw * int(10**other_scale)

    def __hash__(self) -> int:
        return hash(self.to_decimal())


class Price(_Scaled):
    """A price in the instrument's quote currency; ``scale`` is its decimals."""

    __slots__ = ()


class Quantity(_Scaled):
    """A quantity in units of the instrument, unsigned unless the name says ``signed``."""

    __slots__ = ()
