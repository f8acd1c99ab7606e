/**
 * Books flights. The bookings and the fence are in a Postgres database.
 *
 *     NATS_URL=nats://127.0.0.1:4222 DATABASE_URL=postgres://127.0.0.1/flights node dist/flight.js
 */

import { connect } from "@nats-io/transport-node";
import { done, Postgres, Worker, type Command } from "boxoffice-worker";
import pg from "pg";

const city = (command: Command) => (command.context as { city: string }).city;

async function book(tx: pg.PoolClient, command: Command) {
  await tx.query("insert into bookings (saga, city) values ($1, $2)", [command.saga, city(command)]);
  return done({ flight: `a flight to ${city(command)}` });
}

async function cancel(tx: pg.PoolClient, command: Command) {
  await tx.query("delete from bookings where saga = $1", [command.saga]);
  return done(); // also if nothing was booked
}

const pool = new pg.Pool({ connectionString: process.env["DATABASE_URL"], max: 10 });
await pool.query("create table if not exists bookings (saga uuid not null, city text not null)");
const { host, username, password } = new URL(process.env["NATS_URL"]!);
const client = await connect({ servers: host, user: username, pass: password, maxReconnectAttempts: -1 });
const stop = new AbortController();
for (const ending of ["SIGTERM", "SIGINT"]) process.once(ending, () => stop.abort());

const worker = new Worker("flight", new Postgres(pool));
worker.step({ do: ["flight.book", book], undo: ["flight.cancel", cancel] });
await worker.run(client, stop.signal);
await client.close();
await pool.end();
