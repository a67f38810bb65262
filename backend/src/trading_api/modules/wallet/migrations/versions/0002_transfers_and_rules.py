"""Transfers, frozen wallets, destinations, confirmed withdrawals, transfers in event streams."""

import sqlalchemy as sa
from alembic import op

from trading_api.runtime.database.schema import Id

revision = "0002"
down_revision = "0001"

_EVENT_COLUMNS = (
    "wallet_id, sequence, kind, account_id, currency, scale, posting_sequence, balance_minor,"
    " held_minor, recorded_at_us"
)
_EVENT_CHECKS = {
    "kind": "kind IN ('entry', 'balance', 'transfer')",
    "posting": "(kind = 'entry') = (posting_sequence IS NOT NULL)",
    "transfer": "(kind = 'transfer') = (transfer_id IS NOT NULL)"
    " AND (transfer_id IS NULL) = (transfer_state IS NULL)",
}
_FUNDING_COLUMNS = (
    "funding_id, wallet_id, user_id, kind, currency, scale, amount_minor, rail, state, description,"
    " hold_id, entry_id, created_at_us, closed_at_us, closed_by"
)
_FUNDING_CHECKS = {
    "kind": "kind IN ('DEPOSIT', 'WITHDRAWAL')",
    "state": "state IN ('unconfirmed', 'pending', 'settled', 'refused', 'canceled', 'expired')",
    "amount_positive": "amount_minor > 0",
    "closed": "(state IN ('unconfirmed', 'pending')) = (closed_at_us IS NULL)",
    "settled": "(state = 'settled') = (entry_id IS NOT NULL)",
    "withdrawal_holds": "(kind = 'WITHDRAWAL') = (hold_id IS NOT NULL)",
}


