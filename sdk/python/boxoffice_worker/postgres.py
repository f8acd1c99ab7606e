"""The fence in Postgres: the table `saga_outcomes` in the worker's own database, the same as the Rust SDK's."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import AsyncIterator
from uuid import UUID

import asyncpg

from .fence import Known

TABLE = """
    select pg_advisory_xact_lock(7236279817263);
    create table if not exists saga_outcomes (
        saga uuid not null,
        step text not null,
        visit int not null default 0,
        undone int not null default 0,
        outcome jsonb,
        keep_until timestamptz not null,
        primary key (saga, step)
    );
    create index if not exists saga_outcomes_keep_until on saga_outcomes (keep_until);
"""
LOCK = """
    insert into saga_outcomes as known (saga, step, keep_until)
    values ($1, $2, greatest(clock_timestamp(), $3) + make_interval(secs => $4))
    on conflict (saga, step) do update set keep_until = greatest(known.keep_until, excluded.keep_until)
    returning visit, undone, outcome::text"""
SAVE = "update saga_outcomes set visit = $3, undone = $4, outcome = $5::text::jsonb where saga = $1 and step = $2"
PURGE = """
    delete from saga_outcomes where (saga, step) in (
        select saga, step from saga_outcomes where keep_until < clock_timestamp() limit $1 for update skip locked)"""
# Errors of these classes come again for the same work: a bad value, a broken constraint, a wrong statement. The codes
# named beside them say that the schema or a right is missing, which passes.
FAILS_AGAIN = ("22", "23", "42")
PASSES = {"42501", "42P01", "42703", "42883", "42704", "42P10", "42804", "42P05"}
END_TIMEOUT = 2.0


class Postgres:
    """Keeps fence and effects in the database of an `asyncpg` pool. Handlers get the connection of the transaction."""

    def __init__(self, pool: asyncpg.Pool):
        self.pool = pool

    async def prepare(self) -> None:
        async with self.pool.acquire() as conn, conn.transaction():
            await conn.execute(TABLE)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """Commits at the end. A transaction that is cancelled loses its session, so that nothing of it stays."""
        async with self.pool.acquire() as conn:
            tx, session = conn.transaction(), None
            try:
                session = await conn.fetchval("select pg_backend_pid()")
                await tx.start()
                yield conn
                await tx.commit()
            except asyncio.CancelledError:
                await self._end_session(conn, session)
                raise
            except BaseException:
                with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                    await tx.rollback()
                raise

    async def _end_session(self, conn: asyncpg.Connection, session: int | None) -> None:
        """A statement of the session may still run on the server: without this, its locks would stay until it ends."""
        conn.terminate()
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, asyncio.TimeoutError):
            async with asyncio.timeout(END_TIMEOUT):
                await self.pool.execute("select pg_terminate_backend($1)", session)

    @asynccontextmanager
    async def savepoint(self, tx: asyncpg.Connection) -> AsyncIterator[asyncpg.transaction.Transaction]:
        """Ends with `commit` or `rollback`; an exception rolls back."""
        point = tx.transaction()
        await point.start()
        try:
            yield point
        except Exception:
            await point.rollback()
            raise

    async def lock(
        self, tx: asyncpg.Connection, saga: UUID, step: str, deadline: datetime | None, keep: float
    ) -> tuple[Known, datetime]:
        """Locks the row of a step as the first statement of a transaction; also the clock, read after the lock."""
        row = await tx.fetchrow(LOCK, saga, step, deadline, keep)
        known = Known(row["visit"], row["undone"], json.loads(row["outcome"]) if row["outcome"] else None)
        return known, await tx.fetchval("select clock_timestamp()")

    async def save(self, tx: asyncpg.Connection, saga: UUID, step: str, known: Known) -> None:
        outcome = json.dumps(known.outcome) if known.outcome else None
        await tx.execute(SAVE, saga, step, known.visit, known.undone, outcome)

    async def purge(self, limit: int) -> int:
        """Deletes rows that no command can ask for any more."""
        return int((await self.pool.execute(PURGE, limit)).split()[-1])

    async def ping(self) -> None:
        await self.pool.execute("select 1")

    def is_away(self, error: BaseException) -> bool:
        """Whether the error says nothing about the work: the database is away, busy, full or read-only."""
        if isinstance(error, asyncpg.PostgresError):
            code = error.sqlstate or ""
            return code[:2] not in FAILS_AGAIN or code in PASSES
        # A value of the wrong type is an error of the handler.
        return isinstance(error, asyncpg.InterfaceError) and not isinstance(error, ValueError)
