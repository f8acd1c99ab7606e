"""The fence in SQLite: the table `saga_outcomes` beside the worker's own tables, in one file."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from typing import AsyncIterator
from uuid import UUID

from .fence import Known

TABLE = """
    create table if not exists saga_outcomes (
        saga text not null,
        step text not null,
        visit integer not null default 0,
        undone integer not null default 0,
        outcome text,
        keep_until integer not null, -- milliseconds since 1970
        primary key (saga, step)
    );
    create index if not exists saga_outcomes_keep_until on saga_outcomes (keep_until);
"""
LOCK = """
    insert into saga_outcomes (saga, step, keep_until) values (?, ?, ?)
    on conflict (saga, step) do update set keep_until = max(keep_until, excluded.keep_until)
    returning visit, undone, outcome"""
SAVE = "update saga_outcomes set visit = ?, undone = ?, outcome = ? where saga = ? and step = ?"
PURGE = """
    delete from saga_outcomes where rowid in (select rowid from saga_outcomes where keep_until < ? limit ?)"""
AWAY = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM, sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_CORRUPT,
}
LOCK_TIMEOUT = 5.0
LOCK_INTERVAL = 0.02


class _Savepoint:
    def __init__(self, conn: sqlite3.Connection):
        self._conn = conn

    async def commit(self) -> None:
        self._conn.execute("release effect")

    async def rollback(self) -> None:
        self._conn.execute("rollback to effect")
        self._conn.execute("release effect")


class Sqlite:
    """Keeps fence and effects in one SQLite file. Handlers get the connection of the transaction.

    One handler runs at a time, because SQLite has one writer. Statements run on the event loop; keep them short.
    """

    def __init__(self, path: str):
        self.conn = sqlite3.connect(path, isolation_level=None, timeout=0)
        self.conn.execute("pragma journal_mode = wal")
        self._turn = asyncio.Lock()

    async def prepare(self) -> None:
        async with self.transaction():
            for statement in TABLE.split(";"):
                self.conn.execute(statement)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[sqlite3.Connection]:
        """Takes SQLite's write lock first. Commits at the end."""
        async with self._turn:
            await self._begin()
            try:
                yield self.conn
                self.conn.execute("commit")
            except BaseException:
                if self.conn.in_transaction:
                    self.conn.execute("rollback")
                raise

    async def _begin(self) -> None:
        """Waits for other processes without holding up the event loop."""
        late = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                return self.conn.execute("begin immediate")
            except sqlite3.OperationalError as error:
                if not self.is_away(error) or time.monotonic() > late:
                    raise
                await asyncio.sleep(LOCK_INTERVAL)

    @asynccontextmanager
    async def savepoint(self, tx: sqlite3.Connection) -> AsyncIterator[_Savepoint]:
        """Ends with `commit` or `rollback`; an exception rolls back."""
        tx.execute("savepoint effect")
        point = _Savepoint(tx)
        try:
            yield point
        except Exception:
            await point.rollback()
            raise

    async def lock(
        self, tx: sqlite3.Connection, saga: UUID, step: str, deadline: datetime | None, keep: float
    ) -> tuple[Known, datetime]:
        """Reads the row of a step; the whole file is locked. Also the clock."""
        now = datetime.now(timezone.utc)
        keep_until = max(now, deadline or now).timestamp() + keep
        row = tx.execute(LOCK, (str(saga), step, int(keep_until * 1000))).fetchone()
        return Known(row[0], row[1], json.loads(row[2]) if row[2] else None), now

    async def save(self, tx: sqlite3.Connection, saga: UUID, step: str, known: Known) -> None:
        outcome = json.dumps(known.outcome) if known.outcome else None
        tx.execute(SAVE, (known.visit, known.undone, outcome, str(saga), step))

    async def purge(self, limit: int) -> int:
        """Deletes rows that no command can ask for any more."""
        async with self.transaction() as tx:
            return tx.execute(PURGE, (int(time.time() * 1000), limit)).rowcount

    async def ping(self) -> None:
        async with self.transaction():
            pass

    def is_away(self, error: BaseException) -> bool:
        """Whether the error says nothing about the work: the file is locked, full or not to be read."""
        return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in AWAY
