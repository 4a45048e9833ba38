"""Where a coordinator keeps its studies: SQLite by default, PostgreSQL by URL."""

from coordinator.store.records import Answer, Starts, Status, StudyRecord, Wanted
from coordinator.store.studies import StudyStore

__all__ = ["Answer", "Starts", "Status", "StudyRecord", "StudyStore", "Wanted"]
