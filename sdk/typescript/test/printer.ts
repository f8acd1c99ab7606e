/**
 * The worker of the protocol test (sdk/conformance): prints badges by what the command's context says in `how`.
 *
 * NATS_URL and DATABASE_URL (postgres://… or sqlite:FILE) say where; LIMIT_MS bounds a handler.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { connect } from "@nats-io/transport-node";
import SqliteFile from "better-sqlite3";
import pg from "pg";
import { done, failed, Postgres, rejected, Sqlite, SqliteTx, unknown, Worker, type Command, type Database } from "../src/index.js";

type Tx = pg.PoolClient | SqliteTx;

const tries = new Map<string, number>();
const CREATE = "create table if not exists badges (saga text not null)";

function isFirst(what: string): boolean {
  tries.set(what, 1 + (tries.get(what) ?? 0));
  return tries.get(what) === 1;
}

async function execute(tx: Tx, sql: string, saga: string | null): Promise<number> {
  if (tx instanceof SqliteTx) return Number(tx.run(sql.replace("$1", "?"), saga).changes);
  return (await tx.query(sql, [saga])).rowCount ?? 0;
}

const how = (command: Command) => (command.context as { how: string }).how;

async function printBadge(tx: Tx, command: Command) {
  const first = isFirst(command.saga);
  const insert = "insert into badges (saga) values ($1)";
  await execute(tx, insert, command.saga);
  switch (how(command)) {
    case "refuse":
      return rejected("no_paper", { printer: "hall 2" });
    case "large":
      return done({ badge: "x".repeat(300_000) });
    case "nul":
      return done({ badge: "\0" });
    case "slow":
      await sleep(4_500);
      break;
    case "slower":
      await sleep(7_000);
  }
  if (first) {
    switch (how(command)) {
      case "fail":
        return failed("offline");
      case "doubt":
        return unknown("it hums");
      case "break":
        await execute(tx, insert, null);
        break;
      case "throw":
        throw new Error("the printer is on fire");
      case "hang":
        await sleep(60_000);
        break;
      case "hang in the database":
        await (tx as pg.PoolClient).query("select pg_sleep(60)");
    }
  }
  const { step, direction, visit, workflow, deadline } = command;
  return done({ badge: command.saga, seen: { step, direction, visit, workflow, deadline: deadline !== null } });
}

async function shredBadge(tx: Tx, command: Command) {
  const gone = await execute(tx, "delete from badges where saga = $1", command.saga);
  if (how(command) === "fail to undo" && isFirst(`${command.saga} undo`)) return failed("jammed");
  return done({ gone, known: command.done !== null, reason: command.reason });
}

const url = process.env["DATABASE_URL"]!;
let database: Database<any>;
if (url.startsWith("sqlite:")) {
  const file = new SqliteFile(url.slice("sqlite:".length));
  file.exec(CREATE);
  database = new Sqlite(file);
} else {
  const pool = new pg.Pool({ connectionString: url, max: 20 });
  await pool.query(CREATE);
  database = new Postgres(pool);
}
const { hostname, port, username, password } = new URL(process.env["NATS_URL"]!);
const client = await connect({
  servers: `${hostname}:${port}`, user: username, pass: password, maxReconnectAttempts: -1, reconnectTimeWait: 200,
});
const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());
const worker = new Worker<Tx>("printer", database, { limitMs: Number(process.env["LIMIT_MS"] ?? 30_000) });
worker.step({ do: ["printer.print", printBadge], undo: ["printer.shred", shredBadge] });
await worker.run(client, stop.signal, { domain: process.env["NATS_DOMAIN"] });
await client.close();
console.log("stopped");
process.exit(0); // a handler that was cut off may still sleep
