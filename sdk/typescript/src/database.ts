/** What the worker needs of a database: transactions, and the rows of the fence in them. */

import type { Fence } from "./command.js";
import type { Known } from "./fence.js";

export interface Database<Tx> {
  /** Makes the table `saga_outcomes` if it is not there. */
  prepare(): Promise<void>;
  /** Commits what `act` did, unless it fails or the signal comes. Then nothing of it stays, and no lock. */
  transaction<T>(signal: AbortSignal, act: (tx: Tx) => Promise<T>): Promise<T>;
  /** Locks the row of a step as the first statement of a transaction, and reads the clock after it. */
  lock(tx: Tx, step: Fence, deadline: Date | null, keepMs: number): Promise<[Known, Date]>;
  save(tx: Tx, step: Fence, known: Known): Promise<void>;
  savepoint(tx: Tx): Promise<void>;
  release(tx: Tx): Promise<void>;
  rollback(tx: Tx): Promise<void>;
  /** Deletes rows that no command can ask for any more, and says how many. */
  purge(limit: number): Promise<number>;
  ping(): Promise<void>;
  /** Whether an error is one of the database and says nothing about the work. */
  isAway(error: unknown): boolean;
  /** Whether the database refused the work itself. */
  isFault(error: unknown): boolean;
}

/** Settles as the work does, or fails once the signal comes. */
export async function unlessAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  work.catch(() => {}); // it may be left behind
  let abort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort);
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
