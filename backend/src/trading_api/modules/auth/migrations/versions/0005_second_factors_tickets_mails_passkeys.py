"""Create second factors, recovery codes, tickets, mails and passkeys."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table('mails',
    sa.Column('id', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('recipient', sa.Text(), nullable=False),
    sa.Column('data', sa.Text(), nullable=False),
    sa.Column('created_at_us', sa.BigInteger(), nullable=False),
    sa.Column('due_at_us', sa.BigInteger(), nullable=True),
    sa.Column('attempts', sa.Integer(), nullable=False),
    sa.Column('outcome', sa.Text(), nullable=True),
    sa.Column('done_at_us', sa.BigInteger(), nullable=True),
    sa.CheckConstraint('(due_at_us IS NULL) = (outcome IS NOT NULL)', name=op.f('ck_mails_due_or_done')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_mails')),
    schema='auth'
    )
    op.create_index(op.f('ix_mails_done_at_us'), 'mails', ['done_at_us'], unique=False, schema='auth')
    op.create_index(op.f('ix_mails_due_at_us'), 'mails', ['due_at_us'], unique=False, schema='auth')
    op.create_table('passkeys',
    sa.Column('id', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('user_id', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('credential_id', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('public_key', sa.Text(), nullable=False),
    sa.Column('sign_count', sa.BigInteger(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('is_backed_up', sa.Boolean(), nullable=False),
    sa.Column('created_at_us', sa.BigInteger(), nullable=False),
    sa.Column('last_used_at_us', sa.BigInteger(), nullable=True),
    sa.ForeignKeyConstraint(['user_id'], ['auth.users.id'], name=op.f('fk_passkeys_user_id_users')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_passkeys')),
    sa.UniqueConstraint('credential_id', name=op.f('uq_passkeys_credential_id')),
    schema='auth'
    )
    op.create_index(op.f('ix_passkeys_user_id'), 'passkeys', ['user_id'], unique=False, schema='auth')
    op.create_table('recovery_codes',
    sa.Column('code_hash', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('user_id', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('used_at_us', sa.BigInteger(), nullable=True),
    sa.ForeignKeyConstraint(['user_id'], ['auth.users.id'], name=op.f('fk_recovery_codes_user_id_users')),
    sa.PrimaryKeyConstraint('code_hash', name=op.f('pk_recovery_codes')),
    schema='auth'
    )
    op.create_index(op.f('ix_recovery_codes_user_id'), 'recovery_codes', ['user_id'], unique=False, schema='auth')
    op.create_table('second_factors',
    sa.Column('user_id', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('sealed_secret', sa.Text(), nullable=True),
    sa.Column('enabled_at_us', sa.BigInteger(), nullable=True),
    sa.Column('last_step', sa.BigInteger(), nullable=True),
    sa.Column('generation', sa.Integer(), nullable=False),
    sa.CheckConstraint('(sealed_secret IS NULL) = (enabled_at_us IS NULL)', name=op.f('ck_second_factors_on_has_secret')),
    sa.ForeignKeyConstraint(['user_id'], ['auth.users.id'], name=op.f('fk_second_factors_user_id_users')),
    sa.PrimaryKeyConstraint('user_id', name=op.f('pk_second_factors')),
    schema='auth'
    )
    op.create_table('tickets',
    sa.Column('token_hash', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('purpose', sa.Text(), nullable=False),
    sa.Column('user_id', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=True),
    sa.Column('data', sa.Text(), nullable=False),
    sa.Column('created_at_us', sa.BigInteger(), nullable=False),
    sa.Column('expires_at_us', sa.BigInteger(), nullable=False),
    sa.Column('attempts', sa.Integer(), nullable=False),
    sa.Column('used_at_us', sa.BigInteger(), nullable=True),
    sa.ForeignKeyConstraint(['user_id'], ['auth.users.id'], name=op.f('fk_tickets_user_id_users')),
    sa.PrimaryKeyConstraint('token_hash', name=op.f('pk_tickets')),
    schema='auth'
    )
    op.create_index(op.f('ix_tickets_expires_at_us'), 'tickets', ['expires_at_us'], unique=False, schema='auth')
    op.create_index(op.f('ix_tickets_user_id_purpose'), 'tickets', ['user_id', 'purpose'], unique=False, schema='auth')
    op.add_column('users', sa.Column('email_verified_at_us', sa.BigInteger(), nullable=True), schema='auth')
    op.add_column('users', sa.Column('activated_at_us', sa.BigInteger(), nullable=True), schema='auth')
    op.add_column('users', sa.Column('has_short_password', sa.Boolean(), server_default=sa.false(), nullable=False), schema='auth')
    op.add_column('throttles', sa.Column('failure_count', sa.Integer(), server_default='0', nullable=False), schema='auth')
    # Whoever could sign in before still can.
    op.execute("UPDATE auth.users SET activated_at_us = created_at_us")
