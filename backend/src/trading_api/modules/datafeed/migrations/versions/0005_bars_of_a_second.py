"""Bars of a second."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = '0004'


def upgrade() -> None:
    op.create_table('second_bars',
    sa.Column('series_id', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('minute_at_us', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('bar_count', sa.Integer(), nullable=False),
    sa.Column('columns', sa.LargeBinary(), nullable=False),
    sa.CheckConstraint('bar_count BETWEEN 1 AND 60', name=op.f('ck_second_bars_bar_count_range')),
    sa.PrimaryKeyConstraint('series_id', 'minute_at_us', name=op.f('pk_second_bars')),
    schema='datafeed'
    )
