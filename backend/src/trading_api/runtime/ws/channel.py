"""What a module declares for each WebSocket route: who may subscribe, the snapshot, the updates."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import orjson
from pydantic import BaseModel

from trading_api.runtime.http.access import Access
from trading_api.runtime.http.wire import RequestModel
from trading_api.runtime.identity import Principal

P = TypeVar("P", bound=RequestModel)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state at one instant, from one database snapshot.

    Attributes:
        payload: JSON-ready state.
        epoch: changes when sequences start anew (restore, reset); a resume across it is refused.
        offset: sequence of the last event that the state contains.
    """

    payload: Any
    epoch: str
    offset: int


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event of a gapless stream.

    Attributes:
        offset: the event's number in its stream, from 1.
        route: the channel that shows it; a stream feeds several channels.
        payload: JSON-ready update.
    """

    offset: int
    route: str
    payload: Any


class Channel(ABC, Generic[P]):
    """One route of a module's socket, ``<route>.subscribe`` and so on."""

    route: ClassVar[str]
    params: ClassVar[type[RequestModel]]
    update: ClassVar[type[BaseModel]]
    access: ClassVar[Access]

    async def authorize(self, principal: Principal | None, params: P) -> None:
        """Check the principal against these parameters; raises what the HTTP route would raise."""


class PriceChannel(Channel[P]):
    """Newest wins: a slow reader misses intermediate values, and frames carry no offset."""

    @abstractmethod
    def feeds(self, params: P) -> Sequence[str]:
        """Return the feeds that this subscription listens to, such as ``quotes:DEMO:AAPL``."""

    @abstractmethod
    async def snapshot(self, principal: Principal | None, params: P) -> Sequence[Any]:
        """Return the payloads to send first, JSON-ready."""


class EventChannel(Channel[P]):
    """Every event, in order, once: frames carry ``offset`` and ``previous_offset``."""

    @abstractmethod
    def stream(self, principal: Principal, params: P) -> str:
        """Return the name of the gapless stream, such as ``broker:acc_…``."""

    @abstractmethod
    async def snapshot(self, principal: Principal, params: P) -> Snapshot:
        """Return the state and the offset that it stands at."""

    @abstractmethod
    async def read(self, stream: str, *, after: int, limit: int) -> Sequence[StreamEvent]:
        """Return the stream's events behind an offset, oldest first, of every route.

        Raises:
            NotFoundError: ``after`` is older than what is kept.
        """


def topic_of(route: str, params: RequestModel) -> str:
    """Return the topic's name: the route and its parameters as compact JSON, keys sorted.

    An absent value is written as "", as clients of this dialect do.
    """
    filled = _without_none(params.model_dump(mode="json"))
    return f"{route}:{orjson.dumps(filled, option=orjson.OPT_SORT_KEYS).decode()}"


def _without_none(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, dict):
        return {name: _without_none(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value
