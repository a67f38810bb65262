"""Proofs over auth's tables: read-only, from scratch.

Each check has the id of the invariant it proves:

* T1 a family's leaf was never spent, and what it was made from was
* T5 no session is good beyond its absolute end
* T6 a disabled user has no live session
* T9 tokens, codes and passwords are stored as digests or sealed, never as they are
* T12 no live API key may more than its owner, and none is stored as it is
* T13 the audit's chain walks clean, without a gap, up to its head, and can't be altered
"""

import re

import sqlalchemy as sa

from trading_api.ledger.checks import Violation
from trading_api.modules.auth.domain.audit import FIRST_HASH, chain_hash
from trading_api.modules.auth.repository.audit import AuditRepository
from trading_api.modules.auth.repository.key_checks import check_keys
from trading_api.modules.auth.tables import (
    sessions,
    spent_refresh_tokens,
    users,
)
from trading_api.runtime.database import Transaction

__all__ = [
    "AUDIT_CHECKS",
    "SESSION_CHECKS",
    "Violation",
    "check_audit",
    "check_auth",
    "check_sessions",
]

SESSION_CHECKS = ("T1", "T5", "T6", "T9", "T12")
AUDIT_CHECKS = ("T13",)

_DIGEST = re.compile(r"[0-9a-f]{64}")
_PASSWORD_HASH = re.compile(r"\$(argon2id|2[aby])\$")
_TRIGGERS = {
    "sqlite": ("audit_entries_no_update", "audit_entries_no_delete"),
    "postgresql": ("audit_entries_append_only",),
}


async def check_auth(transaction: Transaction, *, now_us: int) -> list[Violation]:
    """Prove everything; see ``check_sessions`` and ``check_audit``."""
    return [
        *await check_sessions(transaction, now_us=now_us),
        *await check_audit(transaction),
    ]


async def check_sessions(transaction: Transaction, *, now_us: int) -> list[Violation]:
    """Prove sessions and stored secrets; run it on a snapshot.

    Args:
        now_us: microseconds since 1970 UTC.
    """
    return [
        *await _check_families(transaction),
        *await _check_disabled(transaction, now_us),
        *await _check_digests(transaction),
        *await check_keys(transaction, now_us=now_us),
    ]


async def check_audit(transaction: Transaction) -> list[Violation]:
    """Walk the audit's chain (T13)."""
    repository = AuditRepository()
    found: list[Violation] = []
    expected, previous = 1, FIRST_HASH
    async for page in repository.iterate(transaction):
        for row in page:
            columns = dict(row._mapping)
            stored = columns.pop("hash")
            if row.sequence != expected:
                found.append(
                    Violation(
                        "T13", f"audit:{row.sequence}", f"sequence {expected} should come here"
                    )
                )
            if stored != chain_hash(previous, columns):
                found.append(
                    Violation(
                        "T13",
                        f"audit:{row.sequence}",
                        "its hash doesn't follow from it and the row before",
                    )
                )
            expected, previous = row.sequence + 1, stored
    if (expected - 1, previous) != await repository.get_head(transaction):
        found.append(
            Violation(
                "T13", "audit", f"the head isn't row {expected - 1}: rows at the end are gone"
            )
        )
    missing = await _missing_triggers(transaction)
    found += [Violation("T13", "audit", f"the trigger {name} is gone") for name in missing]
    return found


async def _missing_triggers(transaction: Transaction) -> list[str]:
    if transaction.dialect == "sqlite":
        query = sa.text("SELECT name FROM auth.sqlite_master WHERE type = 'trigger'")
    else:
        query = sa.text(
            "SELECT tgname AS name FROM pg_trigger "
            "WHERE tgrelid = 'auth.audit_entries'::regclass AND tgenabled <> 'D'"
        )
    present = {row.name for row in await transaction.all(query)}
    return [name for name in _TRIGGERS[transaction.dialect] if name not in present]


async def _check_families(transaction: Transaction) -> list[Violation]:
    spent = spent_refresh_tokens
    leaves = await transaction.all(
        sa.select(sessions.c.id).join(spent, spent.c.token_hash == sessions.c.leaf_hash)
    )
    orphans = await transaction.all(
        sa.select(sessions.c.id)
        .outerjoin(
            spent,
            sa.and_(
                spent.c.token_hash == sessions.c.parent_hash, spent.c.session_id == sessions.c.id
            ),
        )
        .where(sessions.c.parent_hash.is_not(None), spent.c.token_hash.is_(None))
    )
    late = await transaction.all(
        sa.select(sessions.c.id).where(
            sa.or_(
                sessions.c.idle_expires_at_us > sessions.c.expires_at_us,
                sessions.c.expires_at_us <= sessions.c.created_at_us,
            )
        )
    )
    return [
        *(Violation("T1", row.id, "the live refresh token was used before") for row in leaves),
        *(Violation("T1", row.id, "the leaf's parent isn't among the spent") for row in orphans),
        *(Violation("T5", row.id, "good beyond its absolute end") for row in late),
    ]


async def _check_disabled(transaction: Transaction, now_us: int) -> list[Violation]:
    rows = await transaction.all(
        sa.select(sessions.c.id)
        .join(users, users.c.id == sessions.c.user_id)
        .where(
            users.c.is_active.is_(False),
            sessions.c.revoked_at_us.is_(None),
            sessions.c.idle_expires_at_us > now_us,
        )
    )
    return [Violation("T6", row.id, "lives, though its user is disabled") for row in rows]


async def _check_digests(transaction: Transaction) -> list[Violation]:
    found = []
    for row in await transaction.all(
        sa.select(users.c.id, users.c.password_hash).where(users.c.password_hash.is_not(None))
    ):
        if _PASSWORD_HASH.match(row.password_hash) is None:
            found.append(Violation("T9", row.id, "the password isn't stored as a slow hash"))
    for row in await transaction.all(sa.select(sessions.c.id, sessions.c.leaf_hash)):
        if _DIGEST.fullmatch(row.leaf_hash) is None:
            found.append(Violation("T9", row.id, "the refresh token isn't stored as a digest"))
    return found
