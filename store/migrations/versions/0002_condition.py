"""A measurement's condition, and the baseline's samples that were taken between its own.

DuckDB adds no column that may not be null, so the table is copied; it has no index and nothing
refers to it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEPT = (
    "event_id, position, study_id, trial_id, attempt, metric, unit, origin, method, "
    "environment_id, taken_at, value, pooled, low, high, n, samples"
)


def upgrade() -> None:
    op.rename_table("measurements", "measurements_0001")
    op.create_table(
        "measurements",
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.String(), nullable=False),
        sa.Column("trial_id", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("taken_at", sa.String(), nullable=False),
        sa.Column("value", sa.Double()),
        sa.Column("pooled", sa.Double()),
        sa.Column("low", sa.Double()),
        sa.Column("high", sa.Double()),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("samples", sa.JSON(), nullable=False),
        sa.Column("condition", sa.Text(), server_default="", nullable=False),
        sa.Column("reference", sa.JSON(), nullable=False),
    )
    op.execute(
        f"insert into measurements ({KEPT}, condition, reference) "
        f"select {KEPT}, '', cast('[]' as json) from measurements_0001"
    )
    op.drop_table("measurements_0001")


def downgrade() -> None:
    raise NotImplementedError(
        "a store is not taken back: use the copy that was made before the upgrade"
    )
