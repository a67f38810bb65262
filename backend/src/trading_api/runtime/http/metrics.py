"""What the edge counts of each request, at a price that a request doesn't notice.

``prometheus_client``'s own counters take a lock and several calls for each observation; the event
loop is one thread, so plain numbers do, and the exposition is made when somebody scrapes it.
"""

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper edges in seconds, inclusive."""


class RouteDurations:
    """How long one route of one method took.

    Attributes:
        counts: requests by bucket, the last one for everything longer.
        total_seconds: of all of them.
        statuses: requests by status.
    """

    __slots__ = ("counts", "statuses", "total_seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total_seconds = 0.0
        self.statuses: dict[int, int] = {}

    def observe(self, status: int, seconds: float) -> None:
        """Count one request."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total_seconds += seconds
        self.statuses[status] = self.statuses.get(status, 0) + 1


class RequestMetrics(Collector):
    """``http_requests_total`` and ``http_request_seconds``, by method, route template and status.

    Not safe for threads: the event loop alone observes.
    """

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str], RouteDurations] = {}

    def of(self, method: str, route: str) -> RouteDurations:
        """Return where requests of a route are counted; made at the first call."""
        found = self._routes.get((method, route))
        if found is None:
            found = self._routes[method, route] = RouteDurations()
        return found

    def collect(self) -> Iterator[Metric]:
        """Make the exposition's families."""
        requests = CounterMetricFamily(
            "http_requests",
            "Requests by route template and status",
            labels=["method", "route", "status"],
        )
        seconds = HistogramMetricFamily(
            "http_request_seconds",
            "Time to the end of the answer, by route template",
            labels=["method", "route"],
        )
        for (method, route), found in list(self._routes.items()):
            for status, count in list(found.statuses.items()):
                requests.add_metric([method, route, str(status)], count)
            if not found.statuses:
                continue
            below, buckets = 0, []
            for edge, count in zip((*BUCKETS, float("inf")), found.counts, strict=True):
                below += count
                buckets.append(("+Inf" if edge == float("inf") else str(edge), float(below)))
            seconds.add_metric([method, route], buckets, found.total_seconds)
        yield requests
        yield seconds


REQUESTS = RequestMetrics()
REGISTRY.register(REQUESTS)
