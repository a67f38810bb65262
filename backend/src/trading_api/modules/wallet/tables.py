"""Tables of the wallet: wallets, fundings, each wallet's event stream, and the ledger's own."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from trading_api.ledger.tables import ledger_tables
from trading_api.runtime.database import (
    Id,
    Instant,
    Minor,
    idempotency,
    inbox,
    leases,
    module_metadata,
    outbox,
)

metadata = module_metadata("wallet")

ledger = ledger_tables(metadata)

wallets = Table(
    "wallets",
    metadata,
    Column("wallet_id", Id, primary_key=True),
    Column("user_id", Id, nullable=False),
    Column("book", Text, nullable=False),
    Column("epoch", Id, nullable=False),
    Column("last_event_sequence", BigInteger, nullable=False),
    Column("created_at_us", Instant, nullable=False),
    Column("frozen_at_us", Instant),
    Column("frozen_by", Id),
    Column("frozen_reason", Text),
    UniqueConstraint("user_id", "book"),
    CheckConstraint("book IN ('demo', 'funded')", "book"),
    CheckConstraint("last_event_sequence >= 0", "last_event_sequence_not_negative"),
)

wallet_events = Table(
    "wallet_events",
    metadata,
    Column("wallet_id", Id, ForeignKey(wallets.c.wallet_id), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("account_id", Id, nullable=False),
    Column("currency", Text, nullable=False),
    Column("scale", SmallInteger, nullable=False),
    Column("posting_sequence", BigInteger),
    Column("balance_minor", Minor, nullable=False),
    Column("held_minor", Minor, nullable=False),
    Column("recorded_at_us", Instant, nullable=False),
    Column("transfer_id", Id),
    Column("transfer_state", Text),
    CheckConstraint("kind IN ('entry', 'balance', 'transfer')", "kind"),
    CheckConstraint("(kind = 'entry') = (posting_sequence IS NOT NULL)", "posting"),
    CheckConstraint(
        "(kind = 'transfer') = (transfer_id IS NOT NULL)"
        " AND (transfer_id IS NULL) = (transfer_state IS NULL)",
        "transfer",
    ),
)

fundings = Table(
    "fundings",
    metadata,
    Column("funding_id", Id, primary_key=True),
    Column("wallet_id", Id, ForeignKey(wallets.c.wallet_id), nullable=False),
    Column("user_id", Id, nullable=False),
    Column("kind", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("scale", SmallInteger, nullable=False),
    Column("amount_minor", Minor, nullable=False),
    Column("rail", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("hold_id", Id, ForeignKey(ledger.holds.c.hold_id), unique=True),
    Column("entry_id", Id, ForeignKey(ledger.entries.c.entry_id), unique=True),
    Column("created_at_us", Instant, nullable=False),
    Column("closed_at_us", Instant),
    Column("closed_by", Id),
    Column("destination", Text),
    Column("not_before_at_us", Instant),
    Column("confirm_by_at_us", Instant),
    CheckConstraint("kind IN ('DEPOSIT', 'WITHDRAWAL')", "kind"),
    CheckConstraint(
        "state IN ('unconfirmed', 'pending', 'settled', 'refused', 'canceled', 'expired')", "state"
    ),
    CheckConstraint("amount_minor > 0", "amount_positive"),
    CheckConstraint("(state IN ('unconfirmed', 'pending')) = (closed_at_us IS NULL)", "closed"),
    CheckConstraint("(state = 'settled') = (entry_id IS NOT NULL)", "settled"),
    CheckConstraint("(kind = 'WITHDRAWAL') = (hold_id IS NOT NULL)", "withdrawal_holds"),
    Index(
        "ix_fundings_pending",
        "created_at_us",
        sqlite_where=text("state = 'pending'"),
        postgresql_where=text("state = 'pending'"),
    ),
    Index(
        "ix_fundings_open",
        "wallet_id",
        sqlite_where=text("closed_at_us IS NULL"),
        postgresql_where=text("closed_at_us IS NULL"),
    ),
)

destinations = Table(
    "destinations",
    metadata,
    Column("wallet_id", Id, ForeignKey(wallets.c.wallet_id), primary_key=True),
    Column("destination", Text, primary_key=True),
    Column("first_asked_at_us", Instant, nullable=False),
)

transfers = Table(
    "transfers",
    metadata,
    Column("transfer_id", Id, primary_key=True),
    Column("wallet_id", Id, ForeignKey(wallets.c.wallet_id), nullable=False),
    Column("user_id", Id, nullable=False),
    Column("book", Text, nullable=False),
    Column("client_transfer_id", Id),
    Column("account_id", Id, nullable=False),
    Column("direction", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("scale", SmallInteger, nullable=False),
    Column("amount_minor", Minor, nullable=False),
    Column("state", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("failure_code", Text),
    Column("failure", Text),
    Column("entry_id", Id, ForeignKey(ledger.entries.c.entry_id), unique=True),
    Column("created_at_us", Instant, nullable=False),
    Column("expires_at_us", Instant, nullable=False),
    Column("closed_at_us", Instant),
    UniqueConstraint("user_id", "client_transfer_id"),
    CheckConstraint("book IN ('demo', 'funded')", "book"),
    CheckConstraint("direction IN ('to_account', 'to_wallet')", "direction"),
    CheckConstraint(
        "state IN ('pending', 'credited', 'releasing', 'completed', 'failed', 'expired')", "state"
    ),
    CheckConstraint("amount_minor > 0", "amount_positive"),
    CheckConstraint("state <> 'credited' OR direction = 'to_wallet'", "credited"),
    CheckConstraint(
        "(state IN ('completed', 'failed', 'expired')) = (closed_at_us IS NOT NULL)", "closed"
    ),
    CheckConstraint("(state IN ('completed', 'credited')) = (entry_id IS NOT NULL)", "entry"),
    CheckConstraint(
        "(state IN ('releasing', 'failed', 'expired')) = (failure_code IS NOT NULL)", "failure"
    ),
    Index("ix_transfers_user_id_transfer_id", "user_id", "transfer_id"),
    Index("ix_transfers_wallet_id_created_at_us", "wallet_id", "created_at_us"),
    Index(
        "ix_transfers_open",
        "transfer_id",
        sqlite_where=text("closed_at_us IS NULL"),
        postgresql_where=text("closed_at_us IS NULL"),
    ),
)

operator_acts = Table(
    "operator_acts",
    metadata,
    Column("act_id", Id, primary_key=True),
    Column("done_by", Id, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Id, nullable=False),
    Column("reason", Text, nullable=False),
    Column("recorded_at_us", Instant, nullable=False),
    CheckConstraint(
        "kind IN ('hold_opened', 'hold_captured', 'hold_voided', 'wallet_frozen',"
        " 'wallet_unfrozen', 'entry_reversed')",
        "kind",
    ),
    Index("ix_operator_acts_subject_act_id", "subject", "act_id"),
)

outbox_table = outbox.table(metadata)
inbox_table = inbox.table(metadata)
leases_table = leases.table(metadata)
idempotency_table = idempotency.table(metadata)
