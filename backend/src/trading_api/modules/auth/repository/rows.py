"""Conversions that several tables need."""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from trading_api.kernel.clock import from_us, to_us
from trading_api.runtime.database import Transaction

MICROSECOND = timedelta(microseconds=1)


def insert_into(transaction: Transaction, table: sa.Table) -> Any:
    """Return an insert of the database's own dialect, which knows ``ON CONFLICT``."""
    if transaction.dialect == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def us_of(instant: datetime | None) -> int | None:
    """Return microseconds; None stays None."""
    return None if instant is None else to_us(instant)


def instant_of(instant_us: int | None) -> datetime | None:
    """Return the instant; None stays None."""
    return None if instant_us is None else from_us(instant_us)
