"""A module's WebSocket endpoint: handshake, authentication, operations, limits.

Envelope, both ways: ``{"type": "<operation>", "payload": {…}}`` in JSON text, with an optional
``id`` that the response echoes. Operations of the client:

* ``<route>.subscribe`` and ``<route>.unsubscribe``: the channel's parameters; ``recover``
  ``{epoch, offset}`` beside them resumes a stream of events.
* ``auth`` and ``auth.refresh`` ``{token}``; ``ping``.

Of the server: the ``….response`` of each, ``<route>.update``, ``pong``, ``auth.expired``,
``error``.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, cast

import orjson
import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import (
    CarriersDisagreeError,
    InvalidInputError,
    TokenInvalidError,
    TradingError,
    UnauthenticatedError,
    UnavailableError,
)
from trading_api.kernel.ids import IdSource, UuidV7Ids
from trading_api.runtime import context
from trading_api.runtime.http.problems import (
    MEDIA_TYPE,
    Problem,
    field_errors,
    problem_of,
)
from trading_api.runtime.http.wire import RequestModel
from trading_api.runtime.identity import Identity, Principal
from trading_api.runtime.settings import PlatformSettings
from trading_api.runtime.ws.channel import Channel, EventChannel, PriceChannel, topic_of
from trading_api.runtime.ws.errors import (
    MessageRateExceededError,
    MessageUnreadableError,
    OperationUnknownError,
    PrincipalChangedError,
    SubscriptionNotFoundError,
    TopicsExceededError,
)
from trading_api.runtime.ws.frames import Frame, message
from trading_api.runtime.ws.hub import Hub, Opened, Recover, Subscription
from trading_api.runtime.ws.limits import CloseCode, Limits
from trading_api.runtime.ws.sink import RAW_EXTENSION, RawSink, SendTextSink, Sink

log = structlog.get_logger(__name__)

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[Any], Awaitable[None]]

SUBPROTOCOL = "trading.v1"
BEARER_SUBPROTOCOL = "bearer."

RECONNECT_SPREAD_MS = 5000
"""Clients of a restarting server are told to come back spread over this time."""

_ID_LENGTH_MAX = 128
_USUAL_CODES = frozenset({1000, 1001, 1005, CloseCode.RESTART})


class _TokenPayload(RequestModel):
    token: str = Field(min_length=1, max_length=8192)


class _RecoverPayload(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: str = Field(max_length=128)
    offset: int = Field(ge=0, strict=True)


class WebSocketEndpoint:
    """The socket of one module and API version, a pure ASGI callable for ``websocket`` scopes.

    Args:
        channels: what can be subscribed; two of the same route are refused.
        hub: of the same module.
        settings: names the platform's environment; kept for the edge's parity with HTTP.
        limits: bounds per message, socket, user and process.
    """

    def __init__(
        self,
        channels: Sequence[Channel[Any]],
        *,
        hub: Hub,
        identity: Identity,
        settings: PlatformSettings,
        clock: Clock,
        ids: IdSource | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.channels = {channel.route: channel for channel in channels}
        if len(self.channels) != len(channels):
            raise ValueError("two channels of one socket have the same route")
        self.hub = hub
        self.identity = identity
        self.settings = settings
        self.clock = clock
        self.ids = ids or UuidV7Ids()
        self.limits = limits or hub.limits
        self.connections: set[Connection] = set()
        self.is_draining = False
        self.admitted = 0
        self._sweeper: asyncio.Task[None] | None = None
        hub.counters.add_source(self._queued_bytes)

    async def close_all(self) -> None:
        """Refuse new sockets, close the open ones with 1012 and wait for them, in bounds."""
        self.is_draining = True
        for connection in list(self.connections):
            connection.close(CloseCode.RESTART, restart_reason())
        deadline = self.clock.monotonic() + self.limits.drain_seconds
        while self.connections and self.clock.monotonic() < deadline:
            tasks = [each.task for each in self.connections if each.task is not None]
            await asyncio.wait(tasks, timeout=max(0.0, deadline - self.clock.monotonic()))

    def sweep(self) -> None:
        """Look once at every socket: never authenticated, expired, revoked."""
        now_seconds = self.clock.now().timestamp()
        monotonic = self.clock.monotonic()
        for connection in list(self.connections):
            connection.look(now_seconds, monotonic)

    def sockets_of(self, principal: Principal) -> int:
        """Return how many sockets a user has open here."""
        return sum(
            1
            for each in self.connections
            if each.principal is not None and each.principal.user_id == principal.user_id
        )

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one socket until it closes."""
        assert scope["type"] == "websocket"
        connection = Connection(self, scope, receive, send)
        await connection.run()

    def add(self, connection: "Connection") -> None:
        """Count an accepted socket in; all of them are watched by one task."""
        self.connections.add(connection)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep_forever())

    def discard(self, connection: "Connection") -> None:
        """Count a socket out; with the last one the watching ends."""
        self.connections.discard(connection)
        if not self.connections and self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(self.limits.sweep_interval_seconds)
            try:
                self.sweep()
            except Exception:
                self.hub.counters.errors += 1
                log.exception("websocket_sweep_failed")

    def _queued_bytes(self) -> list[int]:
        return [each.sink.queued_bytes for each in self.connections if each.sink is not None]


