"""Facts from one module's commit to another module's effect, over a real bus."""

from trading_api.runtime.bus import Bus
from trading_api.runtime.bus.facts import stream_of
from trading_api.testkit.facts import (
    CONSUMER,
    PRODUCER,
    Publisher,
    Subscriber,
    consuming,
    ensure_once_in_order,
    relaying,
    until_cursor,
    until_effects,
)


async def is_acknowledged(bus: Bus) -> bool:
    return bool((await bus.call("XPENDING", stream_of(PRODUCER), CONSUMER))[0] == 0)


async def test_facts_when_all_is_well_then_each_has_its_effect_once_and_in_order(
    publisher: Publisher, subscriber: Subscriber, bus: Bus
) -> None:
    await publisher.add(range(50))
    async with relaying(publisher), consuming(subscriber):
        await publisher.add(range(50, 150))
        effects = await until_effects(subscriber, 150)
        await until_cursor(subscriber, 150)
        ensure_once_in_order(effects, range(150))
        assert await bus.call("XLEN", stream_of(PRODUCER)) == 150
        await eventually(lambda: is_acknowledged(bus))
    assert sorted(subscriber.deliveries) == list(range(150))
