"""Export of bars: a stretch of any length, piece by piece."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.domain.instrument import Instrument
from trading_api.modules.datafeed.domain.resolution import Resolution, Unit, parse_resolution
from trading_api.modules.datafeed.domain.selection import BARS_MAX
from trading_api.modules.datafeed.service.market import DatafeedService

_SECONDS = {
    Unit.SECOND: 1,
    Unit.MINUTE: 60,
    Unit.DAY: 86_400,
    Unit.WEEK: 7 * 86_400,
    Unit.MONTH: 28 * 86_400,
}


class ExportService:
    """Reads long stretches of bars in bounded memory."""

    def __init__(self, *, market: DatafeedService) -> None:
        self._market = market

    async def begin(
        self, *, symbol: str, resolution: str, from_time: int, to_time: int, now: datetime
    ) -> tuple[Instrument, AsyncIterator[Columns]]:
        """Return whose bars they are, and the finished ones in ascending order, in pieces.

        Args:
            from_time: first bar's earliest start, seconds.
            to_time: exclusive end of the bars' starts, seconds.
            now: the bar that forms then, and later ones, aren't exported.

        Raises:
            What ``DatafeedService.bars`` raises, before the first piece.
        """
        first = await self._market.bars(
            symbol=symbol,
            resolution=resolution,
            from_time=from_time,
            to_time=to_time,
            count_back=1,
            now=now,
        )
        instrument = first.market.instrument
        start = await self._first_time(symbol, resolution, from_time, now)
        # Nothing comes after the newest bar there is.
        newest = int(first.selection.bars.time[-1]) if len(first.selection) else start
        end = min(to_time, newest + 1)
        pieces = self._pieces(instrument.symbol, parse_resolution(resolution), start, end, now)
        return instrument, pieces

    async def _first_time(self, symbol: str, resolution: str, from_time: int, now: datetime) -> int:
        """Return where the bars begin that ``from_time`` asks for; skips empty centuries."""
        low, high = from_time, max(from_time, int(now.timestamp()) + 1)
        # The first instant that has a bar before it, by halves.
        while low < high:
            middle = (low + high) // 2
            answer = await self._market.bars(
                symbol=symbol,
                resolution=resolution,
                from_time=from_time,
                to_time=middle + 1,
                count_back=1,
                now=now,
            )
            if len(answer.selection) and int(answer.selection.bars.time[-1]) >= from_time:
                high = middle
            else:
                low = middle + 1
        return low

    async def _pieces(
        self, symbol: str, resolution: Resolution, start: int, end: int, now: datetime
    ) -> AsyncIterator[Columns]:
        step = BARS_MAX * resolution.count * _SECONDS[resolution.unit]
        while start < end:
            stop = min(start + step, end)
            answer = await self._market.bars(
                symbol=symbol,
                resolution=str(resolution),
                from_time=start,
                to_time=stop,
                count_back=None,
                now=now,
            )
            for part in answer.selection.parts:
                if part.key is not None:
                    yield part.bars
            start = stop
            await asyncio.sleep(0)
