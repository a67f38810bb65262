"""Names and wire form of facts on the bus.

A producer's stream holds one entry per fact whose id is ``<sequence>-0``, so that a stream can't
hold a fact twice or out of order, and its last entry tells what was published.
"""

from typing import Any

from trading_api.contracts.envelope import Envelope
from trading_api.runtime.bus.bus import Bus, BusCommandError, Word

STREAM_LENGTH = 100_000
"""Facts kept in a stream, about; who is further behind asks the producer."""

FIELD = b"envelope"


def stream_of(producer: str) -> str:
    """Return the key of a producer's stream; the braces keep its keys on one cluster node."""
    return f"trading:{{{producer}}}:facts"


def dead_stream_of(module: str) -> str:
    """Return the key of the stream of facts that a consumer gave up."""
    return f"trading:{{{module}}}:dead-letters"


def wake_channel_of(producer: str) -> str:
    """Return the channel on which any instance tells the relay that there are new facts."""
    return f"trading:{{{producer}}}:wake"


def add_command(envelope: Envelope) -> tuple[Word, ...]:
    """Return the command that puts a fact on its producer's stream."""
    key, length = stream_of(envelope.producer), STREAM_LENGTH
    payload = envelope.model_dump_json().encode()
    return ("XADD", key, "MAXLEN", "~", length, f"{envelope.sequence}-0", FIELD, payload)


def sequence_of(entry_id: bytes) -> int:
    """Return the sequence that a stream entry's id carries."""
    return int(entry_id.partition(b"-")[0])


def decode_entry(entry: list[Any]) -> Envelope | None:
    """Read one entry; None where it is no envelope, or was trimmed away meanwhile."""
    fields = entry[1]
    if not fields or fields[0] != FIELD:
        return None
    try:
        return Envelope.model_validate_json(fields[1])
    except ValueError:
        return None


async def get_stream_end(bus: Bus, producer: str) -> int:
    """Return the last sequence that a producer's stream ever got; 0 where there is no stream.

    Raises:
        BusUnavailableError: the bus is away.
    """
    try:
        reply = await bus.call("XINFO", "STREAM", stream_of(producer))
    except BusCommandError as error:
        if "no such key" in str(error):
            return 0
        raise
    described = dict(zip(reply[::2], reply[1::2], strict=True))
    return sequence_of(described[b"last-generated-id"])
