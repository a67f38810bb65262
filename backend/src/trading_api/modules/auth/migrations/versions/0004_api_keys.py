"""Create API keys and share tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table('api_keys',
    sa.Column('id', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('user_id', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('secret_hash', sa.Text(), nullable=False),
    sa.Column('scopes', sa.Text(), nullable=False),
    sa.Column('account_id', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=True),
    sa.Column('ip_allow', sa.Text(), nullable=False),
    sa.Column('created_at_us', sa.BigInteger(), nullable=False),
    sa.Column('expires_at_us', sa.BigInteger(), nullable=True),
    sa.Column('last_used_at_us', sa.BigInteger(), nullable=True),
    sa.Column('revoked_at_us', sa.BigInteger(), nullable=True),
    sa.Column('revoked_reason', sa.Text(), nullable=True),
    sa.CheckConstraint("(kind = 'share') = (account_id IS NOT NULL)", name=op.f('ck_api_keys_share_has_account')),
    sa.CheckConstraint("kind IN ('live', 'share')", name=op.f('ck_api_keys_kind_known')),
    sa.CheckConstraint('(revoked_at_us IS NULL) = (revoked_reason IS NULL)', name=op.f('ck_api_keys_revoked_has_reason')),
    sa.CheckConstraint('length(secret_hash) = 64', name=op.f('ck_api_keys_secret_is_hashed')),
    sa.ForeignKeyConstraint(['user_id'], ['auth.users.id'], name=op.f('fk_api_keys_user_id_users')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_api_keys')),
    schema='auth'
    )
    op.create_index(op.f('ix_api_keys_revoked_at_us'), 'api_keys', ['revoked_at_us'], unique=False, schema='auth')
    op.create_index(op.f('ix_api_keys_user_id'), 'api_keys', ['user_id'], unique=False, schema='auth')
