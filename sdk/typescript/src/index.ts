/** Serves steps of Box Office sagas from a service with a database of its own. The contract is docs/workers.md. */

export type { Command, Fence } from "./command.js";
export type { Database } from "./database.js";
export { done, failed, rejected, unknown, type Json, type JsonObject, type Outcome } from "./outcome.js";
export { Postgres } from "./postgres.js";
export { Sqlite, SqliteTx, type SqliteConnection } from "./sqlite.js";
export { Worker, type Handler, type Options, type Step } from "./worker.js";
