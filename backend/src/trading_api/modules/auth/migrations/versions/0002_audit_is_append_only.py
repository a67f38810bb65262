"""Let nobody change what the audit holds."""

from alembic import op

revision = "0002"
down_revision = "0001"

SQLITE = """
CREATE TRIGGER auth.audit_no_{name} BEFORE {name} ON audit
BEGIN SELECT RAISE(ABORT, 'auth.audit is append-only'); END
"""
POSTGRESQL_FUNCTION = """
CREATE FUNCTION auth.audit_refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'auth.audit is append-only'; END $$
"""
POSTGRESQL_TRIGGER = """
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON auth.audit
FOR EACH STATEMENT EXECUTE FUNCTION auth.audit_refuse()
"""


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute(SQLITE.format(name="update"))
        op.execute(SQLITE.format(name="delete"))
    else:
        op.execute(POSTGRESQL_FUNCTION)
        op.execute(POSTGRESQL_TRIGGER)
