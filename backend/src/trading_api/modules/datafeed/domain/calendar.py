"""Holidays and short days of an exchange, in the chart's notation."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TradingCalendar:
    """When an exchange deviates from its weekly hours.

    Attributes:
        code: name of the calendar, such as ``XNYS`` (the market's ISO 10383 code).
        time_zone: IANA name of the exchange's local time.
        session: its usual hours, such as ``0930-1600``.
        holidays: weekdays without a session, ``YYYYMMDD`` by comma, ascending.
        corrections: days with other hours, ``0930-1300:20251128,20251224;…``.
    """

    code: str
    time_zone: str
    session: str
    holidays: str
    corrections: str


def describe_days(
    *,
    code: str,
    time_zone: str,
    session: str,
    weekdays: Iterable[str],
    sessions: Iterable[tuple[str, str]],
) -> TradingCalendar:
    """Return the calendar of a stretch of days.

    Args:
        weekdays: every Monday to Friday of the stretch, ``YYYYMMDD``.
        sessions: the trading days among them with their hours, ``("20251128", "0930-1300")``.
    """
    hours = dict(sessions)
    holidays = sorted(day for day in weekdays if day not in hours)
    unusual: dict[str, list[str]] = {}
    for day, text in sorted(hours.items()):
        if text != session:
            unusual.setdefault(text, []).append(day)
    return TradingCalendar(
        code=code,
        time_zone=time_zone,
        session=session,
        holidays=",".join(holidays),
        corrections=";".join(f"{text}:{','.join(days)}" for text, days in sorted(unusual.items())),
    )
