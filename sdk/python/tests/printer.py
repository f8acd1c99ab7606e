"""The worker of the protocol test (sdk/conformance): prints badges by what the command's context says in `how`.

NATS_URL and DATABASE_URL (postgres://… or sqlite:FILE) say where; LIMIT_MS bounds a handler.
"""

import asyncio
import logging
import os
import signal
from collections import Counter

import asyncpg
import nats

from boxoffice_worker import Worker, done, failed, rejected, unknown
from boxoffice_worker.postgres import Postgres
from boxoffice_worker.sqlite import Sqlite

tries = Counter()


async def execute(tx, sql, saga):
    if isinstance(tx, asyncpg.Connection):
        return int((await tx.execute(sql, saga and str(saga))).split()[-1])
    return tx.execute(sql.replace("$1", "?"), (saga and str(saga),)).rowcount


async def print_badge(tx, command):
    saga, how = command.saga, command.context["how"]
    tries[saga] += 1
    first = tries[saga] == 1
    await execute(tx, "insert into badges (saga) values ($1)", saga)
    if how == "refuse":
        return rejected("no_paper", {"printer": "hall 2"})
    if how == "fail" and first:
        return failed("offline")
    if how == "doubt" and first:
        return unknown("it hums")
    if how == "break" and first:
        await execute(tx, "insert into badges (saga) values ($1)", None)
    if how == "throw" and first:
        raise RuntimeError("the printer is on fire")
    if how == "hang" and first:
        await asyncio.sleep(60)
    if how == "hang in the database" and first:
        await tx.execute("select pg_sleep(60)")
    if how in ("slow", "slower"):
        await asyncio.sleep(4.5 if how == "slow" else 7)
    if how == "large":
        return done(badge="x" * 300_000)
    if how == "nul":
        return done(badge="\0")
    seen = {"step": command.step, "direction": command.direction, "visit": command.visit, "workflow": command.workflow}
    return done(badge=str(saga), seen={**seen, "deadline": command.deadline is not None})


async def shred_badge(tx, command):
    tries[command.saga, "undo"] += 1
    gone = await execute(tx, "delete from badges where saga = $1", command.saga)
    if command.context["how"] == "fail to undo" and tries[command.saga, "undo"] == 1:
        return failed("jammed")
    return done(gone=gone, known=command.done is not None, reason=command.reason)


async def main():
    logging.basicConfig(level=logging.INFO)
    url = os.environ["DATABASE_URL"]
    if url.startswith("sqlite:"):
        database = Sqlite(url.removeprefix("sqlite:"))
        database.conn.execute("create table if not exists badges (saga text not null)")
    else:
        database = Postgres(await asyncpg.create_pool(url, min_size=1, max_size=20))
        await database.pool.execute("create table if not exists badges (saga text not null)")
    client = await nats.connect(os.environ["NATS_URL"], max_reconnect_attempts=-1, reconnect_time_wait=0.2)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    worker = Worker("printer", database, limit=int(os.environ.get("LIMIT_MS", "30000")) / 1000)
    worker.step("printer.print", print_badge, "printer.shred", shred_badge)
    await worker.run(client, stop, domain=os.environ.get("NATS_DOMAIN"))
    await client.close()
    print("stopped", flush=True)


asyncio.run(main())
