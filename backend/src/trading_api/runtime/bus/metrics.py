"""What the bus and the facts on it count, for Prometheus."""

from prometheus_client import Counter, Gauge

BUS_UP = Gauge("trading_bus_up", "1 while this process reaches the bus")
BUS_PUBLISHED = Counter("trading_bus_published", "messages handed to the bus's pub/sub")
BUS_DROPPED = Counter("trading_bus_dropped", "messages dropped because the bus was away or slow")
BUS_RECEIVED = Counter("trading_bus_received", "messages of subscriptions")
BUS_EPOCHS = Counter("trading_bus_epochs", "times that messages may have been lost")

OUTBOX_BACKLOG = Gauge(
    "trading_outbox_backlog", "facts committed but not on the bus's stream", ["module"]
)
FACTS_PUBLISHED = Counter("trading_facts_published", "facts put on the stream", ["module"])
FACTS_REPUBLISHED = Counter(
    "trading_facts_republished", "times a stream was found to have lost facts", ["module"]
)
FACTS_CONSUMED = Counter(
    "trading_facts_consumed", "facts whose handler succeeded", ["module", "producer"]
)
FACTS_FAILED = Counter(
    "trading_facts_failed", "deliveries whose handler raised", ["module", "producer"]
)
FACTS_DEAD = Counter(
    "trading_facts_dead", "facts given up after the last delivery", ["module", "producer"]
)
FACTS_LAG = Gauge(
    "trading_facts_lag", "facts seen but not yet handled for good", ["module", "producer"]
)

TASK_RESTARTS = Counter("trading_task_restarts", "background tasks that failed", ["task"])
LEASE_HELD = Gauge("trading_lease_held", "1 while this process does the work", ["task"])
