"""What a chart is decorated with: the user's own executions, splits and dividends."""

from collections.abc import Sequence
from datetime import datetime

from trading_api.kernel.clock import from_us
from trading_api.modules.datafeed.domain.mark import (
    EventMark,
    ExecutionMark,
    place_dividends,
    place_executions,
    place_splits,
)
from trading_api.modules.datafeed.domain.resolution import parse_resolution
from trading_api.modules.datafeed.ports import ExecutionSource
from trading_api.modules.datafeed.service.market import TIME_MAX, DatafeedService

EXECUTIONS_MAX = 1_000
"""Newest executions of a window that are marked."""


class MarkService:
    """Finds marks and puts each on the start of a bar."""

    def __init__(self, *, market: DatafeedService, executions: ExecutionSource) -> None:
        self._market = market
        self._executions = executions

    async def list_execution_marks(
        self,
        *,
        user_id: str | None,
        symbol: str,
        resolution: str,
        from_time: int,
        to_time: int,
        now: datetime,
    ) -> list[ExecutionMark]:
        """Return the user's executions in [from_time, to_time], at most ten a bar.

        Args:
            user_id: None: whoever asks has no executions to see, and gets none.
            from_time: seconds.
            to_time: seconds, inclusive: a chart asks up to the start of its newest bar.

        Raises:
            InstrumentNotFoundError, ResolutionUnsupportedError, WindowInvalidError: as ``bars``.
            UnavailableError: whoever knows executions doesn't answer.
        """
        times = await self._bar_times(symbol, resolution, from_time, to_time, now)
        if not times or user_id is None:
            return []
        # The newest bar lasts until the next one begins, which nobody has seen yet.
        last = now if to_time >= times[-1] else from_us(to_time * 1_000_000)
        executions = await self._executions.list_executions(
            user_id=user_id,
            symbol=self._market.symbol_of(symbol=symbol),
            from_=from_us(times[0] * 1_000_000),
            to=max(last, from_us(times[-1] * 1_000_000)),
            limit=EXECUTIONS_MAX,
        )
        return place_executions(executions, times)

    async def list_event_marks(
        self, *, symbol: str, resolution: str, from_time: int, to_time: int, now: datetime
    ) -> list[EventMark]:
        """Return the splits and dividends in [from_time, to_time], seconds, in order of their bars.

        Errors as above, the broker's apart.
        """
        splits = [
            split
            for split in await self._market.splits_of(symbol=symbol)
            if from_time <= split.time <= to_time
        ]
        dividends = [
            dividend
            for dividend in await self._market.dividends_of(symbol=symbol)
            if from_time <= dividend.time <= to_time
        ]
        if not splits and not dividends:
            await self._bar_times(symbol, resolution, max(from_time, to_time), to_time, now)
            return []
        times = await self._bar_times(symbol, resolution, from_time, to_time, now)
        intraday = parse_resolution(resolution).is_intraday
        currency = (await self._market.resolve(symbol=symbol)).instrument.quote_currency
        marks: list[EventMark] = [
            *place_splits(splits, times, intraday=intraday),
            *place_dividends(dividends, currency, times, intraday=intraday),
        ]
        return sorted(marks, key=lambda mark: mark.bar_time)

    async def _bar_times(
        self, symbol: str, resolution: str, from_time: int, to_time: int, now: datetime
    ) -> Sequence[int]:
        answer = await self._market.bars(
            symbol=symbol,
            resolution=resolution,
            from_time=from_time,
            to_time=min(to_time + 1, TIME_MAX),
            count_back=None,
            now=now,
        )
        times: list[int] = answer.selection.bars.time.tolist()
        return times
