"""Wallets and their ledger."""

import sqlalchemy as sa
from alembic import op

from trading_api.ledger.tables import ledger_guard_ddl

revision = "0001"
down_revision = None

_Id = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "idempotency",
        sa.Column("user_id", _Id, nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "operation", "key", name=op.f("pk_idempotency")),
        schema="wallet",
    )
    op.create_table(
        "inbox",
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("event_id", _Id, nullable=False),
        sa.Column("producer", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "event_id", name=op.f("pk_inbox")),
        schema="wallet",
    )
    op.create_index(
        "ix_inbox_producer_sequence",
        "inbox",
        ["producer", "sequence"],
        unique=False,
        schema="wallet",
    )
    op.create_table(
        "inbox_cursors",
        sa.Column("producer", _Id, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("producer", name=op.f("pk_inbox_cursors")),
        schema="wallet",
    )
    op.create_table(
        "inbox_dead_letters",
        sa.Column("event_id", _Id, nullable=False),
        sa.Column("producer", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("envelope", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("deliveries", sa.Integer(), nullable=False),
        sa.Column("failed_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_inbox_dead_letters")),
        schema="wallet",
    )
    op.create_table(
        "leases",
        sa.Column("name", _Id, nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("fencing", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
        schema="wallet",
    )
    op.create_table(
        "ledger_accounts",
        sa.Column("account_id", _Id, nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("owner_id", _Id, nullable=True),
        sa.Column("book", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("scale", sa.SmallInteger(), nullable=False),
        sa.Column("normal_side", sa.Text(), nullable=False),
        sa.Column("is_customer", sa.Boolean(), nullable=False),
        sa.Column("allows_negative", sa.Boolean(), nullable=False),
        sa.Column("balance_minor", sa.BigInteger(), nullable=False),
        sa.Column("held_minor", sa.BigInteger(), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.Column("last_hash", sa.Text(), nullable=True),
        sa.Column("last_posted_at_us", sa.BigInteger(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("book IN ('demo', 'funded')", name=op.f("ck_ledger_accounts_book")),
        sa.CheckConstraint(
            "normal_side IN ('DEBIT', 'CREDIT')", name=op.f("ck_ledger_accounts_normal_side")
        ),
        sa.CheckConstraint(
            "allows_negative OR balance_minor - held_minor >= 0",
            name=op.f("ck_ledger_accounts_available"),
        ),
        sa.CheckConstraint(
            "balance_minor BETWEEN -1000000000000000000 AND 1000000000000000000",
            name=op.f("ck_ledger_accounts_balance_range"),
        ),
        sa.CheckConstraint("held_minor >= 0", name=op.f("ck_ledger_accounts_held_not_negative")),
        sa.CheckConstraint(
            "is_customer = (owner_id IS NOT NULL)", name=op.f("ck_ledger_accounts_owner")
        ),
        sa.CheckConstraint(
            "is_customer OR (balance_minor = 0 AND held_minor = 0 AND last_sequence = 0 AND last_hash IS NULL AND last_posted_at_us = 0)",
            name=op.f("ck_ledger_accounts_house_has_no_state"),
        ),
        sa.CheckConstraint("scale BETWEEN 0 AND 8", name=op.f("ck_ledger_accounts_scale")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_ledger_accounts")),
        sa.UniqueConstraint(
            "account_id", "currency", name=op.f("uq_ledger_accounts_account_id_currency")
        ),
        schema="wallet",
    )
    op.create_index(
        op.f("ix_ledger_accounts_owner_id"),
        "ledger_accounts",
        ["owner_id"],
        unique=False,
        schema="wallet",
    )
    op.create_table(
        "ledger_entries",
        sa.Column("entry_id", _Id, nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("book", sa.Text(), nullable=False),
        sa.Column("reference", _Id, nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("reverses_entry_id", _Id, nullable=True),
        sa.Column("occurred_at_us", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("book IN ('demo', 'funded')", name=op.f("ck_ledger_entries_book")),
        sa.ForeignKeyConstraint(
            ["reverses_entry_id"],
            ["wallet.ledger_entries.entry_id"],
            name=op.f("fk_ledger_entries_reverses_entry_id_ledger_entries"),
        ),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_ledger_entries")),
        sa.UniqueConstraint("reverses_entry_id", name=op.f("uq_ledger_entries_reverses_entry_id")),
        schema="wallet",
    )
    op.create_index(
        op.f("ix_ledger_entries_reference"),
        "ledger_entries",
        ["reference"],
        unique=False,
        schema="wallet",
    )
    op.create_table(
        "outbox",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False),
            nullable=False,
        ),
        sa.Column("event_id", _Id, nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("key_sequence", sa.BigInteger(), nullable=True),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("occurred_at_us", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("causation_id", sa.Text(), nullable=True),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("event_id", name=op.f("uq_outbox_event_id")),
        sa.UniqueConstraint("sequence", name=op.f("uq_outbox_sequence")),
        schema="wallet",
    )
    op.create_table(
        "wallets",
        sa.Column("wallet_id", _Id, nullable=False),
        sa.Column("user_id", _Id, nullable=False),
        sa.Column("book", sa.Text(), nullable=False),
        sa.Column("epoch", _Id, nullable=False),
        sa.Column("last_event_sequence", sa.BigInteger(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("book IN ('demo', 'funded')", name=op.f("ck_wallets_book")),
        sa.CheckConstraint(
            "last_event_sequence >= 0", name=op.f("ck_wallets_last_event_sequence_not_negative")
        ),
        sa.PrimaryKeyConstraint("wallet_id", name=op.f("pk_wallets")),
        sa.UniqueConstraint("user_id", "book", name=op.f("uq_wallets_user_id_book")),
        schema="wallet",
    )
    op.create_table(
        "ledger_holds",
        sa.Column("hold_id", _Id, nullable=False),
        sa.Column("account_id", _Id, nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("captured_minor", sa.BigInteger(), nullable=False),
        sa.Column("entry_id", _Id, nullable=True),
        sa.Column("reference", _Id, nullable=True),
        sa.Column("expires_at_us", sa.BigInteger(), nullable=True),
        sa.Column("opened_at_us", sa.BigInteger(), nullable=False),
        sa.Column("closed_at_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "(state = 'pending') = (closed_at_us IS NULL)", name=op.f("ck_ledger_holds_closed")
        ),
        sa.CheckConstraint(
            "(state = 'posted') = (entry_id IS NOT NULL) AND (state = 'posted') = (captured_minor > 0)",
            name=op.f("ck_ledger_holds_posted"),
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'posted', 'voided', 'expired')",
            name=op.f("ck_ledger_holds_state"),
        ),
        sa.CheckConstraint(
            "amount_minor BETWEEN 1 AND 1000000000000000", name=op.f("ck_ledger_holds_amount_range")
        ),
        sa.CheckConstraint(
            "captured_minor BETWEEN 0 AND amount_minor", name=op.f("ck_ledger_holds_captured_range")
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "currency"],
            ["wallet.ledger_accounts.account_id", "wallet.ledger_accounts.currency"],
            name=op.f("fk_ledger_holds_account_id_currency_ledger_accounts"),
        ),
        sa.ForeignKeyConstraint(
            ["entry_id"],
            ["wallet.ledger_entries.entry_id"],
            name=op.f("fk_ledger_holds_entry_id_ledger_entries"),
        ),
        sa.PrimaryKeyConstraint("hold_id", name=op.f("pk_ledger_holds")),
        sa.UniqueConstraint("entry_id", name=op.f("uq_ledger_holds_entry_id")),
        schema="wallet",
    )
    op.create_index(
        "ix_ledger_holds_pending",
        "ledger_holds",
        ["account_id"],
        unique=False,
        schema="wallet",
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_table(
        "ledger_postings",
        sa.Column("entry_id", _Id, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("account_id", _Id, nullable=False),
        sa.Column("side", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("running_balance_minor", sa.BigInteger(), nullable=True),
        sa.Column("chain_hash", sa.Text(), nullable=True),
        sa.CheckConstraint("side IN ('DEBIT', 'CREDIT')", name=op.f("ck_ledger_postings_side")),
        sa.CheckConstraint(
            "(sequence IS NULL) = (running_balance_minor IS NULL) AND (sequence IS NULL) = (chain_hash IS NULL)",
            name=op.f("ck_ledger_postings_chained_or_not"),
        ),
        sa.CheckConstraint(
            "amount_minor BETWEEN 1 AND 1000000000000000",
            name=op.f("ck_ledger_postings_amount_range"),
        ),
        sa.CheckConstraint("sequence >= 1", name=op.f("ck_ledger_postings_sequence_positive")),
        sa.ForeignKeyConstraint(
            ["account_id", "currency"],
            ["wallet.ledger_accounts.account_id", "wallet.ledger_accounts.currency"],
            name=op.f("fk_ledger_postings_account_id_currency_ledger_accounts"),
        ),
        sa.ForeignKeyConstraint(
            ["entry_id"],
            ["wallet.ledger_entries.entry_id"],
            name=op.f("fk_ledger_postings_entry_id_ledger_entries"),
        ),
        sa.PrimaryKeyConstraint("entry_id", "position", name=op.f("pk_ledger_postings")),
        sa.UniqueConstraint(
            "account_id", "sequence", name=op.f("uq_ledger_postings_account_id_sequence")
        ),
        schema="wallet",
    )
    op.create_table(
        "wallet_events",
        sa.Column("wallet_id", _Id, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("account_id", _Id, nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("scale", sa.SmallInteger(), nullable=False),
        sa.Column("posting_sequence", sa.BigInteger(), nullable=True),
        sa.Column("balance_minor", sa.BigInteger(), nullable=False),
        sa.Column("held_minor", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "(kind = 'entry') = (posting_sequence IS NOT NULL)",
            name=op.f("ck_wallet_events_posting"),
        ),
        sa.CheckConstraint("kind IN ('entry', 'balance')", name=op.f("ck_wallet_events_kind")),
        sa.ForeignKeyConstraint(
            ["wallet_id"],
            ["wallet.wallets.wallet_id"],
            name=op.f("fk_wallet_events_wallet_id_wallets"),
        ),
        sa.PrimaryKeyConstraint("wallet_id", "sequence", name=op.f("pk_wallet_events")),
        schema="wallet",
    )
    op.create_table(
        "fundings",
        sa.Column("funding_id", _Id, nullable=False),
        sa.Column("wallet_id", _Id, nullable=False),
        sa.Column("user_id", _Id, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("scale", sa.SmallInteger(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("rail", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("hold_id", _Id, nullable=True),
        sa.Column("entry_id", _Id, nullable=True),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("closed_at_us", sa.BigInteger(), nullable=True),
        sa.Column("closed_by", _Id, nullable=True),
        sa.CheckConstraint(
            "(kind = 'WITHDRAWAL') = (hold_id IS NOT NULL)",
            name=op.f("ck_fundings_withdrawal_holds"),
        ),
        sa.CheckConstraint(
            "(state = 'pending') = (closed_at_us IS NULL)", name=op.f("ck_fundings_closed")
        ),
        sa.CheckConstraint(
            "(state = 'settled') = (entry_id IS NOT NULL)", name=op.f("ck_fundings_settled")
        ),
        sa.CheckConstraint("kind IN ('DEPOSIT', 'WITHDRAWAL')", name=op.f("ck_fundings_kind")),
        sa.CheckConstraint(
            "state IN ('pending', 'settled', 'refused')", name=op.f("ck_fundings_state")
        ),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_fundings_amount_positive")),
        sa.ForeignKeyConstraint(
            ["entry_id"],
            ["wallet.ledger_entries.entry_id"],
            name=op.f("fk_fundings_entry_id_ledger_entries"),
        ),
        sa.ForeignKeyConstraint(
            ["hold_id"],
            ["wallet.ledger_holds.hold_id"],
            name=op.f("fk_fundings_hold_id_ledger_holds"),
        ),
        sa.ForeignKeyConstraint(
            ["wallet_id"], ["wallet.wallets.wallet_id"], name=op.f("fk_fundings_wallet_id_wallets")
        ),
        sa.PrimaryKeyConstraint("funding_id", name=op.f("pk_fundings")),
        sa.UniqueConstraint("entry_id", name=op.f("uq_fundings_entry_id")),
        sa.UniqueConstraint("hold_id", name=op.f("uq_fundings_hold_id")),
        schema="wallet",
    )
    op.create_index(
        "ix_fundings_pending",
        "fundings",
        ["created_at_us"],
        unique=False,
        schema="wallet",
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    for statement in ledger_guard_ddl(op.get_bind().dialect.name, "wallet"):
        op.execute(statement)
