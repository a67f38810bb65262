"""Supervision of a module's background tasks: restarts with back-off, leases held and renewed."""

import asyncio
import random
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import UnavailableError
from trading_api.runtime.bus import metrics
from trading_api.runtime.database.leases import Lease, LeaseLostError, Leases
from trading_api.runtime.module import BackgroundTask

log = structlog.get_logger("tasks")

BACKOFF_SECONDS_MIN = 0.1
BACKOFF_SECONDS_MAX = 30.0
HEALTHY_SECONDS = 60.0
"""A task that ran this long starts over with the shortest back-off."""


async def run_together(*work: Coroutine[Any, Any, None]) -> None:
    """Run several things at once until the first of them ends; the others are cancelled then.

    Raises what that one raised.
    """
    tasks = [asyncio.create_task(each) for each in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(slots=True)
class _Held:
    """A lease in use.

    Attributes:
        deadline: on the monotonic clock; from then on another instance may hold it.
    """

    lease: Lease
    work: asyncio.Task[None]
    deadline: float
    is_lost: bool = False


class TaskRunner:
    """Runs tasks until it is stopped.

    A task that raises is started again after 0.1 to 30 s; one that returns is done. A task with a
    lease runs in one instance at a time: it is cancelled when its lease can't be kept, and the
    lease is given up when the task ends, so that another instance may try.

    Args:
        leases: the module's; None where no task has a lease.
    """

    def __init__(
        self, tasks: Sequence[BackgroundTask], *, leases: Leases | None, clock: Clock
    ) -> None:
        assert leases is not None or all(task.lease is None for task in tasks), (
            "a task has a lease, so the module needs leases"
        )
        self._tasks = tuple(tasks)
        self._leases = leases
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._running: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start every task; returns at once, harmless when repeated."""
        if self._running:
            return
        self._running = [
            asyncio.create_task(self._supervise(task), name=task.name) for task in self._tasks
        ]
        if self._leases is not None and any(task.lease for task in self._tasks):
            self._running.append(asyncio.create_task(self._renew(self._leases), name="leases"))

    async def stop(self) -> None:
        """Cancel every task, wait for their ends, give the leases up."""
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._running = []

    async def _supervise(self, task: BackgroundTask) -> None:
        backoff_seconds = BACKOFF_SECONDS_MIN
        while True:
            began = self._clock.monotonic()
            try:
                if task.lease is None:
                    await task.run(None)
                else:
                    await self._run_alone(task, task.lease)
            except LeaseLostError:
                log.warning("lease_lost", task=task.name, lease=task.lease)
            except UnavailableError as error:
                log.warning("task_interrupted", task=task.name, reason=error.message)
            except Exception:
                log.exception("task_failed", task=task.name)
            else:
                log.debug("task_done", task=task.name)
                return
            metrics.TASK_RESTARTS.labels(task.name).inc()
            if self._clock.monotonic() - began >= HEALTHY_SECONDS:
                backoff_seconds = BACKOFF_SECONDS_MIN
            # Jitter, so that tasks that fail together don't come back together.
            await asyncio.sleep(backoff_seconds * random.uniform(0.5, 1.0))  # noqa: S311
            backoff_seconds = min(backoff_seconds * 2, BACKOFF_SECONDS_MAX)

    async def _run_alone(self, task: BackgroundTask, name: str) -> None:
        assert self._leases is not None
        asked_at = self._clock.monotonic()
        while (lease := await self._leases.acquire(name)) is None:
            await asyncio.sleep(self._leases.duration.total_seconds() / 5)
            asked_at = self._clock.monotonic()
        log.debug("lease_acquired", task=task.name, lease=name, fencing=lease.fencing)
        metrics.LEASE_HELD.labels(task.name).set(1)
        work = asyncio.ensure_future(task.run(lease))
        held = _Held(lease, work, asked_at + self._leases.duration.total_seconds())
        self._held[name] = held
        try:
            await asyncio.wait({work})
            if held.is_lost:
                raise LeaseLostError(f"the lease {name} went to another instance")
            work.result()
        finally:
            work.cancel()
            await asyncio.wait({work})
            del self._held[name]
            metrics.LEASE_HELD.labels(task.name).set(0)
            if not held.is_lost:
                await self._release(lease)

    async def _release(self, lease: Lease) -> None:
        assert self._leases is not None
        try:
            await self._leases.release(lease)
        except UnavailableError as error:
            # It runs out by itself.
            log.warning("lease_not_released", lease=lease.name, reason=error.message)

    async def _renew(self, leases: Leases) -> None:
        interval_seconds = leases.duration.total_seconds() / 3
        while True:
            await asyncio.sleep(interval_seconds)
            all_held = list(self._held.values())
            if not all_held:
                continue
            asked_at = self._clock.monotonic()
            try:
                async with asyncio.timeout(interval_seconds):
                    kept = await leases.renew([held.lease for held in all_held])
            except (UnavailableError, TimeoutError) as error:
                log.warning("lease_not_renewed", reason=str(error))
                kept = [held.lease for held in all_held if self._clock.monotonic() < held.deadline]
            except Exception:
                log.exception("lease_renewal_failed")
                kept = [held.lease for held in all_held if self._clock.monotonic() < held.deadline]
            else:
                for held in all_held:
                    held.deadline = asked_at + leases.duration.total_seconds()
            for held in all_held:
                if held.lease not in kept:
                    held.is_lost = True
                    held.work.cancel()
