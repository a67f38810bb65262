"""What reaches the broker from outside: new users, quotes, the passing of time."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from trading_api.contracts.auth import UserRegistered
from trading_api.contracts.envelope import Envelope
from trading_api.kernel.clock import Clock
from trading_api.modules.broker.domain.instrument import Quote
from trading_api.modules.broker.ports import QuoteSource
from trading_api.modules.broker.schemas import ConnectionView, StateView, encode
from trading_api.modules.broker.service import AccountService, MatchingService, ReportService
from trading_api.runtime.database import Lease
from trading_api.runtime.module import Consumer

POLL_SECONDS = 0.05
"""Without quotes from the bus the market is looked at this often."""

QUOTE_AGE = timedelta(seconds=0.5)
"""The market's heartbeat: a younger quote can't be out of date yet."""

SILENCE_SECONDS = 0.75
"""Some instrument's quote comes every half second; a longer silence means that none will come."""

EXPIRY_SECONDS = 0.5
"""An order ends at most this long after its time; GTD promises one second."""

FEED_SECONDS = 0.5
"""As often as the market moves."""

RETENTION_SECONDS = 3600.0

MARGIN_SECONDS = 0.25
"""Twice as often as the market moves."""

SAMPLE_SECONDS = 60.0
"""How fine an equity curve is."""

FINANCING_SECONDS = 10.0
"""Midnight is charged at most this much later; by then's quantities all the same."""

PENDING_MAX = 10_000
"""Quotes that wait to be matched; beyond it the oldest go, as if they had been missed."""


def build_consumers(accounts: AccountService, *, clock: Clock) -> Sequence[Consumer]:
    """Declare the handlers of other modules' facts."""

    async def open_account(envelope: Envelope, event: UserRegistered) -> None:
        await accounts.on_user_registered(
            user_id=event.user_id, event_id=envelope.id, now=clock.now()
        )

    return [Consumer(producer="auth", event=UserRegistered, handle=open_account)]


class MatchingLoop:
    """Hands every quote to matching, in order, while this process holds the lease.

    Woken by quotes from the bus; when those stay away it asks the market itself.
    """

    def __init__(self, matching: MatchingService, quotes: QuoteSource, *, clock: Clock) -> None:
        self._matching = matching
        self._quotes = quotes
        self._clock = clock
        self._pending: deque[Quote] = deque(maxlen=PENDING_MAX)
        self._is_woken = asyncio.Event()
        self._is_running = False
        self._quoted_at = clock.monotonic()
        quotes.listen(self._on_quote)

    async def run(self, lease: Lease | None) -> None:
        """Match until cancelled; what came before is not made up for."""
        assert lease is not None, "matching runs under its lease"
        self._pending.clear()
        self._is_running = True
        expired_at = self._clock.monotonic()
        try:
            while True:
                await self._wait()
                while self._pending:
                    quote = self._pending.popleft()
                    await self._matching.on_quote(quote=quote, lease=lease, now=self._clock.now())
                if self._clock.monotonic() - expired_at >= EXPIRY_SECONDS:
                    expired_at = self._clock.monotonic()
                    await self._matching.expire(lease=lease, now=self._clock.now())
        finally:
            self._is_running = False

    async def _wait(self) -> None:
        try:
            await asyncio.wait_for(self._is_woken.wait(), POLL_SECONDS)
        except TimeoutError:
            is_silent = self._clock.monotonic() - self._quoted_at >= SILENCE_SECONDS
            if self._quotes.is_pushed and not is_silent:
                return
            waiting = await self._matching.list_waiting_symbols()
            # What this brings wakes the loop by way of the listener.
            await self._quotes.refresh(waiting, older_than=QUOTE_AGE)
        self._is_woken.clear()

    def _on_quote(self, quote: Quote) -> None:
        if self._is_running:
            self._quoted_at = self._clock.monotonic()
            self._pending.append(quote)
            self._is_woken.set()


class LeasedLoop:
    """Does something again and again, in the one instance that holds the lease.

    Args:
        work: what a turn does, in this order; each checks the lease in its own transactions.
        seconds: between two turns.
    """

    def __init__(self, *work: "LeasedWork", clock: Clock, seconds: float) -> None:
        self._work = work
        self._clock = clock
        self._seconds = seconds

    async def run(self, lease: Lease | None) -> None:
        """Take turns until cancelled."""
        assert lease is not None, "this runs under its lease"
        while True:
            for work in self._work:
                await work(lease=lease, now=self._clock.now())
            await asyncio.sleep(self._seconds)


class LeasedWork(Protocol):
    """A use case of background work."""

    async def __call__(self, *, lease: Lease, now: datetime) -> int:
        """Do what is due; return how much it was."""


class AccountFeed:
    """Shows something of those accounts that somebody listens to in this process.

    Args:
        read: returns what to show of an account, finished.
        prefix: of its feeds' names; the account's id follows.
        listened: returns the feeds that somebody listens to.
        publish: sends a feed's payload to them.
    """

    def __init__(
        self,
        read: Callable[[str], Awaitable[bytes]],
        *,
        prefix: str,
        listened: Callable[[], Collection[str]],
        publish: Callable[[str, bytes], None],
    ) -> None:
        self._read = read
        self._prefix = prefix
        self._listened = listened
        self._publish = publish
        self._shown: dict[str, bytes] = {}

    async def run(self, _lease: Lease | None) -> None:
        """Publish every change until cancelled."""
        while True:
            await self.publish_changes()
            await asyncio.sleep(FEED_SECONDS)

    async def publish_changes(self) -> None:
        """Publish each account that somebody listens to, where what it shows has changed."""
        feeds = [feed for feed in self._listened() if feed.startswith(self._prefix)]
        for gone in self._shown.keys() - set(feeds):
            del self._shown[gone]
        for feed in feeds:
            payload = await self._read(feed.removeprefix(self._prefix))
            if self._shown.get(feed) != payload:
                self._shown[feed] = payload
                self._publish(feed, payload)


def read_equity(reports: ReportService, quotes: QuoteSource) -> Callable[[str], Awaitable[bytes]]:
    """Return what reads the worth of an account, and has the quotes of its positions renewed."""

    async def read(account_id: str) -> bytes:
        report = await reports.compute_state(account_id=account_id)
        await quotes.refresh([each.symbol for each in report.positions])
        return encode(StateView.of(report))

    return read


def read_connection(reports: ReportService) -> Callable[[str], Awaitable[bytes]]:
    """Return what reads whether the venue can trade for an account."""

    async def read(account_id: str) -> bytes:
        return encode(ConnectionView.of(await reports.get_connection(account_id=account_id)))

    return read
