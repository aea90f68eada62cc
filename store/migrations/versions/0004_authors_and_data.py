"""Who did what an event says, and which data a number of quality was judged on: neither is known of
older rows.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("events", sa.Column("who", sa.String()))
    op.add_column("measurements", sa.Column("data", sa.String()))


def downgrade() -> None:
    raise NotImplementedError(
        "a store is not taken back: use the copy that was made before the upgrade"
    )
