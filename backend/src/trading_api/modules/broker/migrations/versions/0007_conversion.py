"""Conversion between the currency of prices and the account's."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    for table in ("positions", "executions"):
        op.add_column(table, sa.Column("conversion", sa.Text(), nullable=True), schema="broker")
