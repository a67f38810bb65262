"""Proofs over stored market data: read-only, from scratch.

Each check has the id of the invariant it proves:

* M1 a series' chunks are numbered without a gap, hold as many bars as it says, and their edges are
  their first and last bar's
* M2 a series' bars ascend, and high and low enclose open and close, all above zero
* M3 an instrument agrees with its series, its session and zone can be read, DEMO never closes, and
  nothing but DEMO is tradable
* M4 what was told of an instrument's changes ends with the version that is stored, without a gap
* M5 the kept seconds of a minute lie within it and add up to its bar
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from zoneinfo import ZoneInfo

import numpy as np
import sqlalchemy as sa

from trading_api.contracts.datafeed import InstrumentChanged
from trading_api.ledger.checks import Violation
from trading_api.modules.datafeed import tables
from trading_api.modules.datafeed.domain import aggregate
from trading_api.modules.datafeed.domain.aggregate import parse_session
from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.domain.instrument import Exchange
from trading_api.modules.datafeed.repository.bars import decode_bars
from trading_api.runtime.database import Transaction

CHECK_IDS = ("M1", "M2", "M3", "M4", "M5")

_MICROSECONDS = 1_000_000


async def check_market_data(transaction: Transaction) -> list[Violation]:
    """Return everything that is wrong; a chunk at a time is in memory."""
    found: list[Violation] = []
    series = {row.id: row for row in await transaction.all(sa.select(tables.series))}
    for row in series.values():
        found += await _check_series(transaction, row)
    instruments = await transaction.all(sa.select(tables.instruments))
    for row in instruments:
        found += _instrument_faults(row, series.get(row.series_id))
    found += await _check_changes(transaction, instruments)
    return found


async def _check_series(
    transaction: Transaction, series: "sa.Row[tuple[object, ...]]"
) -> list[Violation]:
    chunks = tables.series_chunks
    of_series = sa.and_(chunks.c.series_id == series.id, chunks.c.version == series.version)
    positions = await transaction.all(
        sa.select(chunks.c.position).where(of_series).order_by(chunks.c.position)
    )
    found: list[Violation] = []
    numbers = [row.position for row in positions]
    if numbers != list(range(len(numbers))):
        found.append(Violation("M1", series.id, "its chunks are not numbered without a gap"))
    count, last, with_seconds = 0, -(2**62), 0
    for number in numbers:
        chunk = await transaction.first(
            sa.select(chunks).where(of_series, chunks.c.position == number)
        )
        assert chunk is not None, "read in one snapshot"
        subject = f"{series.id} chunk {number}"
        if len(chunk.columns) != chunk.bar_count * 6 * 8:
            found.append(Violation("M1", subject, f"doesn't hold {chunk.bar_count} bars"))
            continue
        table = np.frombuffer(chunk.columns, dtype="<i8").reshape(6, chunk.bar_count)
        bars = Columns(*table.astype(np.int64, copy=False))
        edges = (int(bars.time[0]) * _MICROSECONDS, int(bars.time[-1]) * _MICROSECONDS)
        if edges != (chunk.first_at_us, chunk.last_at_us):
            found.append(Violation("M1", subject, "its edges are not those of its bars"))
        found += [Violation("M2", subject, fault) for fault in _bar_faults(bars, last)]
        with_seconds += await _check_seconds(transaction, series.id, bars, found)
        count, last = count + chunk.bar_count, int(bars.time[-1])
    kept = await transaction.scalar(
        sa.select(sa.func.count()).where(tables.second_bars.c.series_id == series.id)
    )
    if kept != with_seconds:
        found.append(Violation("M5", series.id, "there are seconds of minutes that it hasn't"))
    if count != series.bar_count:
        message = f"says {series.bar_count} bars, its chunks have {count}"
        found.append(Violation("M1", series.id, message))
    return found


async def _check_seconds(
    transaction: Transaction, series_id: str, minutes: Columns, found: list[Violation]
) -> int:
    """Add what is wrong with the seconds of a chunk's minutes; return of how many there are any."""
    table = tables.second_bars
    rows = await transaction.all(
        sa.select(table).where(
            table.c.series_id == series_id,
            table.c.minute_at_us >= int(minutes.time[0]) * _MICROSECONDS,
            table.c.minute_at_us <= int(minutes.time[-1]) * _MICROSECONDS,
        )
    )
    for row in rows:
        minute = row.minute_at_us // _MICROSECONDS
        fault = _seconds_fault(row, minute, minutes)
        if fault:
            found.append(Violation("M5", f"{series_id} minute {minute}", fault))
    return len(rows)


