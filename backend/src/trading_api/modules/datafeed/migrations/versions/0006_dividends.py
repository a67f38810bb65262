"""Dividends."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = '0005'


def upgrade() -> None:
    op.create_table('dividends',
    sa.Column('exchange', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('ticker', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('ex_at_us', sa.BigInteger(), nullable=False),
    sa.Column('amount', sa.BigInteger(), nullable=False),
    sa.CheckConstraint("exchange <> 'DEMO'", name=op.f('ck_dividends_not_on_demo')),
    sa.CheckConstraint('amount > 0', name=op.f('ck_dividends_amount_positive')),
    sa.CheckConstraint('ex_at_us % 86400000000 = 0', name=op.f('ck_dividends_ex_at_a_day')),
    sa.ForeignKeyConstraint(['exchange', 'ticker'], ['datafeed.instruments.exchange', 'datafeed.instruments.ticker'], name=op.f('fk_dividends_exchange_ticker_instruments')),
    sa.PrimaryKeyConstraint('exchange', 'ticker', 'ex_at_us', name=op.f('pk_dividends')),
    schema='datafeed'
    )
