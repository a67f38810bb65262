"""How background work goes through accounts: one account's failure stops no other."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from prometheus_client import Counter

from trading_api.kernel.errors import DatabaseBusyError, UnavailableError
from trading_api.runtime.database.leases import LeaseLostError

log = structlog.get_logger("broker")

FAILURES = Counter(
    "broker_account_failures", "Accounts that background work could not be done for", ["work"]
)


async def each_apart(
    account_ids: Sequence[str],
    act: Callable[[str], Awaitable[int]],
    *,
    work: str,
    at_once: int = 1,
) -> int:
    """Do something to each account, in this order, and return how much was done.

    Who fails is logged, counted and left for the next turn; the others go on. What fails in a
    group has been tried alone by then.

    Args:
        act: one account's part, a transaction of its own.
        work: its name in the log and the metric.
        at_once: accounts that share commits.

    Raises:
        LeaseLostError, UnavailableError: what fails for all, so nothing more is tried.
    """
    done = 0
    for start in range(0, len(account_ids), at_once):
        turn = account_ids[start : start + at_once]
        outcomes = await asyncio.gather(*map(act, turn), return_exceptions=True)
        for account_id, outcome in zip(turn, outcomes, strict=True):
            if not isinstance(outcome, BaseException):
                done += outcome
                continue
            if _is_everybodys(outcome):
                raise outcome
            FAILURES.labels(work).inc()
            log.error("account_failed", work=work, account_id=account_id, exc_info=outcome)
    return done


def _is_everybodys(error: BaseException) -> bool:
    if isinstance(error, DatabaseBusyError):
        # Somebody held that account's lock for too long.
        return False
    return isinstance(error, LeaseLostError | UnavailableError) or not isinstance(error, Exception)
