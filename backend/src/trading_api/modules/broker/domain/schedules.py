"""What holding a position overnight costs, by kind of instrument."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from trading_api.modules.broker.domain.arithmetic import divide_up

DAYS_PER_YEAR = 365
_PPM = 1_000_000


@dataclass(frozen=True, slots=True)
class FinancingRate:
    """Yearly cost of holding, parts per million of the value; negative is paid to the customer."""

    long_ppm: int = 0
    short_ppm: int = 0

    def compute_owed(self, *, signed_value: int, per_minor: int) -> int:
        """Return what one night costs in minor units, rounded up as what a customer owes.

        Args:
            signed_value: value at the mark, 10^-8; positive long, negative short.
            per_minor: 10^-8 of the currency in one minor unit.
        """
        rate = self.long_ppm if signed_value > 0 else self.short_ppm
        return divide_up(abs(signed_value) * rate, _PPM * DAYS_PER_YEAR * per_minor)


def midnight_of(day: date) -> datetime:
    """Return 00:00 UTC at which a day begins."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def days_to_finance(last: date, now: datetime) -> list[date]:
    """Return the days that began after ``last`` and up to now: each costs one night."""
    today = now.astimezone(UTC).date()
    return [last + timedelta(days=each) for each in range(1, (today - last).days + 1)]
