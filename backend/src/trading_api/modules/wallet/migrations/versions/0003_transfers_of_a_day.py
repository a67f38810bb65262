"""An index for the sum of a wallet's transfers of a day."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_index(
        "ix_transfers_wallet_id_created_at_us",
        "transfers",
        ["wallet_id", "created_at_us"],
        schema="wallet",
    )
