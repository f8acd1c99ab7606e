"""Serves steps of Box Office sagas from a service with a database of its own. The contract is docs/workers.md.

The databases are `boxoffice_worker.postgres.Postgres` (it needs asyncpg) and `boxoffice_worker.sqlite.Sqlite`.
"""

from .command import Command, Malformed
from .outcome import Outcome, done, failed, rejected, unknown
from .worker import StartError, Worker

__all__ = ["Command", "Malformed", "Outcome", "StartError", "Worker", "done", "failed", "rejected", "unknown"]
