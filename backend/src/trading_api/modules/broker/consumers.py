"""What reaches the broker from outside: new users, quotes, the passing of time."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta

from trading_api.contracts.auth import UserRegistered
from trading_api.contracts.envelope import Envelope
from trading_api.kernel.clock import Clock
from trading_api.modules.broker.domain.instrument import Quote
from trading_api.modules.broker.ports import QuoteSource
from trading_api.modules.broker.schemas import ConnectionView, StateView, encode
from trading_api.modules.broker.service import AccountService, MatchingService, ReportService
from trading_api.modules.broker.service.financing import FinancingService
from trading_api.modules.broker.service.margin_calls import MarginService
from trading_api.modules.broker.service.performance import PerformanceService
from trading_api.modules.broker.service.retention import RetentionService
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

EQUITY_SECONDS = 0.5
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


class MarginLoop:
    """Watches the margin of every account, in one instance."""

    def __init__(self, margin: MarginService, *, clock: Clock) -> None:
        self._margin = margin
        self._clock = clock

    async def run(self, lease: Lease | None) -> None:
        """Watch until cancelled."""
        assert lease is not None, "margin is watched under its lease"
        while True:
            await self._margin.watch(lease=lease, now=self._clock.now())
            await asyncio.sleep(MARGIN_SECONDS)


class FinancingLoop:
    """Charges financing after each 00:00 UTC, in one instance."""

    def __init__(self, financing: FinancingService, *, clock: Clock) -> None:
        self._financing = financing
        self._clock = clock

    async def run(self, lease: Lease | None) -> None:
        """Charge until cancelled."""
        assert lease is not None, "financing is charged under its lease"
        while True:
            await self._financing.charge(lease=lease, now=self._clock.now())
            await asyncio.sleep(FINANCING_SECONDS)


class SampleLoop:
    """Samples the equity of every account that moves, in one instance."""

    def __init__(self, performance: PerformanceService, *, clock: Clock) -> None:
        self._performance = performance
        self._clock = clock

    async def run(self, lease: Lease | None) -> None:
        """Sample until cancelled."""
        assert lease is not None, "equity is sampled under its lease"
        while True:
            await self._performance.sample(lease=lease, now=self._clock.now())
            await asyncio.sleep(SAMPLE_SECONDS)


class RetentionLoop:
    """Deletes events and samples that are kept no longer, once an hour, in one instance."""

    def __init__(
        self, retention: RetentionService, performance: PerformanceService, *, clock: Clock
    ) -> None:
        self._retention = retention
        self._performance = performance
        self._clock = clock

    async def run(self, lease: Lease | None) -> None:
        """Delete until cancelled."""
        assert lease is not None, "retention runs under its lease"
        while True:
            await self._retention.delete_old_events(lease=lease, now=self._clock.now())
            await self._performance.thin_out(lease=lease, now=self._clock.now())
            await asyncio.sleep(RETENTION_SECONDS)


class ConnectionFeed:
    """Shows whether the venue can trade, per account that somebody listens to in this process.

    Args:
        listened: returns the feeds that somebody listens to.
        publish: sends a feed's payload to them.
    """

    def __init__(
        self,
        reports: ReportService,
        *,
        prefix: str,
        listened: Callable[[], Collection[str]],
        publish: Callable[[str, bytes], None],
    ) -> None:
        self._reports = reports
        self._prefix = prefix
        self._listened = listened
        self._publish = publish
        self._shown: dict[str, bytes] = {}

    async def run(self, _lease: Lease | None) -> None:
        """Publish every change until cancelled."""
        while True:
            await self.publish_changes()
            await asyncio.sleep(EQUITY_SECONDS)

    async def publish_changes(self) -> None:
        """Publish the status of each account that somebody listens to, where it has changed."""
        feeds = [feed for feed in self._listened() if feed.startswith(self._prefix)]
        for gone in self._shown.keys() - set(feeds):
            del self._shown[gone]
        for feed in feeds:
            connection = await self._reports.get_connection(
                account_id=feed.removeprefix(self._prefix)
            )
            payload = encode(ConnectionView.of(connection))
            if self._shown.get(feed) != payload:
                self._shown[feed] = payload
                self._publish(feed, payload)


class EquityFeed:
    """Shows the worth of those accounts that somebody listens to in this process.

    Args:
        listened: returns the feeds that somebody listens to.
        publish: sends a feed's payload to them.
    """

    def __init__(
        self,
        reports: ReportService,
        quotes: QuoteSource,
        *,
        prefix: str,
        listened: Callable[[], Collection[str]],
        publish: Callable[[str, bytes], None],
    ) -> None:
        self._reports = reports
        self._quotes = quotes
        self._prefix = prefix
        self._listened = listened
        self._publish = publish
        self._shown: dict[str, bytes] = {}

    async def run(self, _lease: Lease | None) -> None:
        """Publish every change until cancelled."""
        while True:
            await self.publish_changes()
            await asyncio.sleep(EQUITY_SECONDS)

    async def publish_changes(self) -> None:
        """Publish the worth of each account that somebody listens to, where it has changed."""
        feeds = [feed for feed in self._listened() if feed.startswith(self._prefix)]
        for gone in self._shown.keys() - set(feeds):
            del self._shown[gone]
        for feed in feeds:
            report = await self._reports.compute_state(account_id=feed.removeprefix(self._prefix))
            await self._quotes.refresh([each.symbol for each in report.positions])
            payload = encode(StateView.of(report))
            if self._shown.get(feed) != payload:
                self._shown[feed] = payload
                self._publish(feed, payload)
