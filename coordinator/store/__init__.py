"""Where a coordinator keeps its studies: SQLite by default, PostgreSQL by URL."""

from coordinator.store.studies import Status, StudyRecord, StudyStore

__all__ = ["Status", "StudyRecord", "StudyStore"]
