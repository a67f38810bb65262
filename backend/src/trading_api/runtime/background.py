"""What the runtime does in the background for every module: relay, read, prove."""

from trading_api.runtime.bus.consumers import Consumers
from trading_api.runtime.bus.relay import Relay
from trading_api.runtime.module import BackgroundTask, Manifest, ModuleContext, ModuleParts
from trading_api.runtime.proofs import Prover


def background_of(
    context: ModuleContext, manifest: Manifest, parts: ModuleParts
) -> list[BackgroundTask]:
    """Return the relay and the consumers of a module, each under a lease; none where not needed."""
    tasks: list[BackgroundTask] = []
    if parts.outbox is not None:
        assert parts.leases is not None, f"{manifest.name} publishes facts, so it needs leases"
        relay = Relay(
            outbox=parts.outbox,
            database=context.require_database(),
            leases=parts.leases,
            bus=context.bus,
            clock=context.clock,
        )
        tasks.append(BackgroundTask(f"{manifest.name}-relay", relay.run, lease="relay"))
    if parts.consumers:
        assert parts.leases is not None, f"{manifest.name} consumes facts, so it needs leases"
        assert parts.inbox is not None, f"{manifest.name} consumes facts, so it needs an inbox"
        consumers = Consumers(
            module=manifest.name,
            instance=context.instance,
            consumers=parts.consumers,
            inbox=parts.inbox,
            database=context.require_database(),
            bus=context.bus,
            peers=context.peers,
            clock=context.clock,
        )
        tasks.append(BackgroundTask(f"{manifest.name}-consumers", consumers.run, lease="consumers"))
    if parts.proofs:
        assert parts.leases is not None, f"{manifest.name} is proven in one place, under a lease"
        prover = Prover(parts.proofs, module=manifest.name, clock=context.clock)
        tasks.append(BackgroundTask(f"{manifest.name}-proofs", prover.run, lease="proofs"))
    return tasks
