"""Brackets, trailing stops, positions by id, slippage of executions."""

import sqlalchemy as sa
from alembic import op

from trading_api.ledger.tables import append_only_ddl

revision = "0004"
down_revision = "0003"

_LIVE = (
    "status IN ('ACCEPTED', 'HELD', 'PARTIALLY_FILLED', 'PENDING_CANCEL', 'PENDING_REPLACE', "
    "'TRIGGERED')"
)
_WITHIN = "price BETWEEN quote_bid - slippage AND quote_ask + slippage"
_POSITION_COLUMNS = (
    "account_id, symbol, price_scale, quantity_scale, multiplier, leverage, commission_ppm, "
    "currency, signed_quantity, cost, realized_minor, commission_minor, reserved_minor, "
    "financing_minor, last_price, opened_at_us, updated_at_us"
)
_EXECUTION_COLUMNS = (
    "execution_id, account_id, order_id, sequence, symbol, side, price_scale, quantity_scale, "
    "quantity, price, closed_quantity, signed_quantity_after, realized, realized_minor, "
    "commission_minor, currency, currency_scale, liquidity, quote_bid, quote_ask, "
    "quote_sequence, quote_at_us, executed_at_us"
)


def upgrade() -> None:
    for column in (
        sa.Column("position_id", _ID),
        sa.Column("active_at_us", sa.BigInteger()),
        sa.Column("ingest_sequence", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("post_only", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("trailing", sa.Text()),
        sa.Column("parent_id", _ID),
        sa.Column("parent_type", sa.Text()),
        sa.Column("bracket_role", sa.Text()),
        sa.Column("brackets", sa.Text()),
    ):
        op.add_column("orders", column, schema="broker")
    op.drop_index("ix_orders_open_of_account", table_name="orders", schema="broker")
    op.create_index(
        "ix_orders_live_of_account",
        "orders",
        ["account_id", "symbol"],
        schema="broker",
        sqlite_where=sa.text(_LIVE),
        postgresql_where=sa.text(_LIVE),
    )
    if op.get_bind().dialect.name == "postgresql":
        _upgrade_postgresql()
    else:
        _upgrade_sqlite()


def _upgrade_postgresql() -> None:
    # A default fills the rows that are there without an UPDATE, which executions refuse.
    for statement in (
        "ALTER TABLE broker.executions ADD COLUMN slippage BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE broker.executions ALTER COLUMN slippage DROP DEFAULT",
        'ALTER TABLE broker.executions ADD COLUMN position_id TEXT COLLATE "C"',
        "ALTER TABLE broker.executions DISABLE TRIGGER USER",
        "UPDATE broker.executions SET position_id = symbol",
        "ALTER TABLE broker.executions ENABLE TRIGGER USER",
        "ALTER TABLE broker.executions ALTER COLUMN position_id SET NOT NULL",
        "ALTER TABLE broker.executions DROP CONSTRAINT ck_executions_price_within_quote",
        "ALTER TABLE broker.executions ADD CONSTRAINT ck_executions_price_within_quote "
        f"CHECK ({_WITHIN})",
        "ALTER TABLE broker.executions ADD CONSTRAINT ck_executions_slippage_positive "
        "CHECK (slippage >= 0)",
        'ALTER TABLE broker.positions ADD COLUMN position_id TEXT COLLATE "C"',
        "UPDATE broker.positions SET position_id = symbol",
        "ALTER TABLE broker.positions ALTER COLUMN position_id SET NOT NULL",
        "ALTER TABLE broker.positions ADD COLUMN brackets TEXT",
        "ALTER TABLE broker.positions DROP CONSTRAINT pk_positions",
        "ALTER TABLE broker.positions ADD CONSTRAINT pk_positions "
        "PRIMARY KEY (account_id, position_id)",
        "ALTER TABLE broker.positions ADD CONSTRAINT ck_positions_reserved_once "
        "CHECK (reserved_minor = 0 OR position_id = symbol)",
        "ALTER TABLE broker.positions ADD CONSTRAINT ck_positions_flat_needs_no_brackets "
        "CHECK (brackets IS NULL OR signed_quantity <> 0)",
    ):
        op.execute(statement)


def _upgrade_sqlite() -> None:
    # SQLite can't change a key or a check; nothing refers to these two tables.
    op.create_table(
        "positions_new",
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("position_id", _ID, nullable=False),
        sa.Column("symbol", _ID, nullable=False),
        sa.Column("price_scale", sa.SmallInteger(), nullable=False),
        sa.Column("quantity_scale", sa.SmallInteger(), nullable=False),
        sa.Column("multiplier", sa.BigInteger(), nullable=False),
        sa.Column("leverage", sa.Integer(), nullable=False),
        sa.Column("commission_ppm", sa.Integer(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("signed_quantity", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("realized_minor", sa.BigInteger(), nullable=False),
        sa.Column("commission_minor", sa.BigInteger(), nullable=False),
        sa.Column("reserved_minor", sa.BigInteger(), nullable=False),
        sa.Column("last_price", sa.BigInteger(), nullable=False),
        sa.Column("financing_minor", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("opened_at_us", sa.BigInteger()),
        sa.Column("updated_at_us", sa.BigInteger(), nullable=False),
        sa.Column("brackets", sa.Text()),
        sa.CheckConstraint(
            "(signed_quantity = 0) = (opened_at_us IS NULL)",
            name=op.f("ck_positions_flat_is_not_open"),
        ),
        sa.CheckConstraint(
            "signed_quantity <> 0 OR cost = 0", name=op.f("ck_positions_flat_costs_nothing")
        ),
        sa.CheckConstraint(
            "signed_quantity >= 0 OR cost <= 0", name=op.f("ck_positions_short_cost_negative")
        ),
        sa.CheckConstraint(
            "signed_quantity <= 0 OR cost >= 0", name=op.f("ck_positions_long_cost_positive")
        ),
        sa.CheckConstraint("reserved_minor >= 0", name=op.f("ck_positions_reserved_positive")),
        sa.CheckConstraint(
            "reserved_minor = 0 OR position_id = symbol", name=op.f("ck_positions_reserved_once")
        ),
        sa.CheckConstraint(
            "brackets IS NULL OR signed_quantity <> 0",
            name=op.f("ck_positions_flat_needs_no_brackets"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["broker.accounts.account_id"],
            name=op.f("fk_positions_account_id_accounts"),
        ),
        sa.PrimaryKeyConstraint("account_id", "position_id", name=op.f("pk_positions")),
        schema="broker",
    )
    op.execute(
        f"INSERT INTO broker.positions_new (position_id, {_POSITION_COLUMNS}) "  # noqa: S608
        f"SELECT symbol, {_POSITION_COLUMNS} FROM broker.positions"
    )
    op.execute("DROP TABLE broker.positions")
    op.execute("ALTER TABLE broker.positions_new RENAME TO positions")
    op.create_table(
        "executions_new",
        sa.Column("execution_id", _ID, nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("order_id", _ID, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("symbol", _ID, nullable=False),
        sa.Column("side", sa.Text(), nullable=False),
        sa.Column("price_scale", sa.SmallInteger(), nullable=False),
        sa.Column("quantity_scale", sa.SmallInteger(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("price", sa.BigInteger(), nullable=False),
        sa.Column("slippage", sa.BigInteger(), nullable=False),
        sa.Column("position_id", _ID, nullable=False),
        sa.Column("closed_quantity", sa.BigInteger(), nullable=False),
        sa.Column("signed_quantity_after", sa.BigInteger(), nullable=False),
        sa.Column("realized", sa.BigInteger(), nullable=False),
        sa.Column("realized_minor", sa.BigInteger(), nullable=False),
        sa.Column("commission_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("currency_scale", sa.SmallInteger(), nullable=False),
        sa.Column("liquidity", sa.Text(), nullable=False),
        sa.Column("quote_bid", sa.BigInteger(), nullable=False),
        sa.Column("quote_ask", sa.BigInteger(), nullable=False),
        sa.Column("quote_sequence", sa.BigInteger(), nullable=False),
        sa.Column("quote_at_us", sa.BigInteger(), nullable=False),
        sa.Column("executed_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "closed_quantity BETWEEN 0 AND quantity", name=op.f("ck_executions_closed_within")
        ),
        sa.CheckConstraint("commission_minor >= 0", name=op.f("ck_executions_commission_positive")),
        sa.CheckConstraint(_WITHIN, name=op.f("ck_executions_price_within_quote")),
        sa.CheckConstraint("quantity > 0 AND price > 0", name=op.f("ck_executions_positive")),
        sa.CheckConstraint("slippage >= 0", name=op.f("ck_executions_slippage_positive")),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["broker.accounts.account_id"],
            name=op.f("fk_executions_account_id_accounts"),
        ),
        sa.ForeignKeyConstraint(
            ["order_id"], ["broker.orders.order_id"], name=op.f("fk_executions_order_id_orders")
        ),
        sa.PrimaryKeyConstraint("execution_id", name=op.f("pk_executions")),
        sa.UniqueConstraint("account_id", "sequence", name=op.f("uq_executions_account_id_sequence")),
        schema="broker",
    )
    op.execute(
        f"INSERT INTO broker.executions_new (slippage, position_id, {_EXECUTION_COLUMNS}) "  # noqa: S608
        f"SELECT 0, symbol, {_EXECUTION_COLUMNS} FROM broker.executions"
    )
    for trigger in ("tr_executions_no_update", "tr_executions_no_delete"):
        op.execute(f"DROP TRIGGER broker.{trigger}")
    op.execute("DROP TABLE broker.executions")
    op.execute("ALTER TABLE broker.executions_new RENAME TO executions")
    op.create_index("ix_executions_order_id", "executions", ["order_id"], schema="broker")
    for statement in append_only_ddl("sqlite", "broker", "executions"):
        op.execute(statement)


_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
