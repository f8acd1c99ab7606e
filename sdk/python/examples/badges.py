"""Prints a badge for each paid booking: serves the steps of examples/badge_printer/booking.toml.

    NATS_URL=nats://127.0.0.1:4222 DATABASE_URL=postgres://127.0.0.1/badges python badges.py
"""

import asyncio
import logging
import os
import signal

import asyncpg
import nats

from boxoffice_worker import Command, Outcome, Worker, done, rejected
from boxoffice_worker.postgres import Postgres


async def print_badge(tx: asyncpg.Connection, command: Command) -> Outcome:
    seats = command.context.get("seats")
    if not seats:
        return rejected("no_seats")
    badge = "-".join([str(command.saga)[-8:], *map(str, seats)])
    await tx.execute("insert into badges (badge, saga) values ($1, $2)", badge, command.saga)
    return done(badge=badge)


async def shred_badge(tx: asyncpg.Connection, command: Command) -> Outcome:
    if command.done:  # else nothing was printed
        await tx.execute("delete from badges where badge = $1", command.done["badge"])
    return done()


async def main() -> None:
    logging.basicConfig(level=logging.INFO)
    pool = await asyncpg.create_pool(os.environ["DATABASE_URL"], max_size=20)
    await pool.execute("create table if not exists badges (badge text primary key, saga uuid not null)")
    client = await nats.connect(os.environ["NATS_URL"], max_reconnect_attempts=-1)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    worker = Worker("badges", Postgres(pool))
    worker.step("badges.print", print_badge, "badges.shred", shred_badge)
    await worker.run(client, stop, domain=os.environ.get("NATS_DOMAIN"))
    await client.close()


asyncio.run(main())
