"""Tables of auth."""

import sqlalchemy as sa

from trading_api.runtime.database import Id, Instant, leases, module_metadata, outbox

metadata = module_metadata("auth")

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("email", sa.Text, nullable=False),
    sa.Column("email_folded", Id, nullable=False, unique=True),
    sa.Column("full_name", sa.Text, nullable=False),
    sa.Column("picture", sa.Text),
    sa.Column("password_hash", sa.Text),
    sa.Column("roles", sa.Text, nullable=False),  # names, sorted, by comma
    sa.Column("is_active", sa.Boolean, nullable=False),
    sa.Column("created_at_us", Instant, nullable=False),
    sa.Column("last_login_at_us", Instant),
    sa.Column("email_verified_at_us", Instant),
    sa.Column("activated_at_us", Instant),  # NULL: waits for the address's confirmation
    sa.Column("has_short_password", sa.Boolean, nullable=False, server_default=sa.false()),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("user_id", Id, sa.ForeignKey(users.c.id), nullable=False),
    sa.Column("device_fingerprint", Id, nullable=False),
    sa.Column("user_agent", sa.Text, nullable=False),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("created_at_us", Instant, nullable=False),
    sa.Column("last_used_at_us", Instant, nullable=False),
    sa.Column("expires_at_us", Instant, nullable=False),
    sa.Column("idle_expires_at_us", Instant, nullable=False),
    sa.Column("leaf_hash", Id, nullable=False, unique=True),
    sa.Column("parent_hash", Id),
    sa.Column("parent_rotated_at_us", Instant),
    sa.Column("sealed_leaf", sa.Text),
    sa.Column("revoked_at_us", Instant),
    sa.Column("revoked_reason", sa.Text),
    sa.CheckConstraint("idle_expires_at_us <= expires_at_us", "idle_end_within_end"),
    sa.CheckConstraint(
        "(parent_hash IS NULL) = (parent_rotated_at_us IS NULL)", "parent_has_its_time"
    ),
    sa.CheckConstraint("(revoked_at_us IS NULL) = (revoked_reason IS NULL)", "revoked_has_reason"),
    sa.Index(None, "user_id"),
    sa.Index(None, "revoked_at_us"),
)

spent_refresh_tokens = sa.Table(
    "spent_refresh_tokens",
    metadata,
    sa.Column("token_hash", Id, primary_key=True),
    sa.Column("session_id", Id, sa.ForeignKey(sessions.c.id, ondelete="CASCADE"), nullable=False),
    sa.Column("spent_at_us", Instant, nullable=False),
    sa.Index(None, "session_id"),
)

throttles = sa.Table(
    "throttles",
    metadata,
    sa.Column("key", Id, primary_key=True),
    sa.Column("full_again_at_us", Instant, nullable=False),
    sa.Column("failure_count", sa.Integer, nullable=False, server_default="0"),  # in a row
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("user_id", Id, sa.ForeignKey(users.c.id), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("secret_hash", sa.Text, nullable=False),
    sa.Column("scopes", sa.Text, nullable=False),  # names, sorted, by comma
    sa.Column("account_id", Id),  # the broker's
    sa.Column("ip_allow", sa.Text, nullable=False),  # networks, by comma
    sa.Column("created_at_us", Instant, nullable=False),
    sa.Column("expires_at_us", Instant),
    sa.Column("last_used_at_us", Instant),
    sa.Column("revoked_at_us", Instant),
    sa.Column("revoked_reason", sa.Text),
    sa.CheckConstraint("kind IN ('live', 'share')", "kind_known"),
    sa.CheckConstraint("(kind = 'share') = (account_id IS NOT NULL)", "share_has_account"),
    sa.CheckConstraint("length(secret_hash) = 64", "secret_is_hashed"),
    sa.CheckConstraint("(revoked_at_us IS NULL) = (revoked_reason IS NULL)", "revoked_has_reason"),
    sa.Index(None, "user_id"),
    sa.Index(None, "revoked_at_us"),
)

audit_entries = sa.Table(
    "audit_entries",
    metadata,
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("occurred_at_us", Instant, nullable=False),
    sa.Column("actor_id", Id),  # NULL: nobody known
    sa.Column("session_id", Id),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("object", Id),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("before_hash", Id),
    sa.Column("after_hash", Id),
    sa.Column("request_id", sa.Text),
    sa.Column("hash", Id, nullable=False),
    sa.Index(None, "actor_id"),
    sa.Index(None, "object"),
)

audit_head = sa.Table(  # one row: where the chain ends
    "audit_head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("hash", Id, nullable=False),
    sa.CheckConstraint("id = 1", "one_row"),
)

second_factors = sa.Table(
    "second_factors",
    metadata,
    sa.Column("user_id", Id, sa.ForeignKey(users.c.id), primary_key=True),
    sa.Column("sealed_secret", sa.Text),
    sa.Column("enabled_at_us", Instant),
    sa.Column("last_step", sa.BigInteger),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.CheckConstraint("(sealed_secret IS NULL) = (enabled_at_us IS NULL)", "on_has_secret"),
)

recovery_codes = sa.Table(
    "recovery_codes",
    metadata,
    sa.Column("code_hash", Id, primary_key=True),
    sa.Column("user_id", Id, sa.ForeignKey(users.c.id), nullable=False),
    sa.Column("used_at_us", Instant),
    sa.Index(None, "user_id"),
)

tickets = sa.Table(
    "tickets",
    metadata,
    sa.Column("token_hash", Id, primary_key=True),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("user_id", Id, sa.ForeignKey(users.c.id)),
    sa.Column("data", sa.Text, nullable=False),
    sa.Column("created_at_us", Instant, nullable=False),
    sa.Column("expires_at_us", Instant, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("used_at_us", Instant),
    sa.Index(None, "user_id", "purpose"),
    sa.Index(None, "expires_at_us"),
)

mails = sa.Table(
    "mails",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("recipient", sa.Text, nullable=False),
    sa.Column("data", sa.Text, nullable=False),  # JSON
    sa.Column("created_at_us", Instant, nullable=False),
    sa.Column("due_at_us", Instant),  # NULL: done
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("outcome", sa.Text),  # sent, dropped or failed
    sa.Column("done_at_us", Instant),
    sa.CheckConstraint("(due_at_us IS NULL) = (outcome IS NOT NULL)", "due_or_done"),
    sa.Index(None, "due_at_us"),
    sa.Index(None, "done_at_us"),
)

passkeys = sa.Table(
    "passkeys",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("user_id", Id, sa.ForeignKey(users.c.id), nullable=False),
    sa.Column("credential_id", Id, nullable=False, unique=True),
    sa.Column("public_key", sa.Text, nullable=False),
    sa.Column("sign_count", sa.BigInteger, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("is_backed_up", sa.Boolean, nullable=False),
    sa.Column("created_at_us", Instant, nullable=False),
    sa.Column("last_used_at_us", Instant),
    sa.Index(None, "user_id"),
)

external_identities = sa.Table(
    "external_identities",
    metadata,
    sa.Column("issuer", Id, primary_key=True),
    sa.Column("subject", Id, primary_key=True),
    sa.Column("user_id", Id, sa.ForeignKey(users.c.id), nullable=False),
    sa.Column("connected_at_us", Instant, nullable=False),
    sa.Index(None, "user_id"),
)

outbox_table = outbox.table(metadata)
leases_table = leases.table(metadata)
