"""The envelope around every fact on the bus, and the base of the facts themselves."""

from datetime import datetime
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Event(BaseModel):
    """A fact that happened, as other modules may read it.

    Subclasses set ``TYPE`` (``<module>.<noun>.<past participle>``, never reused) and
    ``VERSION`` (raised when a field changes meaning).
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    TYPE: ClassVar[str]
    VERSION: ClassVar[int] = 1


class Envelope(BaseModel):
    """One published fact with what is needed to handle it once and in order.

    Attributes:
        id: unique event id; a consumer's inbox keeps it, so a repeat has no effect.
        type: the event's ``TYPE``.
        version: the event's ``VERSION``.
        producer: name of the publishing module.
        key: what orders events among themselves, such as an account id.
        key_sequence: gapless number within the key, from 1; None where the key has none.
        sequence: gapless number within the producer, given after the commit by its relay.
        occurred_at: when it happened, UTC.
        recorded_at: when it was written, UTC.
        request_id: the HTTP request that caused it; None where none did.
        causation_id: the event that caused it; None where none did.
        traceparent: W3C trace context; None where there is no trace.
        data: the event's fields.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    type: str
    version: int
    producer: str
    key: str
    key_sequence: int | None = None
    sequence: int
    occurred_at: datetime
    recorded_at: datetime
    request_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None
    data: dict[str, Any]
