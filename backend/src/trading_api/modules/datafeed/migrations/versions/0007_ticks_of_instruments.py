"""Smallest steps of prices that aren't one unit of the last decimal."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = '0006'


def upgrade() -> None:
    op.add_column('instruments', sa.Column('tick', sa.BigInteger(), server_default='1', nullable=False), schema='datafeed')