def upgrade() -> None:
    for column in (
        sa.Column("frozen_at_us", sa.BigInteger()),
        sa.Column("frozen_by", Id),
        sa.Column("frozen_reason", sa.Text()),
    ):
        op.add_column("wallets", column, schema="wallet")
    if op.get_bind().dialect.name == "sqlite":
        _rebuild_events()
        _rebuild_fundings()
    else:
        for column in (sa.Column("transfer_id", Id), sa.Column("transfer_state", sa.Text())):
            op.add_column("wallet_events", column, schema="wallet")
        for column in (
            sa.Column("destination", sa.Text()),
            sa.Column("not_before_at_us", sa.BigInteger()),
            sa.Column("confirm_by_at_us", sa.BigInteger()),
        ):
            op.add_column("fundings", column, schema="wallet")
        op.drop_constraint("ck_wallet_events_kind", "wallet_events", schema="wallet")
        op.drop_constraint("ck_fundings_state", "fundings", schema="wallet")
        op.drop_constraint("ck_fundings_closed", "fundings", schema="wallet")
        for table, checks, names in (
            ("wallet_events", _EVENT_CHECKS, ("kind", "transfer")),
            ("fundings", _FUNDING_CHECKS, ("state", "closed")),
        ):
            for name in names:
                op.create_check_constraint(
                    op.f(f"ck_{table}_{name}"), table, checks[name], schema="wallet"
                )
    op.create_index(
        "ix_fundings_open",
        "fundings",
        ["wallet_id"],
        schema="wallet",
        sqlite_where=sa.text("closed_at_us IS NULL"),
        postgresql_where=sa.text("closed_at_us IS NULL"),
    )
    op.create_table(
        "destinations",
        sa.Column("wallet_id", Id, nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("first_asked_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["wallet_id"],
            ["wallet.wallets.wallet_id"],
            name=op.f("fk_destinations_wallet_id_wallets"),
        ),
        sa.PrimaryKeyConstraint("wallet_id", "destination", name=op.f("pk_destinations")),
        schema="wallet",
    )
    _create_transfers()


def _create_transfers() -> None:
    checks = {
        "book": "book IN ('demo', 'funded')",
        "direction": "direction IN ('to_account', 'to_wallet')",
        "state": "state IN"
        " ('pending', 'credited', 'releasing', 'completed', 'failed', 'expired')",
        "amount_positive": "amount_minor > 0",
        "credited": "state <> 'credited' OR direction = 'to_wallet'",
        "closed": "(state IN ('completed', 'failed', 'expired')) = (closed_at_us IS NOT NULL)",
        "entry": "(state IN ('completed', 'credited')) = (entry_id IS NOT NULL)",
        "failure": "(state IN ('releasing', 'failed', 'expired')) = (failure_code IS NOT NULL)",
    }
    op.create_table(
        "transfers",
        sa.Column("transfer_id", Id, nullable=False),
        sa.Column("wallet_id", Id, nullable=False),
        sa.Column("user_id", Id, nullable=False),
        sa.Column("book", sa.Text(), nullable=False),
        sa.Column("client_transfer_id", Id),
        sa.Column("account_id", Id, nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("scale", sa.SmallInteger(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("failure_code", sa.Text()),
        sa.Column("failure", sa.Text()),
        sa.Column("entry_id", Id),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_us", sa.BigInteger(), nullable=False),
        sa.Column("closed_at_us", sa.BigInteger()),
        *(
            sa.CheckConstraint(check, name=op.f(f"ck_transfers_{name}"))
            for name, check in checks.items()
        ),
        sa.ForeignKeyConstraint(
            ["entry_id"],
            ["wallet.ledger_entries.entry_id"],
            name=op.f("fk_transfers_entry_id_ledger_entries"),
        ),
        sa.ForeignKeyConstraint(
            ["wallet_id"], ["wallet.wallets.wallet_id"], name=op.f("fk_transfers_wallet_id_wallets")
        ),
        sa.PrimaryKeyConstraint("transfer_id", name=op.f("pk_transfers")),
        sa.UniqueConstraint("entry_id", name=op.f("uq_transfers_entry_id")),
        sa.UniqueConstraint(
            "user_id", "client_transfer_id", name=op.f("uq_transfers_user_id_client_transfer_id")
        ),
        schema="wallet",
    )
    op.create_index(
        "ix_transfers_user_id_transfer_id", "transfers", ["user_id", "transfer_id"], schema="wallet"
    )
    op.create_index(
        "ix_transfers_open",
        "transfers",
        ["transfer_id"],
        schema="wallet",
        sqlite_where=sa.text("closed_at_us IS NULL"),
        postgresql_where=sa.text("closed_at_us IS NULL"),
    )


def _checks(table: str, checks: dict[str, str]) -> list[sa.CheckConstraint]:
    return [
        sa.CheckConstraint(check, name=op.f(f"ck_{table}_{name}")) for name, check in checks.items()
    ]


def _rebuild_events() -> None:
    # SQLite can't change a table's constraints; nothing refers to this one.
    op.execute("ALTER TABLE wallet.wallet_events RENAME TO wallet_events_old")
    op.create_table(
        "wallet_events",
        sa.Column("wallet_id", Id, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("account_id", Id, nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("scale", sa.SmallInteger(), nullable=False),
        sa.Column("posting_sequence", sa.BigInteger()),
        sa.Column("balance_minor", sa.BigInteger(), nullable=False),
        sa.Column("held_minor", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.Column("transfer_id", Id),
        sa.Column("transfer_state", sa.Text()),
        *_checks("wallet_events", _EVENT_CHECKS),
        sa.ForeignKeyConstraint(
            ["wallet_id"],
            ["wallet.wallets.wallet_id"],
            name=op.f("fk_wallet_events_wallet_id_wallets"),
        ),
        sa.PrimaryKeyConstraint("wallet_id", "sequence", name=op.f("pk_wallet_events")),
        schema="wallet",
    )
    op.execute(
        f"INSERT INTO wallet.wallet_events ({_EVENT_COLUMNS})"
        f" SELECT {_EVENT_COLUMNS} FROM wallet.wallet_events_old"
    )
    op.execute("DROP TABLE wallet.wallet_events_old")


def _rebuild_fundings() -> None:
    op.execute("DROP INDEX wallet.ix_fundings_pending")
    op.execute("ALTER TABLE wallet.fundings RENAME TO fundings_old")
    op.create_table(
        "fundings",
        sa.Column("funding_id", Id, nullable=False),
        sa.Column("wallet_id", Id, nullable=False),
        sa.Column("user_id", Id, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("scale", sa.SmallInteger(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("rail", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("hold_id", Id),
        sa.Column("entry_id", Id),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("closed_at_us", sa.BigInteger()),
        sa.Column("closed_by", Id),
        sa.Column("destination", sa.Text()),
        sa.Column("not_before_at_us", sa.BigInteger()),
        sa.Column("confirm_by_at_us", sa.BigInteger()),
        *_checks("fundings", _FUNDING_CHECKS),
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
    op.execute(
        f"INSERT INTO wallet.fundings ({_FUNDING_COLUMNS})"
        f" SELECT {_FUNDING_COLUMNS} FROM wallet.fundings_old"
    )
    op.execute("DROP TABLE wallet.fundings_old")
    op.create_index(
        "ix_fundings_pending",
        "fundings",
        ["created_at_us"],
        schema="wallet",
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
