"""Alembic's entry: runs migrations on the connection that the coordinator opened."""

from __future__ import annotations

from alembic import context

from coordinator.store.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
