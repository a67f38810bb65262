"""What keeps this process's market in step with what other processes store."""

import asyncio
from collections.abc import Sequence

import structlog

from trading_api.kernel.errors import TradingError
from trading_api.modules.datafeed.service import DatafeedService, ProviderService
from trading_api.runtime.database import Lease
from trading_api.runtime.module import BackgroundTask

log = structlog.get_logger("datafeed")

INTERVAL_SECONDS = 2.0


class CatalogueWatch:
    """Loads instruments and series again when an operator changed them elsewhere."""

    def __init__(self, service: DatafeedService) -> None:
        self._service = service

    async def run(self, _: Lease | None) -> None:
        """Look every two seconds until cancelled; the database being away is no reason to stop."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                if await self._service.refresh():
                    log.info("catalogue_loaded")
            except TradingError as error:
                log.warning("catalogue_not_readable", code=error.code)


class TextWriter:
    """Writes the finished texts of large series, so that their windows needn't be encoded."""

    def __init__(self, service: DatafeedService) -> None:
        self._service = service

    async def run(self, _: Lease | None) -> None:
        """Look for such series until cancelled; a full disk costs speed, nothing else."""
        while True:
            try:
                if made := await self._service.write_texts():
                    log.info("texts_written", series=made)
            except OSError:
                log.warning("texts_not_written", exc_info=True)
            await asyncio.sleep(INTERVAL_SECONDS)


def provider_tasks(providers: ProviderService, names: Sequence[str]) -> list[BackgroundTask]:
    """Return a task for each provider, run by one process, and one that follows the others'."""
    if not names:
        return []

    def task(name: str) -> BackgroundTask:
        async def run(lease: Lease | None) -> None:
            await providers.run(name=name, lease=lease)

        return BackgroundTask(f"provider-{name}", run, lease=f"provider-{name}")

    async def follow(_: Lease | None) -> None:
        await providers.follow()

    return [*(task(name) for name in names), BackgroundTask("providers", follow)]
