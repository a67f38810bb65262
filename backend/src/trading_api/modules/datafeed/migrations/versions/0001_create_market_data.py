"""Create market data."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table('demo_market',
    sa.Column('id', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('anchor_at_us', sa.BigInteger(), nullable=False),
    sa.Column('seed', sa.Text(), nullable=False),
    sa.Column('seeded_at_us', sa.BigInteger(), nullable=False),
    sa.CheckConstraint('id = 1', name=op.f('ck_demo_market_one_row')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_demo_market')),
    schema='datafeed'
    )
    op.create_table('leases',
    sa.Column('name', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('owner', sa.Text(), nullable=False),
    sa.Column('fencing', sa.BigInteger(), nullable=False),
    sa.Column('expires_at_us', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_leases')),
    schema='datafeed'
    )
    op.create_table('series',
    sa.Column('id', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('resolution', sa.Text(), nullable=False),
    sa.Column('price_decimals', sa.Integer(), nullable=False),
    sa.Column('volume_decimals', sa.Integer(), nullable=False),
    sa.Column('bar_count', sa.Integer(), nullable=False),
    sa.Column('source', sa.Text(), nullable=False),
    sa.Column('source_sha256', sa.Text(), nullable=False),
    sa.Column('license', sa.Text(), nullable=False),
    sa.Column('loaded_at_us', sa.BigInteger(), nullable=False),
    sa.CheckConstraint('bar_count > 0', name=op.f('ck_series_bar_count_positive')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_series')),
    schema='datafeed'
    )
    op.create_table('bar_chunks',
    sa.Column('series_id', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('position', sa.Integer(), nullable=False),
    sa.Column('bar_count', sa.Integer(), nullable=False),
    sa.Column('first_at_us', sa.BigInteger(), nullable=False),
    sa.Column('last_at_us', sa.BigInteger(), nullable=False),
    sa.Column('columns', sa.LargeBinary(), nullable=False),
    sa.CheckConstraint('bar_count > 0', name=op.f('ck_bar_chunks_bar_count_positive')),
    sa.ForeignKeyConstraint(['series_id'], ['datafeed.series.id'], name=op.f('fk_bar_chunks_series_id_series')),
    sa.PrimaryKeyConstraint('series_id', 'position', name=op.f('pk_bar_chunks')),
    schema='datafeed'
    )
    op.create_table('instruments',
    sa.Column('exchange', sa.Text(), nullable=False),
    sa.Column('ticker', sa.Text(), nullable=False),
    sa.Column('description', sa.Text(), nullable=False),
    sa.Column('asset_class', sa.Text(), nullable=False),
    sa.Column('base_currency', sa.Text(), nullable=True),
    sa.Column('quote_currency', sa.Text(), nullable=False),
    sa.Column('price_decimals', sa.Integer(), nullable=False),
    sa.Column('volume_decimals', sa.Integer(), nullable=False),
    sa.Column('spread_ticks', sa.Integer(), nullable=False),
    sa.Column('ask_is_last', sa.Boolean(), nullable=False),
    sa.Column('quantity_step', sa.BigInteger(), nullable=False),
    sa.Column('quantity_max', sa.BigInteger(), nullable=False),
    sa.Column('lot_size', sa.BigInteger(), nullable=False),
    sa.Column('session', sa.Text(), nullable=False),
    sa.Column('time_zone', sa.Text(), nullable=False),
    sa.Column('series_id', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('tradable', sa.Boolean(), nullable=False),
    sa.Column('position', sa.Integer(), nullable=False),
    sa.CheckConstraint('price_decimals BETWEEN 0 AND 10', name=op.f('ck_instruments_price_decimals_range')),
    sa.CheckConstraint('quantity_step > 0', name=op.f('ck_instruments_quantity_step_positive')),
    sa.CheckConstraint('spread_ticks >= 0', name=op.f('ck_instruments_spread_not_negative')),
    sa.ForeignKeyConstraint(['series_id'], ['datafeed.series.id'], name=op.f('fk_instruments_series_id_series')),
    sa.PrimaryKeyConstraint('exchange', 'ticker', name=op.f('pk_instruments')),
    schema='datafeed'
    )
    op.create_table('splits',
    sa.Column('series_id', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('at_us', sa.BigInteger(), nullable=False),
    sa.Column('ratio', sa.Integer(), nullable=False),
    sa.CheckConstraint('ratio > 1', name=op.f('ck_splits_ratio_above_one')),
    sa.ForeignKeyConstraint(['series_id'], ['datafeed.series.id'], name=op.f('fk_splits_series_id_series')),
    sa.PrimaryKeyConstraint('series_id', 'at_us', name=op.f('pk_splits')),
    schema='datafeed'
    )
