"""Exchange calendars: the bundled one read from its file, any other computed by the library.

``exchange_calendars`` brings pandas and takes seconds to import, so it is imported on first use,
in a thread, by the process that an operator asks; market data is served without it.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from importlib import resources
from typing import Any

from trading_api.modules.datafeed.domain.calendar import TradingCalendar, describe_days

BUNDLED = ("XNYS",)
FIRST_DAY = "1999-01-01"
"""Bundled calendars begin before the oldest bundled bar."""

LAST_DAY = "2027-10-29"
"""And end here; ``scripts/build_calendars.py`` writes them anew."""

_FOLDER = "trading_api.modules.datafeed"


class ExchangeCalendars:
    """A ``CalendarSource``."""

    async def find(self, code: str, *, first_day: date) -> TradingCalendar | None:
        """Return a calendar by its code; None where there is none of that name.

        Args:
            first_day: where a computed one begins; the bundled ones begin in 1999.
        """
        if code in BUNDLED:
            return bundled_calendar(code)
        return await asyncio.to_thread(compute_calendar, code, first_day.isoformat())


def bundled_calendar(code: str) -> TradingCalendar:
    """Read a bundled calendar."""
    path = resources.files(_FOLDER) / "data" / f"{code.lower()}.calendar.json"
    return TradingCalendar(**json.loads(path.read_text())["calendar"])


def encode_calendar(calendar: TradingCalendar, *, source: str) -> str:
    """Return the text of a bundled file."""
    return json.dumps({"source": source, "calendar": asdict(calendar)}, indent=1) + "\n"


def compute_calendar(
    code: str, first_day: str, last_day: str | None = None
) -> TradingCalendar | None:
    """Compute a calendar from the library's rules.

    Args:
        last_day: where it ends; a year ahead of today where None.
    """
    import exchange_calendars
    import pandas

    if code not in exchange_calendars.get_calendar_names(include_aliases=False):
        return None
    bounds: Mapping[str, Any] = {"start": first_day} | ({"end": last_day} if last_day else {})
    found = exchange_calendars.get_calendar(code, **bounds)
    if len(found.weekmask.replace("0", "")) == 7:
        return TradingCalendar(code, str(found.tz), "24x7", "", "")
    opens = found.opens.dt.tz_convert(found.tz).dt.strftime("%H%M")
    closes = found.closes.dt.tz_convert(found.tz).dt.strftime("%H%M")
    hours = opens + "-" + closes
    # What is usual now, else every day of an old regime would be an exception of its own.
    session = str(hours.iloc[-250:].mode().iloc[0])
    weekdays = pandas.bdate_range(found.first_session, found.last_session)
    return describe_days(
        code=code,
        time_zone=str(found.tz),
        session=session,
        weekdays=weekdays.strftime("%Y%m%d"),
        sessions=zip(hours.index.strftime("%Y%m%d"), hours, strict=True),
    )