class Connection:
    """One accepted socket.

    Attributes:
        principal: who is asking; None until authenticated.
        task: serves this socket.
    """

    def __init__(
        self,
        endpoint: WebSocketEndpoint,
        scope: MutableMapping[str, Any],
        receive: Receive,
        send: Send,
    ) -> None:
        self._endpoint = endpoint
        self._hub = endpoint.hub
        self._limits = endpoint.limits
        self._scope = scope
        self._receive = receive
        self._send = send
        self._path = str(scope["path"])
        self._channels = endpoint.channels
        self._subscriptions: dict[str, Subscription] = {}
        self._opened_at = endpoint.clock.monotonic()
        self._expired_at: float | None = None
        self._bad_messages = 0
        self._allowance = float(self._limits.messages_per_second_max)
        self._allowed_at = self._opened_at
        self._message_count = 0
        self._peer_code: int | None = None
        self._is_aborted = False
        self.sink: Sink | None = None
        self.principal: Principal | None = None
        self.task: asyncio.Task[Any] | None = None

    async def run(self) -> None:
        """Serve the socket from its handshake to its end; frees every subscription."""
        connect = await self._receive()
        if connect["type"] != "websocket.connect":
            return
        # Counted before the first await: no socket is accepted beyond the bound and then dead.
        self._endpoint.admitted += 1
        try:
            await self._admit()
        finally:
            self._endpoint.admitted -= 1

    async def _admit(self) -> None:
        try:
            refusal = await self._authenticate_handshake()
        except TradingError as error:
            await self._refuse(error)
            return
        await self._send(
            {
                "type": "websocket.accept",
                "subprotocol": SUBPROTOCOL if SUBPROTOCOL in self._offered() else None,
                "headers": [],
            }
        )
        sink = self.sink = self._make_sink()
        self.task = asyncio.current_task()
        self._endpoint.add(self)
        try:
            if refusal is not None:
                self._send_error(refusal)
                self.close(CloseCode.UNAUTHENTICATED, "the token is not accepted")
            elif self._has_too_many_sockets(self.principal):
                self.close(CloseCode.POLICY, "too many sockets of this user")
            await self._serve()
        except asyncio.CancelledError:
            if not self._is_aborted:
                raise
        finally:
            self._endpoint.discard(self)
            for subscription in self._subscriptions.values():
                self._hub.close(subscription)
            self._subscriptions.clear()
            if isinstance(sink, SendTextSink):
                await sink.finish()
            code = sink.close_code or self._peer_code or 1006
            self._hub.counters.count_close(code)
            # Thousands end in one instant when a process restarts; only the unusual is told.
            tell = log.debug if code in _USUAL_CODES else log.info
            tell(
                "websocket_closed",
                path=self._path,
                code=code,
                user_id=self.principal.user_id if self.principal else None,
                message_count=self._message_count,
                seconds=round(self._endpoint.clock.monotonic() - self._opened_at, 1),
            )

    def close(self, code: int, reason: str) -> None:
        """Close the socket; frames already sent go out first, unless the client is stalled."""
        if self.sink is not None:
            self.sink.close(code, reason)

    def look(self, now_seconds: float, monotonic: float) -> None:
        """Close or warn a socket whose credential is missing, revoked or past its end.

        Args:
            now_seconds: Unix seconds.
            monotonic: the clock's own seconds.
        """
        principal = self.principal
        if principal is None:
            # One that listens to what is public needs no credential to go on listening.
            age_seconds = monotonic - self._opened_at
            if age_seconds >= self._limits.authentication_seconds and not self._subscriptions:
                self.close(CloseCode.AUTHENTICATION_TIMEOUT, "no credential came in time")
        elif self._endpoint.identity.is_revoked(principal.session_id):
            self.close(CloseCode.UNAUTHENTICATED, "this sign-in was ended")
        elif principal.expires_at_seconds > now_seconds:
            self._expired_at = None
        elif self._expired_at is None:
            self._expired_at = monotonic
            grace = self._limits.expiry_grace_seconds
            self._send_frame(message("auth.expired", {"grace_seconds": grace}))
        elif monotonic - self._expired_at >= self._limits.expiry_grace_seconds:
            self.close(CloseCode.UNAUTHENTICATED, "the token has expired")

    # Handshake

    async def _authenticate_handshake(self) -> TokenInvalidError | None:
        """Find the principal; returns the refusal of a credential that isn't accepted.

        Raises:
            CrossSiteRequestError: a cookie from a foreign origin; answered before the accept.
            CarriersDisagreeError: credentials of two users.
            UnavailableError: the server is full, draining, or can't verify.
        """
        if self._endpoint.is_draining:
            raise UnavailableError("the server restarts; try again", retry_after_seconds=1)
        if self._endpoint.admitted > self._limits.sockets_max:
            raise UnavailableError("the server is full; try again later", retry_after_seconds=10)
        try:
            principal = await self._endpoint.identity.authenticate(self._scope)
            tokens = [
                each.removeprefix(BEARER_SUBPROTOCOL)
                for each in self._offered()
                if each.startswith(BEARER_SUBPROTOCOL)
            ]
            if len(tokens) > 1:
                raise CarriersDisagreeError("send one bearer subprotocol")
            if tokens:
                beside = await self._endpoint.identity.verify_credential(tokens[0], self._scope)
                if principal is not None and not _are_same(principal, beside):
                    raise CarriersDisagreeError("the credentials belong to two users; send one")
                principal = beside
        except TokenInvalidError as error:
            return error
        self.principal = principal
        return None

    def _offered(self) -> Sequence[str]:
        return cast("Sequence[str]", self._scope.get("subprotocols", ()))

    def _has_too_many_sockets(self, principal: Principal | None) -> bool:
        if principal is None or principal.carrier == "service":
            return False
        return self._endpoint.sockets_of(principal) > self._limits.sockets_per_user_max

    async def _refuse(self, error: TradingError) -> None:
        """Answer the handshake with a problem, where the server can, instead of a socket."""
        self._hub.counters.refused += 1
        problem = self._problem(error)
        if "websocket.http.response" not in self._scope.get("extensions", {}):
            await self._send({"type": "websocket.close", "code": CloseCode.POLICY})
            return
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"cache-control", b"no-store")]
        if error.retry_after_seconds is not None:
            headers.append((b"retry-after", str(error.retry_after_seconds).encode()))
        await self._send(
            {
                "type": "websocket.http.response.start",
                "status": problem["status"],
                "headers": headers,
            }
        )
        await self._send({"type": "websocket.http.response.body", "body": orjson.dumps(problem)})

    def _make_sink(self) -> Sink:
        link = self._scope.get("extensions", {}).get(RAW_EXTENSION)
        counters, limits = self._hub.counters, self._limits
        if link is not None:
            return RawSink(
                link,
                counters=counters,
                queue_size_max=limits.queue_size_max,
                abort_seconds=limits.abort_seconds,
            )
        return SendTextSink(
            self._send,
            counters=counters,
            queue_size_max=limits.queue_size_max,
            abort_seconds=limits.abort_seconds,
            on_aborted=self._abort,
        )

    def _abort(self) -> None:
        self._is_aborted = True
        if self.task is not None:
            self.task.cancel()

    # Messages

    async def _serve(self) -> None:
        while True:
            received = await self._receive()
            if received["type"] == "websocket.disconnect":
                self._peer_code = int(received.get("code") or 1005)
                return
            if self.sink is None or not self.sink.is_open:
                continue
            self._message_count += 1
            token = context.request_id.set(self._endpoint.ids.new("req"))
            try:
                if self._take_allowance():
                    await self._receive_message(received.get("text"), received.get("bytes"))
                else:
                    self._send_error(MessageRateExceededError("send fewer messages a second"))
                    self.close(CloseCode.RATE, "too many messages a second")
            finally:
                context.request_id.reset(token)

    def _take_allowance(self) -> bool:
        maximum = self._limits.messages_per_second_max
        now = self._endpoint.clock.monotonic()
        self._allowance = min(maximum, self._allowance + (now - self._allowed_at) * maximum)
        self._allowed_at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    async def _receive_message(self, text: str | None, data: bytes | None) -> None:
        if text is None:
            self._count_bad(CloseCode.UNSUPPORTED, "send text, not binary", size=len(data or b""))
            return
        if len(text) > self._limits.message_size_max or (
            not text.isascii() and len(text.encode()) > self._limits.message_size_max
        ):
            self.close(CloseCode.TOO_BIG, "the message is too long")
            return
        try:
            envelope = orjson.loads(text)
        except ValueError:
            self._count_bad(CloseCode.INVALID_PAYLOAD, "the message is not JSON", size=len(text))
            return
        if not _is_envelope(envelope):
            self._count_bad(
                CloseCode.UNSUPPORTED,
                'the message is not {"type": text, "payload": object, "id": optional}',
                size=len(text),
            )
            return
        kind, id_ = envelope["type"], envelope.get("id")
        try:
            await self._handle(kind, envelope.get("payload") or {}, id_)
        except TradingError as error:
            self._send_failure(kind, id_, error)
        except Exception as error:
            # The socket outlives one failed message.
            self._hub.counters.errors += 1
            log.exception("websocket_message_failed", path=self._path, kind=kind[:64])
            self._send_failure(kind, id_, error)

    def _count_bad(self, code: int, reason: str, *, size: int) -> None:
        self._bad_messages += 1
        self._send_error(MessageUnreadableError(reason, size=size))
        if self._bad_messages >= self._limits.bad_messages_max:
            self.close(code, "too many unreadable messages")

    async def _handle(self, kind: str, payload: dict[str, Any], id_: str | int | None) -> None:
        if kind == "ping":
            self._send_frame(message("pong", {}, id_=id_))
            return
        if kind in ("auth", "auth.refresh"):
            await self._authenticate(kind, payload, id_)
            return
        route, _, verb = kind.rpartition(".")
        channel = self._channels.get(route)
        if channel is None or verb not in ("subscribe", "unsubscribe"):
            raise OperationUnknownError("this socket has no such operation", operation=kind[:64])
        if verb == "subscribe":
            await self._subscribe(channel, dict(payload), id_)
        else:
            self._unsubscribe(channel, dict(payload), id_)

    async def _authenticate(
        self, kind: str, payload: dict[str, Any], id_: str | int | None
    ) -> None:
        token = _parse(_TokenPayload, payload).token
        principal = await self._endpoint.identity.verify_credential(token, self._scope)
        before = self.principal
        if before is not None and not _are_same(before, principal):
            raise PrincipalChangedError("this socket belongs to another user; open a new one")
        self.principal = principal
        self._expired_at = None
        self._send_response(
            kind,
            id_,
            {
                "status": "ok",
                "message": "authenticated",
                "expires_at": principal.expires_at_seconds,
            },
        )
        if before is None:
            if self._has_too_many_sockets(principal):
                self.close(CloseCode.POLICY, "too many sockets of this user")
        else:
            await self._authorize_again(principal)

    async def _authorize_again(self, principal: Principal) -> None:
        """End the subscriptions that the new credential no longer allows."""
        for topic, subscription in list(self._subscriptions.items()):
            try:
                subscription.channel.access.ensure_allows(principal)
                await subscription.channel.authorize(principal, subscription.params)
            except TradingError as error:
                self._hub.close(subscription)
                self._subscriptions.pop(topic, None)
                self._send_response(
                    f"{subscription.channel.route}.unsubscribe",
                    None,
                    {
                        "status": "ok",
                        "message": "ended: the new token doesn't allow it",
                        "topic": topic,
                        "error": self._problem(error),
                    },
                )

    async def _subscribe(
        self, channel: Channel[Any], payload: dict[str, Any], id_: str | int | None
    ) -> None:
        recover = _parse_recover(payload.pop("recover", None))
        params = _parse(channel.params, payload)
        topic = topic_of(channel.route, params)
        principal = self._current_principal()
        channel.access.ensure_allows(principal)
        await channel.authorize(principal, params)
        # Subscribing again renews: the client gets the state anew, and one unsubscribe ends it.
        before = self._subscriptions.pop(topic, None)
        if before is not None:
            self._hub.close(before)
        elif len(self._subscriptions) >= self._limits.topics_max:
            raise TopicsExceededError(
                "unsubscribe a topic first", topics_max=self._limits.topics_max
            )
        subscription, opened = await self._open(channel, principal, params, topic, recover)
        self._subscriptions[topic] = subscription
        answer: dict[str, Any] = {
            "status": "ok",
            "message": "subscribed" if before is None else "subscribed again",
            "topic": topic,
            "epoch": opened.epoch,
        }
        if opened.offset is not None:
            answer["offset"] = opened.offset
        if opened.recovered is not None:
            answer["recovered"] = opened.recovered
        self._send_response(f"{channel.route}.subscribe", id_, answer)
        self._hub.begin(subscription)

    async def _open(
        self,
        channel: Channel[Any],
        principal: Principal | None,
        params: RequestModel,
        topic: str,
        recover: Recover | None,
    ) -> tuple[Subscription, Opened]:
        assert self.sink is not None
        if isinstance(channel, PriceChannel):
            return await self._hub.open_prices(
                channel, principal, params, topic=topic, sink=self.sink, recover=recover
            )
        assert isinstance(channel, EventChannel), "a channel carries prices or events"
        if principal is None:
            raise UnauthenticatedError("this needs a sign-in: send auth with a token first")
        return await self._hub.open_events(
            channel, principal, params, topic=topic, sink=self.sink, recover=recover
        )

    def _unsubscribe(
        self, channel: Channel[Any], payload: dict[str, Any], id_: str | int | None
    ) -> None:
        payload.pop("recover", None)
        topic = topic_of(channel.route, _parse(channel.params, payload))
        subscription = self._subscriptions.pop(topic, None)
        if subscription is None:
            raise SubscriptionNotFoundError("this topic is not subscribed here")
        self._hub.close(subscription)
        self._send_response(
            f"{channel.route}.unsubscribe",
            id_,
            {"status": "ok", "message": "unsubscribed", "topic": topic},
        )

    def _current_principal(self) -> Principal | None:
        principal = self.principal
        if principal is not None:
            if self._endpoint.identity.is_revoked(principal.session_id):
                raise TokenInvalidError("this sign-in was ended; log in again", reason="revoked")
            if principal.expires_at_seconds <= self._endpoint.clock.now().timestamp():
                raise TokenInvalidError("the token has expired; refresh it", reason="expired")
        return principal

    # Answers

    def _send_frame(self, frame: Frame) -> None:
        if self.sink is not None:
            self.sink.send(frame)

    def _send_response(self, kind: str, id_: str | int | None, payload: Any) -> None:
        self._send_frame(message(f"{kind}.response", payload, id_=id_))

    def _send_failure(self, kind: str, id_: str | int | None, error: Exception) -> None:
        """Answer a failed operation in its own response; an unknown one with an error frame."""
        problem = self._problem(error)
        if isinstance(error, OperationUnknownError):
            self._send_frame(message("error", problem, id_=id_))
            return
        self._send_response(
            kind, id_, {"status": "error", "message": problem["detail"], "error": problem}
        )

    def _send_error(self, error: Exception) -> None:
        self._send_frame(message("error", self._problem(error)))

    def _problem(self, error: Exception) -> dict[str, Any]:
        request_id = context.request_id.get() or self._endpoint.ids.new("req")
        problem: Problem = problem_of(error, path=self._path, request_id=request_id)
        body = problem.model_dump(exclude_none=True)
        if not body["context"]:
            del body["context"]
        return body


