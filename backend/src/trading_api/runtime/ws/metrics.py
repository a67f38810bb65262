"""What the sockets of a process did, for Prometheus.

The hot path counts in plain integers; they become metrics only when somebody scrapes.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from weakref import WeakMethod

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

FANOUT_BUCKETS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

_OUTCOMES = {
    "sent": "handed to the network",
    "conflated": "replaced by a newer price before a slow reader took them",
    "dropped": "discarded with a closed or unsubscribed reader",
    "skipped": "published while nobody listened",
    "errors": "not made because reading or encoding failed",
}


class Counters:
    """Plain counts of one module's sockets in this process.

    Attributes:
        sent: frames handed to the network, one per reader.
        conflated: price frames that a newer one replaced in a slow reader's slot.
        dropped: frames discarded when their reader unsubscribed or closed.
        skipped: updates published while nobody in this process listened.
        errors: failures to read, encode or handle.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.conflated = 0
        self.dropped = 0
        self.skipped = 0
        self.errors = 0
        self.closed: dict[int, int] = {}
        self.refused = 0
        self.subscriptions = 0
        self._sources: list[WeakMethod[Callable[[], Iterable[int]]]] = []
        self._latency_counts = [0] * (len(FANOUT_BUCKETS_SECONDS) + 1)
        self._latency_sum = 0.0

    def add_source(self, source: Callable[[], Iterable[int]]) -> None:
        """Ask this method, while its object lives, for the queued bytes of every open socket."""
        self._sources.append(WeakMethod(source))

    def queued_bytes(self) -> list[int]:
        """Return the bytes that wait for each open socket."""
        found = [reference() for reference in self._sources]
        return [size for source in found if source is not None for size in source()]

    def observe_fanout(self, seconds: float) -> None:
        """Record the time from a publish to the last write of its tick."""
        self._latency_counts[bisect_left(FANOUT_BUCKETS_SECONDS, seconds)] += 1
        self._latency_sum += seconds

    def latency(self) -> tuple[list[tuple[str, float]], float]:
        """Return cumulative buckets and the sum, as a histogram wants them."""
        total, buckets = 0, []
        for bound, count in zip(
            (*map(str, FANOUT_BUCKETS_SECONDS), "+Inf"), self._latency_counts, strict=True
        ):
            total += count
            buckets.append((bound, float(total)))
        return buckets, self._latency_sum

    def count_close(self, code: int) -> None:
        """Record the end of a socket."""
        self.closed[code] = self.closed.get(code, 0) + 1


class WebSocketMetrics(Collector):
    """Collects the counters of every module in this process."""

    def __init__(self) -> None:
        self._counters: dict[str, Counters] = {}

    def counters(self, module: str) -> Counters:
        """Return a module's counters, the same at each call."""
        return self._counters.setdefault(module, Counters())

    def collect(self) -> Sequence[Metric]:
        """Return the metrics of this moment."""
        frames = CounterMetricFamily(
            "trading_ws_frames",
            "Frames by outcome: " + "; ".join(f"{k}: {v}" for k, v in _OUTCOMES.items()),
            labels=["module", "outcome"],
        )
        connections = GaugeMetricFamily("trading_ws_connections", "Open sockets", labels=["module"])
        queued = GaugeMetricFamily(
            "trading_ws_queued_bytes", "Bytes waiting for slow readers", labels=["module"]
        )
        slow = GaugeMetricFamily(
            "trading_ws_slow_connections", "Sockets with bytes waiting", labels=["module"]
        )
        subscriptions = GaugeMetricFamily(
            "trading_ws_subscriptions", "Subscriptions of open sockets", labels=["module"]
        )
        closed = CounterMetricFamily(
            "trading_ws_closed", "Ended sockets by close code", labels=["module", "code"]
        )
        refused = CounterMetricFamily(
            "trading_ws_refused", "Handshakes answered without a socket", labels=["module"]
        )
        latency = HistogramMetricFamily(
            "trading_ws_fanout_seconds",
            "From a publish to the last write of its tick",
            labels=["module"],
        )
        for module, counters in self._counters.items():
            for outcome in _OUTCOMES:
                frames.add_metric([module, outcome], getattr(counters, outcome))
            waiting = counters.queued_bytes()
            connections.add_metric([module], len(waiting))
            queued.add_metric([module], sum(waiting))
            slow.add_metric([module], sum(1 for size in waiting if size))
            subscriptions.add_metric([module], counters.subscriptions)
            refused.add_metric([module], counters.refused)
            for code, count in counters.closed.items():
                closed.add_metric([module, str(code)], count)
            buckets, total = counters.latency()
            latency.add_metric([module], buckets=buckets, sum_value=total)
        return [frames, connections, queued, slow, subscriptions, closed, refused, latency]


METRICS = WebSocketMetrics()
"""Of this process, in Prometheus' default registry."""

REGISTRY.register(METRICS)
