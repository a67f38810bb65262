"""Who opened, captured or released a hold, froze or thawed a wallet, reversed an entry."""

import sqlalchemy as sa
from alembic import op

from trading_api.ledger.tables import append_only_ddl
from trading_api.runtime.database.schema import Id

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "operator_acts",
        sa.Column("act_id", Id, nullable=False),
        sa.Column("done_by", Id, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", Id, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('hold_opened', 'hold_captured', 'hold_voided', 'wallet_frozen',"
            " 'wallet_unfrozen', 'entry_reversed')",
            name=op.f("ck_operator_acts_kind"),
        ),
        sa.PrimaryKeyConstraint("act_id", name=op.f("pk_operator_acts")),
        schema="wallet",
    )
    op.create_index(
        "ix_operator_acts_subject_act_id", "operator_acts", ["subject", "act_id"], schema="wallet"
    )
    for statement in append_only_ddl(op.get_bind().dialect.name, "wallet", "operator_acts"):
        op.execute(statement)