def _seconds_fault(row: "sa.Row[tuple[object, ...]]", minute: int, minutes: Columns) -> str | None:
    if len(row.columns) != row.bar_count * 6 * 8:
        return f"doesn't hold {row.bar_count} bars"
    bars = decode_bars(row.columns, row.bar_count)
    if any(_bar_faults(bars, minute - 1)) or int(bars.time[-1]) >= minute + 60:
        return "its seconds are unsound, or lie outside of it"
    index = minutes.index_at(minute)
    if index == len(minutes) or int(minutes.time[index]) != minute:
        return "there are seconds and no minute"
    sums = aggregate.merge(bars, bars.time // 60, bars.time // 60 * 60)
    if any(
        int(a[0]) != int(b[index]) for a, b in zip(sums.arrays(), minutes.arrays(), strict=True)
    ):
        return "its seconds don't add up to its bar"
    return None


def _bar_faults(bars: Columns, last: int) -> Iterator[str]:
    if int(bars.time[0]) <= last or bool((np.diff(bars.time) <= 0).any()):
        yield "its times don't ascend"
    top, bottom = np.maximum(bars.open, bars.close), np.minimum(bars.open, bars.close)
    wrong = (bars.high < top) | (bars.low > bottom) | (bars.low <= 0) | (bars.volume < 0)
    if bool(wrong.any()):
        at = int(bars.time[np.flatnonzero(wrong)[0]])
        yield f"the bar at {at} is unsound"


def _instrument_faults(
    row: "sa.Row[tuple[object, ...]]", series: "sa.Row[tuple[object, ...]] | None"
) -> Iterator[Violation]:
    symbol = f"{row.exchange}:{row.ticker}"

    def fault(message: str) -> Violation:
        return Violation("M3", symbol, message)

    if series is None:
        yield fault(f"its series {row.series_id} is not stored")
        return
    decimals = (row.price_decimals, row.volume_decimals)
    if row.exchange != Exchange.DEMO and decimals != (
        series.price_decimals,
        series.volume_decimals,
    ):
        yield fault("its decimals are not its series'")
    try:
        ZoneInfo(row.time_zone)
        parse_session(row.session, row.time_zone)
    except (KeyError, ValueError, OSError):
        yield fault("its session or time zone can't be read")
    if row.exchange == Exchange.DEMO and (row.session, row.time_zone) != ("24x7", "Etc/UTC"):
        yield fault("it is on DEMO and closes")
    if row.tradable and row.exchange != Exchange.DEMO:
        yield fault("it is tradable outside of DEMO")


async def _check_changes(
    transaction: Transaction, instruments: "Sequence[sa.Row[tuple[object, ...]]]"
) -> list[Violation]:
    outbox = tables.outbox_table
    told: dict[str, list[int]] = defaultdict(list)
    for row in await transaction.all(
        sa.select(outbox.c.key, outbox.c.key_sequence)
        .where(outbox.c.type == InstrumentChanged.TYPE)
        .order_by(outbox.c.id)
    ):
        told[row.key].append(row.key_sequence)
    versions = {f"{row.exchange}:{row.ticker}": row.version for row in instruments}
    found = []
    for symbol, numbers in told.items():
        # Older ones are gone after a week, so the first one kept may have any number.
        wanted = list(range(numbers[0], numbers[0] + len(numbers)))
        if numbers != wanted or versions.get(symbol) != numbers[-1]:
            message = f"told versions {numbers[:8]}, stored is {versions.get(symbol)}"
            found.append(Violation("M4", symbol, message))
    return found
