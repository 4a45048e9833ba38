"""What the operator wants of a study, and what each member answered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds them; whatever was kept before had been started by its coordinator's configuration."""
    op.add_column(
        "study", sa.Column("wanted", sa.String(16), nullable=False, server_default="running")
    )
    op.add_column(
        "study", sa.Column("wanted_ms", sa.BigInteger, nullable=False, server_default="0")
    )
    op.create_table(
        "answer",
        sa.Column("terms_hash", sa.String(64), primary_key=True),
        sa.Column("member", sa.String(63), primary_key=True),
        sa.Column("answer", sa.String(16), nullable=False),
        sa.Column("sentence", sa.Text, nullable=False),
    )
