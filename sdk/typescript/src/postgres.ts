/** The fence in Postgres: the table `saga_outcomes` in the worker's own database, the same as the Rust SDK's. */

import type { Pool, PoolClient } from "pg";
import type { Fence } from "./command.js";
import { unlessAborted, type Database } from "./database.js";
import type { Known } from "./fence.js";

const TABLE = `
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
  create index if not exists saga_outcomes_keep_until on saga_outcomes (keep_until);`;
const LOCK = `
  insert into saga_outcomes as known (saga, step, keep_until)
  values ($1, $2, greatest(clock_timestamp(), $3::timestamptz) + make_interval(secs => $4))
  on conflict (saga, step) do update set keep_until = greatest(known.keep_until, excluded.keep_until)
  returning visit, undone, outcome::text`;
const SAVE = "update saga_outcomes set visit = $3, undone = $4, outcome = $5::text::jsonb where saga = $1 and step = $2";
const PURGE = `
  delete from saga_outcomes where (saga, step) in (
    select saga, step from saga_outcomes where keep_until < clock_timestamp() limit $1 for update skip locked)`;
// Codes of these classes come again for the same work: a bad value, a broken constraint, a wrong statement. The codes named
// beside them say that the schema or a right is missing, which passes.
const FAILS_AGAIN = ["22", "23", "42"];
const PASSES = ["42501", "42P01", "42703", "42883", "42704", "42P10", "42804", "42P05"];

/** Keeps fence and effects in the database of a `pg` pool. Handlers get the client of the transaction. */
export class Postgres implements Database<PoolClient> {
  constructor(readonly pool: Pool) {
    pool.on("error", () => {}); // an idle client was ended; the next query gets another one
  }

  async prepare(): Promise<void> {
    await this.transaction(new AbortController().signal, (tx) => tx.query(TABLE));
  }

  async transaction<T>(signal: AbortSignal, act: (tx: PoolClient) => Promise<T>): Promise<T> {
    const client = await this.pool.connect();
    const ignore = () => {}; // its queries fail, which is enough
    client.on("error", ignore);
    const end = (isBroken: boolean) => {
      client.off("error", ignore);
      if (isBroken) client.on("error", ignore);
      client.release(isBroken);
    };
    let session: number | undefined;
    const work = async () => {
      session = (await client.query("select pg_backend_pid() as session")).rows[0].session;
      await client.query("begin");
      const result = await act(client);
      await client.query("commit");
      return result;
    };
    try {
      const result = await unlessAborted(signal, work());
      end(false);
      return result;
    } catch (error) {
      const isBroken = signal.aborted || !(await client.query("rollback").then(() => true, () => false));
      end(isBroken);
      // A statement of the session may still run on the server: without this, its locks would stay until it ends.
      if (signal.aborted && session) await this.pool.query("select pg_terminate_backend($1)", [session]).catch(() => {});
      throw error;
    }
  }

  async lock(tx: PoolClient, { saga, step }: Fence, deadline: Date | null, keepMs: number): Promise<[Known, Date]> {
    const { rows } = await tx.query(LOCK, [saga, step, deadline?.toISOString() ?? null, keepMs / 1000]);
    const { visit, undone, outcome } = rows[0];
    const clock = await tx.query("select clock_timestamp() as now");
    return [{ visit, undone, outcome: outcome && JSON.parse(outcome) }, clock.rows[0].now];
  }

  async save(tx: PoolClient, { saga, step }: Fence, { visit, undone, outcome }: Known): Promise<void> {
    await tx.query(SAVE, [saga, step, visit, undone, outcome && JSON.stringify(outcome)]);
  }

  async savepoint(tx: PoolClient): Promise<void> {
    await tx.query("savepoint effect");
  }

  async release(tx: PoolClient): Promise<void> {
    await tx.query("release savepoint effect");
  }

  async rollback(tx: PoolClient): Promise<void> {
    await tx.query("rollback to savepoint effect");
  }

  async purge(limit: number): Promise<number> {
    return (await this.pool.query(PURGE, [limit])).rowCount ?? 0;
  }

  async ping(): Promise<void> {
    await this.pool.query("select 1");
  }

  isAway(error: unknown): boolean {
    return sqlState(error) !== undefined && !this.isFault(error);
  }

  isFault(error: unknown): boolean {
    const code = sqlState(error);
    return code !== undefined && FAILS_AGAIN.includes(code.slice(0, 2)) && !PASSES.includes(code);
  }
}

function sqlState(error: unknown): string | undefined {
  const { code, severity } = (error ?? {}) as { code?: unknown; severity?: unknown };
  return typeof code === "string" && severity !== undefined ? code : undefined;
}
