"""Account modes, kill switches, leverage, order pace and notices."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_STATES = "('ACTIVE', 'HALTED', 'REDUCE_ONLY')"
_KINDS = "kind IN ('order', 'execution', 'position', 'cash', 'notice')"


def upgrade() -> None:
    op.create_table(
        "controls",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("changed_by", _ID, nullable=False),
        sa.Column("changed_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(f"state IN {_STATES}", name=op.f("ck_controls_state")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_controls")),
        schema="broker",
    )
    # As text, since a column with its own check is what both databases can add to a table.
    for column in (
        "starting_cash_minor BIGINT NOT NULL DEFAULT 0",
        "position_mode TEXT NOT NULL DEFAULT 'NETTING' CONSTRAINT ck_accounts_position_mode "
        "CHECK (position_mode IN ('HEDGING', 'NETTING'))",
        "trading_state TEXT NOT NULL DEFAULT 'ACTIVE' CONSTRAINT ck_accounts_trading_state "
        f"CHECK (trading_state IN {_STATES})",
        "leverages TEXT NOT NULL DEFAULT '{}'",
        "pace_us BIGINT NOT NULL DEFAULT 0",
        "margin_called_at_us BIGINT",
    ):
        op.execute(f"ALTER TABLE broker.accounts ADD COLUMN {column}")
    # What an account was opened with is its first posting.
    op.execute(
        "UPDATE broker.accounts SET starting_cash_minor = COALESCE((SELECT p.amount_minor "
        "FROM broker.ledger_postings p WHERE p.entry_id = 'opening_' || accounts.account_id "
        "AND p.account_id = accounts.account_id || ':' || accounts.currency), 0)"
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE broker.account_events DROP CONSTRAINT ck_account_events_kind")
        op.execute(
            "ALTER TABLE broker.account_events "
            f"ADD CONSTRAINT ck_account_events_kind CHECK ({_KINDS})"
        )
        return
    op.create_table(
        "account_events_new",
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("occurred_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(_KINDS, name=op.f("ck_account_events_kind")),
        sa.CheckConstraint("sequence >= 1", name=op.f("ck_account_events_sequence_positive")),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["broker.accounts.account_id"],
            name=op.f("fk_account_events_account_id_accounts"),
        ),
        sa.PrimaryKeyConstraint("account_id", "sequence", name=op.f("pk_account_events")),
        schema="broker",
    )
    op.execute("INSERT INTO broker.account_events_new SELECT * FROM broker.account_events")
    op.execute("DROP TABLE broker.account_events")
    op.execute("ALTER TABLE broker.account_events_new RENAME TO account_events")


_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
