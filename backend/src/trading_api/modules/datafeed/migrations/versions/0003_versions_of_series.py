"""Versions of series, and imports."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    text_id = sa.Text().with_variant(sa.Text(collation='C'), 'postgresql')
    op.create_table('imports',
    sa.Column('id', text_id, nullable=False),
    sa.Column('series_id', text_id, nullable=False),
    sa.Column('version', sa.BigInteger(), nullable=False),
    sa.Column('resolution', sa.Text(), nullable=False),
    sa.Column('price_decimals', sa.Integer(), nullable=False),
    sa.Column('volume_decimals', sa.Integer(), nullable=False),
    sa.Column('source', sa.Text(), nullable=False),
    sa.Column('source_sha256', sa.Text(), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('position', sa.BigInteger(), nullable=False),
    sa.Column('line', sa.BigInteger(), nullable=False),
    sa.Column('last_at_us', sa.BigInteger(), nullable=True),
    sa.Column('last_close', sa.BigInteger(), nullable=True),
    sa.Column('chunk_count', sa.Integer(), nullable=False),
    sa.Column('bar_count', sa.BigInteger(), nullable=False),
    sa.Column('bad_count', sa.BigInteger(), nullable=False),
    sa.Column('bad_lines', sa.Text(), nullable=False),
    sa.Column('started_at_us', sa.BigInteger(), nullable=False),
    sa.Column('changed_at_us', sa.BigInteger(), nullable=False),
    sa.CheckConstraint("state IN ('RUNNING', 'DONE', 'REFUSED')", name=op.f('ck_imports_state_known')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_imports')),
    sa.UniqueConstraint('series_id', 'version', name=op.f('uq_imports_series_id_version')),
    schema='datafeed'
    )
    op.create_table('series_chunks',
    sa.Column('series_id', text_id, nullable=False),
    sa.Column('version', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('position', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('bar_count', sa.Integer(), nullable=False),
    sa.Column('first_at_us', sa.BigInteger(), nullable=False),
    sa.Column('last_at_us', sa.BigInteger(), nullable=False),
    sa.Column('columns', sa.LargeBinary(), nullable=False),
    sa.CheckConstraint('bar_count > 0', name=op.f('ck_series_chunks_bar_count_positive')),
    sa.PrimaryKeyConstraint('series_id', 'version', 'position', name=op.f('pk_series_chunks')),
    schema='datafeed'
    )
    op.execute(
        "INSERT INTO datafeed.series_chunks"
        " (series_id, version, position, bar_count, first_at_us, last_at_us, columns)"
        " SELECT series_id, 1, position, bar_count, first_at_us, last_at_us, columns"
        " FROM datafeed.bar_chunks"
    )
    op.drop_table('bar_chunks', schema='datafeed')
    op.add_column(
        'series',
        sa.Column('version', sa.BigInteger(), server_default='1', nullable=False),
        schema='datafeed',
    )
