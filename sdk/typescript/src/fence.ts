/** The decisions of the fence. Pure functions: the table of docs/workers.md, checked by sdk/fence-cases.json. */

import type { Command } from "./command.js";
import { done, rejected, type JsonObject, type Outcome } from "./outcome.js";

/** The row of one step of one saga. */
export interface Known {
  visit: number; // the latest visit that was begun
  undone: number; // every do up to this visit is refused
  outcome: Outcome | null; // done or rejected at that visit; null while it is not known
}

export type Decision =
  | { ignore: true } // it belongs to the past: acknowledge it without a reply
  | { reply: Outcome } // answer without running the handler; the row stays as it is
  | { run: { done: JsonObject | null } }; // run the handler; an undo gets the output of the do, if it is known to be done

type Asked = Pick<Command, "direction" | "visit" | "deadline">;

function output(known: Known): JsonObject | null {
  return known.outcome?.outcome === "done" ? known.outcome.output : null;
}

/** Decides about a command by the row and by the clock, both read after the lock. */
export function decide(known: Known, { direction, visit, deadline }: Asked, now: Date): Decision {
  if (direction === "undo") {
    if (visit < known.undone) return { ignore: true };
    if (visit === known.undone) return { reply: done() };
    return { run: { done: output(known) } };
  }
  if (visit <= known.undone || visit < known.visit) return { ignore: true };
  if (known.outcome && (visit === known.visit || known.outcome.outcome === "done")) return { reply: known.outcome };
  if (deadline && now >= deadline) return { reply: rejected("deadline_passed") };
  return { run: { done: null } };
}

/** What the row becomes once the handler ran. `failed` and `unknown` leave only the visit behind. */
export function after(known: Known, { direction, visit }: Asked, outcome: Outcome): Known {
  if (direction === "undo") {
    return outcome.outcome === "done" ? { ...known, undone: Math.max(known.undone, visit), outcome: null } : known;
  }
  const isKept = outcome.outcome === "done" || outcome.outcome === "rejected";
  return { ...known, visit, outcome: isKept ? outcome : null };
}

export type Completed = { version: 1; recorded: true } | { version: 1; recorded: false; outcome: Outcome };

/** Decides about a completion by hand: what the row becomes if it is recorded, and the answer. */
export function complete(known: Known, visit: number, given: JsonObject): [Known | null, Completed] {
  const ran = (outcome: Outcome): [null, Completed] => [null, { version: 1, recorded: false, outcome }];
  if (visit <= known.undone) return ran(rejected("undone"));
  if (known.outcome && (visit === known.visit || known.outcome.outcome === "done")) return ran(known.outcome);
  if (visit < known.visit) return ran(rejected("visit_over"));
  return [{ ...known, visit, outcome: done(given) }, { version: 1, recorded: true }];
}

/** The milliseconds that a command may take: a do at most until its deadline. A late do is answered by the row. */
export function timeLimit(limit: number, { direction, deadline }: Asked, now: Date): number {
  const left = direction === "do" && deadline ? deadline.getTime() - now.getTime() : 0;
  return left > 0 ? Math.min(limit, left) : limit;
}
