"""Saved charts."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = '0003'


def upgrade() -> None:
    op.create_table('chart_layouts',
    sa.Column('id', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('user_id', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('client', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('symbol', sa.Text(), nullable=False),
    sa.Column('resolution', sa.Text(), nullable=False),
    sa.Column('content', sa.Text(), nullable=False),
    sa.Column('saved_at_us', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_chart_layouts')),
    schema='datafeed'
    )
    op.create_index('ix_chart_layouts_user_id', 'chart_layouts', ['user_id'], unique=False, schema='datafeed')
    op.create_table('chart_templates',
    sa.Column('user_id', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('client', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('tool', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('name', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('content', sa.Text(), nullable=False),
    sa.Column('saved_at_us', sa.BigInteger(), nullable=False),
    sa.CheckConstraint("kind IN ('study', 'drawing')", name=op.f('ck_chart_templates_kind_known')),
    sa.PrimaryKeyConstraint('user_id', 'client', 'kind', 'tool', 'name', name=op.f('pk_chart_templates')),
    schema='datafeed'
    )
