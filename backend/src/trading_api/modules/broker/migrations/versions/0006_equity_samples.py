"""Equity over time, and when an account began (anew)."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    for name in ("begun_at_us", "sampled_sequence"):
        op.add_column(
            "accounts",
            sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"),
            schema="broker",
        )
    op.execute("UPDATE broker.accounts SET begun_at_us = opened_at_us")
    op.create_table(
        "equity_samples",
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("cash_minor", sa.BigInteger(), nullable=False),
        sa.Column("equity_minor", sa.BigInteger(), nullable=False),
        sa.Column("flows_minor", sa.BigInteger(), nullable=False),
        sa.Column("margin_minor", sa.BigInteger(), nullable=False),
        sa.Column("exposure_minor", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["broker.accounts.account_id"],
            name=op.f("fk_equity_samples_account_id_accounts"),
        ),
        sa.PrimaryKeyConstraint("account_id", "at_us", name=op.f("pk_equity_samples")),
        schema="broker",
    )
