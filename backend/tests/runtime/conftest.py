"""Two modules with real databases: one publishes facts, the other lets them have effects."""

from collections.abc import AsyncIterator

import pytest

from trading_api.runtime.bus import Bus
from trading_api.runtime.database import Database
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.facts import (
    CONSUMER,
    CONSUMER_METADATA,
    PRODUCER,
    PRODUCER_METADATA,
    Host,
    Publisher,
    Subscriber,
    a_host,
)


@pytest.fixture
async def producer_database(database_url: str) -> AsyncIterator[Database]:
    url = database_url.replace("module.db", "producer.db")
    made = Database(url, schema=PRODUCER)
    await made.create_all(PRODUCER_METADATA)
    yield made
    await made.close()


@pytest.fixture
async def consumer_database(database_url: str) -> AsyncIterator[Database]:
    url = database_url.replace("module.db", "consumer.db")
    made = Database(url, schema=CONSUMER)
    await made.create_all(CONSUMER_METADATA)
    yield made
    await made.close()


@pytest.fixture
async def host(producer_database: Database, settings: PlatformSettings) -> AsyncIterator[Host]:
    made = a_host(settings, producer_database)
    yield made
    await made.peers.close()


@pytest.fixture
def publisher(producer_database: Database, bus: Bus) -> Publisher:
    return Publisher(producer_database, bus)


@pytest.fixture
def subscriber(consumer_database: Database, bus: Bus, host: Host) -> Subscriber:
    return Subscriber(consumer_database, bus, host.peers)
