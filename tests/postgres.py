"""A throw-away PostgreSQL for tests."""

from benchmarks.local_postgres import MISSING, available, cluster

__all__ = ["MISSING", "available", "cluster"]
