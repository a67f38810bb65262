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
    CheckConstraint("kind IN ('entry', 'balance')", "kind"),
    CheckConstraint("(kind = 'entry') = (posting_sequence IS NOT NULL)", "posting"),
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
    CheckConstraint("kind IN ('DEPOSIT', 'WITHDRAWAL')", "kind"),
    CheckConstraint("state IN ('pending', 'settled', 'refused')", "state"),
    CheckConstraint("amount_minor > 0", "amount_positive"),
    CheckConstraint("(state = 'pending') = (closed_at_us IS NULL)", "closed"),
    CheckConstraint("(state = 'settled') = (entry_id IS NOT NULL)", "settled"),
    CheckConstraint("(kind = 'WITHDRAWAL') = (hold_id IS NOT NULL)", "withdrawal_holds"),
    Index(
        "ix_fundings_pending",
        "created_at_us",
        sqlite_where=text("state = 'pending'"),
        postgresql_where=text("state = 'pending'"),
    ),
)

outbox_table = outbox.table(metadata)
inbox_table = inbox.table(metadata)
leases_table = leases.table(metadata)
idempotency_table = idempotency.table(metadata)
