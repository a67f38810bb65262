"""Tables of datafeed.

Bars are kept as blobs of columns; the database is their truth, memory the place they are served
from.
"""

import sqlalchemy as sa

from trading_api.runtime.database import (
    Id,
    Instant,
    idempotency,
    leases,
    module_metadata,
    outbox,
)

metadata = module_metadata("datafeed")

BARS_PER_CHUNK = 4_096
"""Big enough that a chunk's overhead vanishes, small enough to replace for a correction."""

series = sa.Table(
    "series",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("resolution", sa.Text, nullable=False),
    sa.Column("price_decimals", sa.Integer, nullable=False),
    sa.Column("volume_decimals", sa.Integer, nullable=False),
    sa.Column("bar_count", sa.Integer, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("source_sha256", sa.Text, nullable=False),
    sa.Column("license", sa.Text, nullable=False),
    sa.Column("loaded_at_us", Instant, nullable=False),
    # Which of its chunks are the series; an import writes those of another version beside them.
    sa.Column("version", sa.BigInteger, nullable=False, server_default="1"),
    sa.CheckConstraint("bar_count > 0", name="bar_count_positive"),
)

series_chunks = sa.Table(
    "series_chunks",
    metadata,
    # No foreign key: an import stores a new series' chunks before there is a series.
    sa.Column("series_id", Id, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("bar_count", sa.Integer, nullable=False),
    sa.Column("first_at_us", Instant, nullable=False),
    sa.Column("last_at_us", Instant, nullable=False),
    # Six little-endian int64 columns one after another: time in seconds, open, high, low, close
    # in 10^-price_decimals, volume in 10^-volume_decimals.
    sa.Column("columns", sa.LargeBinary, nullable=False),
    sa.CheckConstraint("bar_count > 0", name="bar_count_positive"),
)

second_bars = sa.Table(
    "second_bars",
    metadata,
    # A minute of a live series, and its seconds as chunks have bars; old ones are deleted.
    sa.Column("series_id", Id, primary_key=True),
    sa.Column("minute_at_us", Instant, primary_key=True, autoincrement=False),
    sa.Column("bar_count", sa.Integer, nullable=False),
    sa.Column("columns", sa.LargeBinary, nullable=False),
    sa.CheckConstraint("bar_count BETWEEN 1 AND 60", name="bar_count_range"),
)

imports = sa.Table(
    "imports",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("series_id", Id, nullable=False),
    # Of the chunks that it writes.
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("resolution", sa.Text, nullable=False),
    sa.Column("price_decimals", sa.Integer, nullable=False),
    sa.Column("volume_decimals", sa.Integer, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("source_sha256", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    # Where the file goes on: byte or row, line, the last good bar.
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("line", sa.BigInteger, nullable=False),
    sa.Column("last_at_us", Instant),
    sa.Column("last_close", sa.BigInteger),
    sa.Column("chunk_count", sa.Integer, nullable=False),
    sa.Column("bar_count", sa.BigInteger, nullable=False),
    sa.Column("bad_count", sa.BigInteger, nullable=False),
    # The first of them, JSON.
    sa.Column("bad_lines", sa.Text, nullable=False),
    sa.Column("started_at_us", Instant, nullable=False),
    sa.Column("changed_at_us", Instant, nullable=False),
    sa.UniqueConstraint("series_id", "version"),
    sa.CheckConstraint("state IN ('RUNNING', 'DONE', 'REFUSED')", name="state_known"),
)

instruments = sa.Table(
    "instruments",
    metadata,
    sa.Column("exchange", sa.Text, primary_key=True),
    sa.Column("ticker", sa.Text, primary_key=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("asset_class", sa.Text, nullable=False),
    sa.Column("base_currency", sa.Text),
    sa.Column("quote_currency", sa.Text, nullable=False),
    sa.Column("price_decimals", sa.Integer, nullable=False),
    sa.Column("tick", sa.BigInteger, nullable=False, server_default="1"),
    sa.Column("volume_decimals", sa.Integer, nullable=False),
    sa.Column("spread_ticks", sa.Integer, nullable=False),
    sa.Column("ask_is_last", sa.Boolean, nullable=False),
    sa.Column("quantity_step", sa.BigInteger, nullable=False),
    sa.Column("quantity_max", sa.BigInteger, nullable=False),
    sa.Column("lot_size", sa.BigInteger, nullable=False),
    sa.Column("session", sa.Text, nullable=False),
    sa.Column("time_zone", sa.Text, nullable=False),
    sa.Column("series_id", Id, sa.ForeignKey(series.c.id), nullable=False),
    sa.Column("tradable", sa.Boolean, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("calendar", sa.Text),
    sa.Column("session_holidays", sa.Text, nullable=False, server_default=""),
    sa.Column("session_corrections", sa.Text, nullable=False, server_default=""),
    sa.Column("multiplier", sa.BigInteger, nullable=False, server_default="1"),
    sa.Column("quantity_decimals", sa.Integer, nullable=False, server_default="0"),
    sa.Column("sector", sa.Text),
    sa.Column("industry", sa.Text),
    # Counts changes; what nobody changed follows the bundled definition at the next seed.
    sa.Column("version", sa.BigInteger, nullable=False, server_default="1"),
    sa.Column("changed_at_us", Instant),
    # Retired ones stay: marks, executions and audit name them for ever.
    sa.Column("retired_at_us", Instant),
    sa.CheckConstraint("price_decimals BETWEEN 0 AND 10", name="price_decimals_range"),
    sa.CheckConstraint("spread_ticks >= 0", name="spread_not_negative"),
    sa.CheckConstraint("quantity_step > 0", name="quantity_step_positive"),
)

splits = sa.Table(
    "splits",
    metadata,
    sa.Column("series_id", Id, sa.ForeignKey(series.c.id), primary_key=True),
    sa.Column("at_us", Instant, primary_key=True),
    sa.Column("ratio", sa.Integer, nullable=False),
    sa.CheckConstraint("ratio > 1", name="ratio_above_one"),
)

dividends = sa.Table(
    "dividends",
    metadata,
    sa.Column("exchange", Id, primary_key=True),
    sa.Column("ticker", Id, primary_key=True),
    # 00:00 UTC of the first trading day without it.
    sa.Column("ex_at_us", Instant, primary_key=True),
    # Of a share, in 10^-8 of the instrument's currency.
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.ForeignKeyConstraint(["exchange", "ticker"], [instruments.c.exchange, instruments.c.ticker]),
    sa.CheckConstraint("amount > 0", name="amount_positive"),
    sa.CheckConstraint("ex_at_us % 86400000000 = 0", name="ex_at_a_day"),
    # Its days are not those of its source.
    sa.CheckConstraint("exchange <> 'DEMO'", name="not_on_demo"),
)

demo_market = sa.Table(
    "demo_market",
    metadata,
    # One row for ever: the anchor never moves, or every chart's past would change.
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("anchor_at_us", Instant, nullable=False),
    sa.Column("seed", sa.Text, nullable=False),
    sa.Column("seeded_at_us", Instant, nullable=False),
    sa.CheckConstraint("id = 1", name="one_row"),
)

chart_layouts = sa.Table(
    "chart_layouts",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("user_id", Id, nullable=False),
    # Front ends name themselves; each sees its own layouts alone.
    sa.Column("client", Id, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("symbol", sa.Text, nullable=False),
    sa.Column("resolution", sa.Text, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("saved_at_us", Instant, nullable=False),
    sa.Index("ix_chart_layouts_user_id", "user_id"),
)

chart_templates = sa.Table(
    "chart_templates",
    metadata,
    sa.Column("user_id", Id, primary_key=True),
    sa.Column("client", Id, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("tool", Id, primary_key=True),
    sa.Column("name", Id, primary_key=True),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("saved_at_us", Instant, nullable=False),
    sa.CheckConstraint("kind IN ('study', 'drawing')", name="kind_known"),
)

lease_rows = leases.table(metadata)
outbox_table = outbox.table(metadata)
idempotency_table = idempotency.table(metadata)
