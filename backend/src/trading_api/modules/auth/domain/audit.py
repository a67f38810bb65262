"""What the audit says of a change, and how its rows are chained so that none can be altered.

Each row's hash covers the row and the hash before it. Whoever edits, removes or reorders rows has
to rewrite every later one, and the newest hash is stored apart.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

FIRST_HASH = "0" * 64
"""What the first row is chained to."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for something, as the audit remembers it.

    Attributes:
        address: the client's; ``host`` for an operator at the machine itself, ``mail`` for what
            the sending of mails meets.
        user_id: None while nobody is known.
        session_id: None where the caller has none.
    """

    address: str
    user_id: str | None = None
    session_id: str | None = None


HOST = Caller("host")
"""An operator at the machine itself; the machine's own log knows who that is."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One security event.

    Attributes:
        action: what was asked for, such as ``login``.
        outcome: ``done``, or why not.
        about: what it was done to, ``<kind>:<id>``; None where there is no such thing.
        detail: more words, for people; never a secret.
        before_hash: ``hash_state`` of that thing before; None where it wasn't there.
        after_hash: the same after; None where nothing changed or it is gone.
    """

    occurred_at: datetime
    caller: Caller
    action: str
    outcome: str
    about: str | None
    detail: str
    before_hash: str | None
    after_hash: str | None
    request_id: str | None


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An entry with its place in the chain.

    Attributes:
        sequence: from 1, without a gap.
        hash: over this row and the one before.
    """

    sequence: int
    entry: AuditEntry
    hash: str


def chain_hash(previous: str, columns: Mapping[str, Any]) -> str:
    """Return a row's hash.

    Args:
        previous: the hash of the row before, ``FIRST_HASH`` for the first.
        columns: the stored columns by name, without the hash.
    """
    return _digest(previous + "\n" + _canonical(columns))


def hash_state(state: Any) -> str | None:
    """Return a digest of a value's fields, so that two states can be compared but not read.

    None gives None. A stored password hash is among a user's fields; its own salt keeps this digest
    from telling anything of the password.
    """
    if state is None:
        return None
    return _digest(_canonical(state if isinstance(state, Mapping) else dataclasses.asdict(state)))


def _canonical(content: Mapping[str, Any]) -> str:
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_plain
    )


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    assert isinstance(value, frozenset | set), f"{type(value).__name__} has no canonical form"
    return sorted(value)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
