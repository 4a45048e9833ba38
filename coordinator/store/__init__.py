"""Where a coordinator keeps its studies: SQLite by default, PostgreSQL by URL."""

from coordinator.store.studies import Starts, Status, StudyRecord, StudyStore

__all__ = ["Starts", "Status", "StudyRecord", "StudyStore"]
