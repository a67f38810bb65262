"""Proofs over API keys and share tokens (T12), part of ``check_auth``."""

import re

import sqlalchemy as sa

from trading_api.ledger.checks import Violation
from trading_api.modules.auth.domain import Role
from trading_api.modules.auth.domain.api_keys import SHARED_SCOPE
from trading_api.modules.auth.domain.users import scopes_of
from trading_api.modules.auth.tables import api_keys, users
from trading_api.runtime.database import Transaction

_DIGEST = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"(key|shr)_[0-9A-Za-z]{8}")
_PREFIXES = {"live": "key", "share": "shr"}


async def check_keys(transaction: Transaction, *, now_us: int) -> list[Violation]:
    """Prove that secrets are stored as digests, and that no live key may more than its owner.

    Args:
        now_us: microseconds since 1970 UTC.
    """
    rows = await transaction.all(
        sa.select(api_keys, users.c.roles, users.c.is_active).join(
            users, users.c.id == api_keys.c.user_id
        )
    )
    found: list[Violation] = []
    for row in rows:
        name = _ID.fullmatch(row.id)
        if name is None or name[1] != _PREFIXES[row.kind]:
            found.append(Violation("T12", row.id, "its id isn't that of a key of its kind"))
        if _DIGEST.fullmatch(row.secret_hash) is None:
            found.append(Violation("T12", row.id, "the secret isn't stored as a digest"))
        is_live = row.revoked_at_us is None and (
            row.expires_at_us is None or row.expires_at_us > now_us
        )
        if not is_live:
            continue
        scopes = frozenset(row.scopes.split(","))
        allowed = scopes_of(frozenset(Role(each) for each in row.roles.split(",") if each))
        if not row.is_active:
            found.append(Violation("T12", row.id, "lives, though its owner is disabled"))
        elif not scopes <= allowed - {"auth:manage"}:
            found.append(Violation("T12", row.id, "may more than its owner may give"))
        if row.kind == "share" and scopes != {SHARED_SCOPE}:
            found.append(Violation("T12", row.id, "a guest may only read"))
    return found
