#!/usr/bin/env python3
"""Write the bundled exchange calendars from the package `exchange-calendars`.

    cd backend && python ../scripts/build_calendars.py

Run it once a year, after moving LAST_DAY on. A test computes them again and
compares.
"""

from importlib.metadata import version
from pathlib import Path

from trading_api.modules.datafeed.adapters.calendars import (
    BUNDLED,
    FIRST_DAY,
    LAST_DAY,
    compute_calendar,
    encode_calendar,
)

FOLDER = Path(__file__).resolve().parents[1] / "backend/src/trading_api/modules/datafeed/data"


def main() -> None:
    """Compute and write every bundled calendar."""
    for code in BUNDLED:
        calendar = compute_calendar(code, FIRST_DAY, LAST_DAY)
        if calendar is None:
            raise SystemExit(f"error: no calendar is called {code}")
        source = f"exchange-calendars {version('exchange-calendars')}, {FIRST_DAY} to {LAST_DAY}"
        path = FOLDER / f"{code.lower()}.calendar.json"
        path.write_text(encode_calendar(calendar, source=source))


if __name__ == "__main__":
    main()
