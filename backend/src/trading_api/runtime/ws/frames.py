"""Frames: an envelope encoded once, whatever the number of its readers."""

import struct
from decimal import Decimal
from typing import Any

import orjson
from pydantic import BaseModel

Key = tuple[str, str]
"""Topic and feed: the slot of a slow reader in which the newest frame replaces the one before."""


class Frame:
    """One text message, with its two encodings made on first use.

    Attributes:
        body: the envelope as JSON.
    """

    __slots__ = ("_raw", "_text", "body")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self._raw: bytes | None = None
        self._text: str | None = None

    @property
    def raw(self) -> bytes:
        """Return the unmasked WebSocket text frame, header included (RFC 6455 section 5.2)."""
        if self._raw is None:
            self._raw = _header(len(self.body)) + self.body
        return self._raw

    @property
    def text(self) -> str:
        """Return the message for an ASGI ``websocket.send``."""
        if self._text is None:
            self._text = self.body.decode()
        return self._text


class Batch:
    """What one topic has for its readers in one tick, oldest first.

    Attributes:
        items: every frame with its slot; a slot may occur more than once.
    """

    __slots__ = ("_raw", "items")

    def __init__(self, items: list[tuple[Key, Frame]]) -> None:
        self.items = items
        self._raw: bytes | None = None

    @property
    def raw(self) -> bytes:
        """Return all frames as one piece, for one write."""
        if self._raw is None:
            items = self.items
            self._raw = (
                items[0][1].raw if len(items) == 1 else b"".join([each.raw for _, each in items])
            )
        return self._raw


class TopicEncoder:
    """Encodes the updates of one topic around payloads that are JSON already."""

    __slots__ = ("_head", "_offset_head", "_snapshot_head")

    def __init__(self, route: str, topic: str) -> None:
        start = (
            b'{"type":'
            + orjson.dumps(f"{route}.update")
            + b',"payload":{"topic":'
            + orjson.dumps(topic)
        )
        self._head = start + b',"payload":'
        # A topic may hold a percent sign; it must survive the formatting below.
        self._offset_head = start.replace(b"%", b"%%") + b',"offset":%d,"previous_offset":%d'
        self._snapshot_head = start + b',"snapshot":true'

    def update(self, payload: bytes) -> Frame:
        """Encode a price update."""
        return Frame(self._head + payload + b"}}")

    def event(self, payload: bytes, *, offset: int, previous_offset: int) -> Frame:
        """Encode an event with its place in the stream and the topic's place before it."""
        head = self._offset_head % (offset, previous_offset)
        return Frame(head + b',"payload":' + payload + b"}}")

    def snapshot(
        self, payload: Any, *, epoch: str | None = None, offset: int | None = None
    ) -> Frame:
        """Encode a state; with the place in the stream where it has one."""
        place = b""
        if epoch is not None:
            place = b',"epoch":' + orjson.dumps(epoch) + b',"offset":%d' % (offset or 0)
        return Frame(self._snapshot_head + place + b',"payload":' + encode_json(payload) + b"}}")


def encode_json(payload: Any) -> bytes:
    """Encode a payload; models as their JSON form, decimals as plain text."""
    return orjson.dumps(payload, default=_encode_other)


def message(kind: str, payload: Any, *, id_: str | int | None = None) -> Frame:
    """Encode an envelope of another kind than an update.

    Args:
        kind: the operation's name.
        payload: JSON-ready.
        id_: echoes the client's; None where it sent none.
    """
    envelope: dict[str, Any] = {"type": kind}
    if id_ is not None:
        envelope["id"] = id_
    envelope["payload"] = payload
    return Frame(encode_json(envelope))


def _header(length: int) -> bytes:
    if length < 126:
        return struct.pack("!BB", 0x81, length)
    if length < 65_536:
        return struct.pack("!BBH", 0x81, 126, length)
    return struct.pack("!BBQ", 0x81, 127, length)


def _encode_other(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, Decimal):
        return f"{value:f}"
    raise TypeError(f"{type(value).__name__} has no JSON form")
