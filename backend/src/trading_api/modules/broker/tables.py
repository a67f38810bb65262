"""The broker's tables; prices and quantities are integers of the scales in the same row."""

import sqlalchemy as sa

from trading_api.ledger.tables import ledger_tables
from trading_api.modules.broker.domain.account import PositionMode, TradingState
from trading_api.modules.broker.domain.order import CLOSED, LIVE, OPEN, OrderStatus
from trading_api.runtime.database import (
    Id,
    Instant,
    Minor,
    idempotency,
    inbox,
    leases,
    module_metadata,
    outbox,
)

metadata = module_metadata("broker")

outbox_table = outbox.table(metadata)
inbox_table = inbox.table(metadata)
leases_table = leases.table(metadata)
idempotency_table = idempotency.table(metadata)
ledger = ledger_tables(metadata)


def _one_of(column: str, values: list[str]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in sorted(values))})"


_IS_LIVE = _one_of("status", [status.value for status in LIVE])
_IS_OPEN = _one_of("status", [status.value for status in OPEN])

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("account_id", Id, primary_key=True),
    sa.Column("user_id", Id, nullable=False),
    sa.Column("ordinal", sa.Integer, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("book", sa.Text, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("epoch", Id, nullable=False),
    sa.Column("event_sequence", sa.BigInteger, nullable=False),
    sa.Column("fact_sequence", sa.BigInteger, nullable=False),
    sa.Column("opened_at_us", Instant, nullable=False),
    sa.Column("starting_cash_minor", Minor, nullable=False),
    sa.Column("position_mode", sa.Text, nullable=False),
    sa.Column("trading_state", sa.Text, nullable=False),
    sa.Column("leverages", sa.Text, nullable=False),
    sa.Column("pace_us", sa.BigInteger, nullable=False),
    sa.Column("margin_called_at_us", Instant),
    sa.Column("financed_day", sa.Integer, nullable=False),
    sa.Column("begun_at_us", Instant, nullable=False),
    sa.Column("sampled_sequence", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("user_id", "ordinal"),
    sa.CheckConstraint("ordinal >= 1", name="ordinal_positive"),
    sa.CheckConstraint("book IN ('demo', 'funded')", name="book_known"),
    sa.CheckConstraint("event_sequence >= 0 AND fact_sequence >= 0", name="sequences_positive"),
    sa.CheckConstraint(_one_of("position_mode", [*PositionMode]), name="position_mode"),
    sa.CheckConstraint(_one_of("trading_state", [*TradingState]), name="trading_state"),
)

controls = sa.Table(
    "controls",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("changed_by", Id, nullable=False),
    sa.Column("changed_at_us", Instant, nullable=False),
    sa.CheckConstraint(_one_of("state", [*TradingState]), name="state"),
)

PLATFORM = "platform"
"""The one control there is: the platform's kill switch."""

orders = sa.Table(
    "orders",
    metadata,
    sa.Column("order_id", Id, primary_key=True),
    sa.Column("account_id", Id, sa.ForeignKey(accounts.c.account_id), nullable=False),
    sa.Column("client_order_id", Id),
    sa.Column("ticket", sa.Text, nullable=False),
    sa.Column("symbol", Id, nullable=False),
    sa.Column("side", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("time_in_force", sa.Text, nullable=False),
    sa.Column("reduce_only", sa.Boolean, nullable=False),
    sa.Column("price_scale", sa.SmallInteger, nullable=False),
    sa.Column("quantity_scale", sa.SmallInteger, nullable=False),
    sa.Column("quantity", sa.BigInteger, nullable=False),
    sa.Column("limit_price", sa.BigInteger),
    sa.Column("trigger_price", sa.BigInteger),
    sa.Column("expires_at_us", Instant),
    sa.Column("reserve_price", sa.BigInteger, nullable=False),
    sa.Column("quote_sequence", sa.BigInteger, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("filled_quantity", sa.BigInteger, nullable=False),
    sa.Column("filled_value", sa.BigInteger, nullable=False),
    sa.Column("close_reason", sa.Text),
    sa.Column("accepted_at_us", Instant, nullable=False),
    sa.Column("updated_at_us", Instant, nullable=False),
    # None stands for the symbol, as before there were several positions of one.
    sa.Column("position_id", Id),
    sa.Column("active_at_us", Instant),
    sa.Column("ingest_sequence", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("post_only", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("trailing", sa.Text),
    sa.Column("parent_id", Id),
    sa.Column("parent_type", sa.Text),
    sa.Column("bracket_role", sa.Text),
    sa.Column("brackets", sa.Text),
    sa.UniqueConstraint("account_id", "client_order_id"),
    sa.CheckConstraint("quantity > 0", name="quantity_positive"),
    sa.CheckConstraint("filled_quantity BETWEEN 0 AND quantity", name="filled_within"),
    sa.CheckConstraint("filled_value >= 0", name="filled_value_positive"),
    sa.CheckConstraint("(status = 'FILLED') = (filled_quantity = quantity)", name="filled_in_full"),
    sa.CheckConstraint("limit_price > 0 AND trigger_price > 0", name="prices_positive"),
    sa.CheckConstraint(_one_of("status", [each.value for each in OrderStatus]), name="status"),
    sa.CheckConstraint("side IN ('BUY', 'SELL')", name="side"),
    sa.Index("ix_orders_account_id_order_id", "account_id", "order_id"),
    sa.Index("ix_orders_account_id_updated_at_us", "account_id", "updated_at_us"),
    # What the matching loop asks on every quote.
    sa.Index(
        "ix_orders_open",
        "symbol",
        "order_id",
        sqlite_where=sa.text(_IS_OPEN),
        postgresql_where=sa.text(_IS_OPEN),
    ),
    sa.Index(
        "ix_orders_live_of_account",
        "account_id",
        "symbol",
        sqlite_where=sa.text(_IS_LIVE),
        postgresql_where=sa.text(_IS_LIVE),
    ),
)

executions = sa.Table(
    "executions",
    metadata,
    sa.Column("execution_id", Id, primary_key=True),
    sa.Column("account_id", Id, sa.ForeignKey(accounts.c.account_id), nullable=False),
    sa.Column("order_id", Id, sa.ForeignKey(orders.c.order_id), nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("symbol", Id, nullable=False),
    sa.Column("side", sa.Text, nullable=False),
    sa.Column("price_scale", sa.SmallInteger, nullable=False),
    sa.Column("quantity_scale", sa.SmallInteger, nullable=False),
    sa.Column("quantity", sa.BigInteger, nullable=False),
    sa.Column("price", sa.BigInteger, nullable=False),
    sa.Column("slippage", sa.BigInteger, nullable=False),
    sa.Column("position_id", Id, nullable=False),
    sa.Column("closed_quantity", sa.BigInteger, nullable=False),
    sa.Column("signed_quantity_after", sa.BigInteger, nullable=False),
    sa.Column("realized", sa.BigInteger, nullable=False),
    sa.Column("realized_minor", Minor, nullable=False),
    sa.Column("commission_minor", Minor, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("currency_scale", sa.SmallInteger, nullable=False),
    sa.Column("liquidity", sa.Text, nullable=False),
    sa.Column("quote_bid", sa.BigInteger, nullable=False),
    sa.Column("quote_ask", sa.BigInteger, nullable=False),
    sa.Column("quote_sequence", sa.BigInteger, nullable=False),
    sa.Column("quote_at_us", Instant, nullable=False),
    sa.Column("executed_at_us", Instant, nullable=False),
    sa.Column("conversion", sa.Text),
    sa.UniqueConstraint("account_id", "sequence"),
    sa.CheckConstraint("quantity > 0 AND price > 0", name="positive"),
    sa.CheckConstraint("closed_quantity BETWEEN 0 AND quantity", name="closed_within"),
    sa.CheckConstraint("commission_minor >= 0", name="commission_positive"),
    sa.CheckConstraint("slippage >= 0", name="slippage_positive"),
    sa.CheckConstraint(
        "price BETWEEN quote_bid - slippage AND quote_ask + slippage", name="price_within_quote"
    ),
    sa.Index("ix_executions_order_id", "order_id"),
)

positions = sa.Table(
    "positions",
    metadata,
    sa.Column("account_id", Id, sa.ForeignKey(accounts.c.account_id), primary_key=True),
    sa.Column("position_id", Id, primary_key=True),
    sa.Column("symbol", Id, nullable=False),
    sa.Column("price_scale", sa.SmallInteger, nullable=False),
    sa.Column("quantity_scale", sa.SmallInteger, nullable=False),
    sa.Column("multiplier", sa.BigInteger, nullable=False),
    sa.Column("leverage", sa.Integer, nullable=False),
    sa.Column("commission_ppm", sa.Integer, nullable=False),
    sa.Column("conversion", sa.Text),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("signed_quantity", sa.BigInteger, nullable=False),
    sa.Column("cost", sa.BigInteger, nullable=False),
    sa.Column("realized_minor", Minor, nullable=False),
    sa.Column("commission_minor", Minor, nullable=False),
    sa.Column("financing_minor", Minor, nullable=False),
    sa.Column("reserved_minor", Minor, nullable=False),
    sa.Column("last_price", sa.BigInteger, nullable=False),
    sa.Column("opened_at_us", Instant),
    sa.Column("updated_at_us", Instant, nullable=False),
    sa.Column("brackets", sa.Text),
    sa.CheckConstraint("(signed_quantity = 0) = (opened_at_us IS NULL)", name="flat_is_not_open"),
    sa.CheckConstraint("signed_quantity <> 0 OR cost = 0", name="flat_costs_nothing"),
    sa.CheckConstraint("signed_quantity >= 0 OR cost <= 0", name="short_cost_negative"),
    sa.CheckConstraint("signed_quantity <= 0 OR cost >= 0", name="long_cost_positive"),
    sa.CheckConstraint("reserved_minor >= 0", name="reserved_positive"),
    sa.CheckConstraint("reserved_minor = 0 OR position_id = symbol", name="reserved_once"),
    sa.CheckConstraint("brackets IS NULL OR signed_quantity <> 0", name="flat_needs_no_brackets"),
)

transfers = sa.Table(
    "transfers",
    metadata,
    sa.Column("transfer_id", Id, primary_key=True),
    # Not a foreign key: a refused transfer may name an account that never was.
    sa.Column("account_id", Id, nullable=False),
    sa.Column("user_id", Id, nullable=False),
    sa.Column("book", sa.Text, nullable=False),
    sa.Column("direction", sa.Text, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("scale", sa.SmallInteger, nullable=False),
    sa.Column("amount_minor", Minor, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("created_at_us", Instant, nullable=False),
    sa.Column("closed_at_us", Instant),
    sa.CheckConstraint("amount_minor > 0", name="amount_positive"),
    sa.CheckConstraint("book IN ('demo', 'funded')", name="book_known"),
    sa.CheckConstraint(
        "(direction = 'in' AND state IN ('credited', 'refused'))"
        " OR (direction = 'out' AND state IN ('held', 'captured', 'voided'))",
        name="state_of_direction",
    ),
    sa.CheckConstraint("(state = 'held') = (closed_at_us IS NULL)", name="closed"),
    sa.Index("ix_transfers_account_id", "account_id"),
)

account_events = sa.Table(
    "account_events",
    metadata,
    sa.Column("account_id", Id, sa.ForeignKey(accounts.c.account_id), primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("occurred_at_us", Instant, nullable=False),
    sa.CheckConstraint("sequence >= 1", name="sequence_positive"),
    sa.CheckConstraint("kind IN ('order', 'execution', 'position', 'cash', 'notice')", name="kind"),
)

IS_LIVE: sa.ColumnElement[bool] = sa.literal_column(f"({_IS_LIVE})", sa.Boolean)
equity_samples = sa.Table(
    "equity_samples",
    metadata,
    sa.Column("account_id", Id, sa.ForeignKey(accounts.c.account_id), primary_key=True),
    sa.Column("at_us", Instant, primary_key=True),
    sa.Column("cash_minor", Minor, nullable=False),
    sa.Column("equity_minor", Minor, nullable=False),
    sa.Column("flows_minor", Minor, nullable=False),
    sa.Column("margin_minor", Minor, nullable=False),
    sa.Column("exposure_minor", Minor, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
)

IS_OPEN: sa.ColumnElement[bool] = sa.literal_column(f"({_IS_OPEN})", sa.Boolean)
"""The conditions of the partial indexes, word for word: with parameters they would not be used."""

CLOSED_STATUSES = tuple(sorted(status.value for status in CLOSED))
