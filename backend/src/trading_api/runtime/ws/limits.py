"""Bounds of a module's socket; every queue and every wait has one."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may do before its socket is closed or its request refused.

    Attributes:
        message_size_max: bytes of one message from the client; over it, close 1009.
        bad_messages_max: unreadable messages after which the socket closes with 1003 or 1007.
        messages_per_second_max: also the burst; over it, close 4429.
        topics_max: subscriptions of one socket; over it the subscribe is refused.
        sockets_per_user_max: in this process and for this endpoint; over it, close 1008.
        sockets_max: of this endpoint; over it the handshake is answered 503.
        queue_size_max: bytes waiting for one client; over it, close 4008.
        recovered_events_max: missed events that a resume replays; over it, a fresh snapshot.
        snapshot_timeout_seconds: how long a module may take for a snapshot.
        authentication_seconds: how long a socket may live without a principal; then close 4408.
        expiry_grace_seconds: from ``auth.expired`` to close 4401.
        sweep_interval_seconds: how often expiry and revocation are looked at, at most 2.
        drain_seconds: how long a stop waits for sockets to close.
        abort_seconds: how long a closed socket may take to send what is left.
    """

    message_size_max: int = 64 * 1024
    bad_messages_max: int = 3
    messages_per_second_max: int = 20
    topics_max: int = 128
    sockets_per_user_max: int = 10
    sockets_max: int = 10_000
    queue_size_max: int = 1024 * 1024
    recovered_events_max: int = 1000
    snapshot_timeout_seconds: float = 10.0
    authentication_seconds: float = 10.0
    expiry_grace_seconds: float = 25.0
    sweep_interval_seconds: float = 1.0
    drain_seconds: float = 5.0
    abort_seconds: float = 2.0


class CloseCode:
    """Codes that a socket is closed with (RFC 6455 section 7.4, and 4xxx of our own)."""

    UNSUPPORTED = 1003
    INVALID_PAYLOAD = 1007
    POLICY = 1008
    TOO_BIG = 1009
    SERVER_FAULT = 1011
    RESTART = 1012
    TOO_SLOW = 4008
    UNAUTHENTICATED = 4401
    AUTHENTICATION_TIMEOUT = 4408
    RATE = 4429
