/** The fence in SQLite: the table `saga_outcomes` beside the worker's own tables, in one file. */

import { setTimeout as sleep } from "node:timers/promises";
import type { Fence } from "./command.js";
import { unlessAborted, type Database } from "./database.js";
import type { Known } from "./fence.js";

/** A connection of `better-sqlite3`, or of `node:sqlite`. */
export interface SqliteConnection {
  exec(sql: string): unknown;
  prepare(sql: string): {
    run(...values: any[]): { changes: number | bigint };
    get(...values: any[]): unknown;
    all(...values: any[]): unknown[];
  };
}

const TABLE = `
  create table if not exists saga_outcomes (
    saga text not null,
    step text not null,
    visit integer not null default 0,
    undone integer not null default 0,
    outcome text,
    keep_until integer not null, -- milliseconds since 1970
    primary key (saga, step)
  );
  create index if not exists saga_outcomes_keep_until on saga_outcomes (keep_until);`;
const LOCK = `
  insert into saga_outcomes (saga, step, keep_until) values (?, ?, ?)
  on conflict (saga, step) do update set keep_until = max(keep_until, excluded.keep_until)
  returning visit, undone, outcome`;
const SAVE = "update saga_outcomes set visit = ?, undone = ?, outcome = ? where saga = ? and step = ?";
const PURGE = "delete from saga_outcomes where rowid in (select rowid from saga_outcomes where keep_until < ? limit ?)";
// PERM, BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL
const AWAY = [3, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15];
const AWAY_NAMES = /^SQLITE_(PERM|BUSY|LOCKED|NOMEM|READONLY|INTERRUPT|IOERR|CORRUPT|FULL|CANTOPEN|PROTOCOL)/;
const LOCK_TIMEOUT = 5_000;
const LOCK_INTERVAL = 20;

/** What a handler gets: the connection, as long as its transaction is open. */
export class SqliteTx {
  isOver = false;

  constructor(private readonly connection: SqliteConnection) {}

  run(sql: string, ...values: unknown[]): { changes: number | bigint } {
    return this.prepare(sql).run(...values);
  }

  get(sql: string, ...values: unknown[]): unknown {
    return this.prepare(sql).get(...values);
  }

  all(sql: string, ...values: unknown[]): unknown[] {
    return this.prepare(sql).all(...values);
  }

  private prepare(sql: string) {
    if (this.isOver) throw new Error("the transaction is over");
    return this.connection.prepare(sql);
  }
}

/**
 * Keeps fence and effects in one SQLite file. One handler runs at a time, because SQLite has one writer. Statements run on the
 * event loop; keep them short.
 */
export class Sqlite implements Database<SqliteTx> {
  private turn: Promise<unknown> = Promise.resolve();

  constructor(readonly connection: SqliteConnection) {
    connection.exec("pragma journal_mode = wal");
    connection.exec("pragma busy_timeout = 0"); // waiting here would hold up the event loop
  }

  async prepare(): Promise<void> {
    await this.transaction(new AbortController().signal, async () => this.connection.exec(TABLE));
  }

  async transaction<T>(signal: AbortSignal, act: (tx: SqliteTx) => Promise<T>): Promise<T> {
    const before = this.turn;
    let finish = () => {};
    const finished = new Promise<void>((resolve) => (finish = resolve));
    this.turn = before.then(() => finished);
    try {
      await unlessAborted(signal, before);
      await this.begin();
      const tx = new SqliteTx(this.connection);
      try {
        const result = await unlessAborted(signal, act(tx));
        this.connection.exec("commit");
        return result;
      } catch (error) {
        try {
          this.connection.exec("rollback");
        } catch {} // SQLite has ended the transaction by itself
        throw error;
      } finally {
        tx.isOver = true;
      }
    } finally {
      finish();
    }
  }

  /** Takes SQLite's write lock. Other processes may have it for a while. */
  private async begin(): Promise<void> {
    const late = Date.now() + LOCK_TIMEOUT;
    for (;;) {
      try {
        this.connection.exec("begin immediate");
        return;
      } catch (error) {
        if (!this.isAway(error) || Date.now() > late) throw error;
      }
      await sleep(LOCK_INTERVAL);
    }
  }

  async lock(tx: SqliteTx, { saga, step }: Fence, deadline: Date | null, keepMs: number): Promise<[Known, Date]> {
    const now = new Date();
    const keepUntil = Math.ceil(Math.max(now.getTime(), deadline?.getTime() ?? 0) + keepMs);
    const row = tx.get(LOCK, saga, step, keepUntil) as { visit: number; undone: number; outcome: string | null };
    return [{ ...row, outcome: row.outcome === null ? null : JSON.parse(row.outcome) }, now];
  }

  async save(tx: SqliteTx, { saga, step }: Fence, { visit, undone, outcome }: Known): Promise<void> {
    tx.run(SAVE, visit, undone, outcome && JSON.stringify(outcome), saga, step);
  }

  async savepoint(tx: SqliteTx): Promise<void> {
    tx.run("savepoint effect");
  }

  async release(tx: SqliteTx): Promise<void> {
    tx.run("release effect");
  }

  async rollback(tx: SqliteTx): Promise<void> {
    tx.run("rollback to effect");
  }

  async purge(limit: number): Promise<number> {
    const signal = new AbortController().signal;
    return this.transaction(signal, async (tx) => Number(tx.run(PURGE, Date.now(), limit).changes));
  }

  async ping(): Promise<void> {
    await this.purge(0);
  }

  isAway(error: unknown): boolean {
    const { code, errcode } = (error ?? {}) as { code?: unknown; errcode?: unknown };
    return AWAY_NAMES.test(String(code)) || (typeof errcode === "number" && AWAY.includes(errcode & 0xff));
  }

  isFault(error: unknown): boolean {
    const { code, errcode } = (error ?? {}) as { code?: unknown; errcode?: unknown };
    return (/^SQLITE_/.test(String(code)) || errcode !== undefined) && !this.isAway(error);
  }
}
