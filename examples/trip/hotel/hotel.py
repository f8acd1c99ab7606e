"""Books hotel rooms. The bookings and the fence are in one SQLite file.

    NATS_URL=nats://127.0.0.1:4222 HOTEL_DB=hotel.db python hotel.py
"""

import asyncio
import os
import signal

import nats

from boxoffice_worker import Worker, done
from boxoffice_worker.sqlite import Sqlite


async def book(tx, command):
    tx.execute("insert into bookings values (?, ?)", (str(command.saga), command.context["city"]))
    return done(hotel=f"a room in {command.context['city']}")


async def cancel(tx, command):
    tx.execute("delete from bookings where saga = ?", (str(command.saga),))
    return done()  # also if nothing was booked


async def main():
    database = Sqlite(os.environ["HOTEL_DB"])
    database.conn.execute("create table if not exists bookings (saga text not null, city text not null)")
    client = await nats.connect(os.environ["NATS_URL"], max_reconnect_attempts=-1)
    stop = asyncio.Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(ending, stop.set)
    worker = Worker("hotel", database)
    worker.step("hotel.book", book, "hotel.cancel", cancel)
    await worker.run(client, stop)
    await client.close()


asyncio.run(main())
