/**
 * Prints a badge for each paid booking: serves the steps of examples/badge_printer/booking.toml.
 *
 *     NATS_URL=nats://127.0.0.1:4222 DATABASE_URL=postgres://127.0.0.1/badges node dist/examples/badges.js
 */

import { connect } from "@nats-io/transport-node";
import { done, Postgres, rejected, Worker, type Command } from "boxoffice-worker";
import pg from "pg";

async function printBadge(tx: pg.PoolClient, { saga, context }: Command) {
  const { seats } = context as { seats?: number[] };
  if (!seats?.length) return rejected("no_seats");
  const badge = [saga.slice(-8), ...seats].join("-");
  await tx.query("insert into badges (badge, saga) values ($1, $2)", [badge, saga]);
  return done({ badge });
}

async function shredBadge(tx: pg.PoolClient, command: Command) {
  if (command.done) await tx.query("delete from badges where badge = $1", [command.done["badge"]]);
  return done(); // also if nothing was printed
}

const pool = new pg.Pool({ connectionString: process.env["DATABASE_URL"], max: 20 });
await pool.query("create table if not exists badges (badge text primary key, saga uuid not null)");
const { host, username, password } = new URL(process.env["NATS_URL"]!);
const client = await connect({ servers: host, user: username, pass: password, maxReconnectAttempts: -1 });
const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());

const worker = new Worker("badges", new Postgres(pool));
worker.step({ do: ["badges.print", printBadge], undo: ["badges.shred", shredBadge] });
await worker.run(client, stop.signal, { domain: process.env["NATS_DOMAIN"] });
await client.close();
await pool.end();
