"""Chain the audit's rows, and say what a change was made to."""

import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

FIRST_HASH = "0" * 64

SQLITE = """
CREATE TRIGGER auth.audit_entries_no_{name} BEFORE {name} ON audit_entries
BEGIN SELECT RAISE(ABORT, 'auth.audit_entries is append-only'); END
"""
POSTGRESQL_FUNCTION = """
CREATE FUNCTION auth.audit_entries_refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'auth.audit_entries is append-only'; END $$
"""
POSTGRESQL_TRIGGER = """
CREATE TRIGGER audit_entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON auth.audit_entries
FOR EACH STATEMENT EXECUTE FUNCTION auth.audit_entries_refuse()
"""


def upgrade() -> None:
    text_id = sa.Text().with_variant(sa.Text(collation='C'), 'postgresql')
    entries = op.create_table('audit_entries',
    sa.Column('sequence', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('occurred_at_us', sa.BigInteger(), nullable=False),
    sa.Column('actor_id', text_id, nullable=True),
    sa.Column('session_id', text_id, nullable=True),
    sa.Column('address', sa.Text(), nullable=False),
    sa.Column('action', sa.Text(), nullable=False),
    sa.Column('outcome', sa.Text(), nullable=False),
    sa.Column('object', text_id, nullable=True),
    sa.Column('detail', sa.Text(), nullable=False),
    sa.Column('before_hash', text_id, nullable=True),
    sa.Column('after_hash', text_id, nullable=True),
    sa.Column('request_id', sa.Text(), nullable=True),
    sa.Column('hash', text_id, nullable=False),
    sa.PrimaryKeyConstraint('sequence', name=op.f('pk_audit_entries')),
    schema='auth'
    )
    op.create_index(op.f('ix_audit_entries_actor_id'), 'audit_entries', ['actor_id'], unique=False, schema='auth')
    op.create_index(op.f('ix_audit_entries_object'), 'audit_entries', ['object'], unique=False, schema='auth')
    head = op.create_table('audit_head',
    sa.Column('id', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('sequence', sa.BigInteger(), nullable=False),
    sa.Column('hash', text_id, nullable=False),
    sa.CheckConstraint('id = 1', name=op.f('ck_audit_head_one_row')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_audit_head')),
    schema='auth'
    )
    connection = op.get_bind()
    sequence, digest = 0, FIRST_HASH
    kept = connection.execute(sa.text(
        "SELECT occurred_at_us, actor_id, session_id, address, action, outcome, object, request_id "
        "FROM auth.audit ORDER BY id"
    )).mappings().all()
    for row in kept:
        sequence += 1
        columns = {**row, 'sequence': sequence, 'object': None, 'detail': row['object'] or '',
                   'before_hash': None, 'after_hash': None}
        text = json.dumps(columns, sort_keys=True, separators=(',', ':'), ensure_ascii=True)
        digest = hashlib.sha256((digest + '\n' + text).encode()).hexdigest()
        connection.execute(entries.insert(), {**columns, 'hash': digest})
    connection.execute(head.insert(), {'id': 1, 'sequence': sequence, 'hash': digest})
    if connection.dialect.name == "sqlite":
        op.execute("DROP TRIGGER auth.audit_no_update")
        op.execute("DROP TRIGGER auth.audit_no_delete")
        op.drop_index('ix_audit_actor_id', table_name='audit', schema='auth')
        op.drop_table('audit', schema='auth')
        op.execute(SQLITE.format(name="update"))
        op.execute(SQLITE.format(name="delete"))
    else:
        op.drop_index('ix_audit_actor_id', table_name='audit', schema='auth')
        op.drop_table('audit', schema='auth')
        op.execute("DROP FUNCTION auth.audit_refuse()")
        op.execute(POSTGRESQL_FUNCTION)
        op.execute(POSTGRESQL_TRIGGER)
