"""Financing: the last day charged per account, what each instrument has cost."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_DAY_US = 86_400_000_000


def upgrade() -> None:
    op.add_column(
        "accounts",
        sa.Column("financed_day", sa.Integer(), nullable=False, server_default="0"),
        schema="broker",
    )
    op.execute(f"UPDATE broker.accounts SET financed_day = opened_at_us / {_DAY_US}")
    op.add_column(
        "positions",
        sa.Column("financing_minor", sa.BigInteger(), nullable=False, server_default="0"),
        schema="broker",
    )