def _are_same(one: Principal, other: Principal) -> bool:
    return (one.user_id, one.account_id) == (other.user_id, other.account_id)


def restart_reason() -> str:
    """Return the close reason of a restart, with a delay that spreads the reconnects."""
    return f"restart; come back in {secrets.randbelow(RECONNECT_SPREAD_MS)} ms"


def _is_envelope(envelope: Any) -> bool:
    if not isinstance(envelope, dict) or envelope.keys() - {"type", "payload", "id"}:
        return False
    kind, payload, id_ = envelope.get("type"), envelope.get("payload"), envelope.get("id")
    is_id = id_ is None or (
        (isinstance(id_, str) and len(id_) <= _ID_LENGTH_MAX)
        or (isinstance(id_, int) and not isinstance(id_, bool))
    )
    return isinstance(kind, str) and (payload is None or isinstance(payload, dict)) and is_id


def _parse(model: type[RequestModel], payload: dict[str, Any]) -> Any:
    try:
        return model.model_validate(payload)
    except ValidationError as error:
        fields = field_errors(list(error.errors()))
        raise InvalidInputError(
            "; ".join(f"{each.field or 'payload'}: {each.message}" for each in fields),
            errors=fields,
        ) from None


def _parse_recover(value: Any) -> Recover | None:
    if value is None:
        return None
    try:
        parsed = _RecoverPayload.model_validate(value)
    except ValidationError as error:
        fields = field_errors(
            [{**each, "loc": ("recover", *each["loc"])} for each in error.errors()]
        )
        raise InvalidInputError("recover must be {epoch, offset}", errors=fields) from None
    return Recover(parsed.epoch, parsed.offset)
