/** The worker: takes commands, runs handlers behind the fence, replies, and then acknowledges. */

import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { AckPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import type { Consumer, JetStreamClient, JetStreamManager, JsMsg } from "@nats-io/jetstream";
import { nanos, type Msg, type MsgHdrs, type NatsConnection } from "@nats-io/nats-core";
import { Malformed, plainHeaders, readCommand, readCompletion, writeReply, type Command } from "./command.js";
import type { Database } from "./database.js";
import { after, complete, decide, timeLimit } from "./fence.js";
import { check, failed, isTooLarge, unknown, type Outcome } from "./outcome.js";
import { announce, ServiceError } from "./presence.js";

const STREAM = "STEPS";
const DAY_MS = 24 * 3600 * 1000;
const ACK_WAIT_MS = 3_000;
const MAX_DELIVER = 20;
const MAX_ACK_PENDING = 4_096;
const AT_ONCE = 8; // commands of one kind under way at once, each in a transaction of its own
const FETCH_TIMEOUT_MS = 5_000;
const PROGRESS_INTERVAL_MS = 1_000; // well within the wait for an acknowledgement
const PUBLISH_TIMEOUT_MS = 12_000; // for all tries; a leader election takes 8 s
const PUBLISH_ACK_TIMEOUT_MS = 5_000; // for one try
const COMPLETE_TIMEOUT_MS = 4_000; // the engine wants an answer within 5 s
const REOPEN_PAUSE_MS = 250;
const PUT_OFF_MOST = 10; // deliveries after which a command is left to the sweeper while the database is away
const LONGEST_PAUSE_MS = 60_000;
const PURGE_INTERVAL_MS = 600_000;
const PURGE_BATCH = 5_000;

/**
 * Does or undoes a step. What it writes through `tx` stays only if it returns `done()`; it does not commit. An exception is
 * answered `failed` with the code `handler_failed`. When the signal comes, the transaction is over and the answer is `unknown`.
 */
export type Handler<Tx> = (tx: Tx, command: Command, signal: AbortSignal) => Promise<Outcome>;

export interface Options {
  keepMs?: number; // how long outcomes are kept: 30 days
  longestDeadlineMs?: number; // that of the workflows whose steps it serves: a day
  limitMs?: number; // how long one handler may take, a do at most until its deadline: 30 seconds
  log?: (message: string, error?: unknown) => void;
}

export interface Step<Tx> {
  do: [command: string, handler: Handler<Tx>];
  undo?: [command: string, handler: Handler<Tx>];
}

/** Nothing is known of the step: the database cannot be used now. */
class DatabaseAway extends Error {}

/** A service, its database, and a handler for each of its commands. */
export class Worker<Tx> {
  readonly instance = `${hostname()}:${process.pid}`;
  private readonly options: Required<Options>;
  private readonly handlers = new Map<string, Handler<Tx>>();

  constructor(readonly service: string, readonly database: Database<Tx>, options: Options = {}) {
    const log = (message: string, error?: unknown) => console.error(new Date().toISOString(), message, error ?? "");
    this.options = { keepMs: 30 * DAY_MS, longestDeadlineMs: DAY_MS, limitMs: 30_000, log, ...options };
  }

  /** Serves a step by the names of its commands. */
  step(step: Step<Tx>): this {
    for (const [command, handler] of [step.do, ...(step.undo ? [step.undo] : [])]) {
      if (command.split(".")[0] !== this.service) throw new Error(`${command} must begin with ${this.service}.`);
      this.handlers.set(command, handler);
    }
    return this;
  }

  /** Serves until the signal comes, then finishes the commands in hand. Fails if a part of it ends before that. */
  async run(client: NatsConnection, signal: AbortSignal, { domain }: { domain?: string | undefined } = {}): Promise<void> {
    const js = jetstream(client, domain ? { domain } : {});
    const manager = await jetstreamManager(client, { checkAPI: false, ...(domain ? { domain } : {}) });
    await this.checkKeep(manager);
    await this.database.prepare();
    const withdraw = announce(client, {
      name: this.service,
      version: "0.1.0",
      metadata: { commands: [...this.handlers.keys()].sort().join(","), instance: this.instance },
      endpoint: { name: "complete", subject: `fences.${this.service}.complete`, handler: (message) => this.complete(message) },
    });
    const ended = new AbortController();
    const stop = AbortSignal.any([signal, ended.signal]);
    stop.addEventListener("abort", () => void withdraw());
    const loops = [...this.handlers].map(([command, handler]) => this.serve(js, manager, command, handler, stop));
    loops.push(this.purge(stop));
    // A loop that fails stops the others.
    const settled = await Promise.allSettled(loops.map((loop) => loop.finally(() => ended.abort())));
    if (!client.isClosed()) await client.flush(); // the last acknowledgements
    for (const result of settled) if (result.status === "rejected") throw result.reason;
  }

  /** A row that is deleted too early would let an old command through. */
  private async checkKeep(manager: JetStreamManager): Promise<void> {
    const ageMs = (await manager.streams.info(STREAM)).config.max_age / 1e6;
    const { keepMs, longestDeadlineMs } = this.options;
    if (!ageMs) throw new Error(`the stream ${STREAM} keeps messages for ever, so no outcome may be deleted; give it a max_age`);
    if (keepMs <= longestDeadlineMs + ageMs) {
      throw new Error(
        `outcomes are kept for ${keepMs} ms, but a command may come for ${longestDeadlineMs} ms (the longest deadline) and ` +
          `then ${ageMs} ms (the age of the stream ${STREAM}); keep them for longer`,
      );
    }
  }

  // ---- completion by hand

  private async complete(message: Msg): Promise<string> {
    const [step, output] = (() => {
      try {
        return readCompletion(plainHeaders(message.headers), message.data);
      } catch (error) {
        throw error instanceof Malformed ? new ServiceError(400, error.message) : error;
      }
    })();
    try {
      return await this.database.transaction(AbortSignal.timeout(COMPLETE_TIMEOUT_MS), async (tx) => {
        const [known] = await this.database.lock(tx, step, null, this.options.keepMs);
        const [becomes, answer] = complete(known, step.visit, output);
        if (becomes) await this.database.save(tx, step, becomes);
        return JSON.stringify(answer);
      });
    } catch (error) {
      this.options.log(`step ${step.step} of saga ${step.saga} was not completed by hand`, error);
      throw new ServiceError(503, "its database cannot be used now");
    }
  }

  // ---- commands

  /** Takes one command's messages. Each delivery counts: while the database is away, it asks for none. */
  private async serve(js: JetStreamClient, manager: JetStreamManager, command: string, handler: Handler<Tx>, stop: AbortSignal) {
    const inHand = new Set<Promise<void>>();
    let consumer: Consumer | null = null;
    let away = new AbortController();
    let interrupt = AbortSignal.any([stop, away.signal]);
    while (!stop.aborted) {
      if (away.signal.aborted) {
        await this.waitForDatabase(stop);
        away = new AbortController();
        interrupt = AbortSignal.any([stop, away.signal]);
      }
      if (inHand.size >= AT_ONCE) {
        await Promise.race(inHand);
        continue;
      }
      try {
        consumer ??= await this.openConsumer(js, manager, command);
        const message = await next(consumer, interrupt);
        if (!message) continue;
        const markAway = away;
        const handling = this.take(js, handler, message).then((isAnswered) => {
          inHand.delete(handling);
          if (!isAnswered) markAway.abort();
        });
        inHand.add(handling);
      } catch (error) {
        this.options.log(`receiving ${command} again after an interruption`, error);
        consumer = null;
        await pause(REOPEN_PAUSE_MS, stop);
      }
    }
    await Promise.all(inHand);
  }

  /** A worker may have no right to make the consumer: the engine does, once the worker has announced the command. */
  private async openConsumer(js: JetStreamClient, manager: JetStreamManager, command: string): Promise<Consumer> {
    const name = command.replaceAll(".", "-");
    try {
      await manager.consumers.info(STREAM, name);
    } catch (error) {
      if ((error as { code?: unknown }).code !== 10014) throw error; // it is not there
      await manager.consumers.add(STREAM, {
        durable_name: name,
        filter_subject: `steps.${command}`,
        ack_policy: AckPolicy.Explicit,
        ack_wait: nanos(ACK_WAIT_MS),
        max_deliver: MAX_DELIVER,
        max_ack_pending: MAX_ACK_PENDING,
      });
    }
    return js.consumers.get(STREAM, name);
  }

  private async waitForDatabase(stop: AbortSignal): Promise<void> {
    for (let delay = 50; !stop.aborted; delay = Math.min(1_000, 2 * delay)) {
      try {
        return await this.database.ping();
      } catch (error) {
        this.options.log("the service's database does not answer", error);
      }
      await pause(delay, stop);
    }
  }

  /** Handles one message. Whatever goes wrong, it comes again. False if the database is away. */
  private async take(js: JetStreamClient, handler: Handler<Tx>, message: JsMsg): Promise<boolean> {
    const delivered = message.info.deliveryCount;
    const progress = setInterval(() => message.working(), PROGRESS_INTERVAL_MS);
    try {
      const command = readCommand(message.subject, plainHeaders(message.headers), message.data);
      const outcome = await this.answer(command, handler);
      if (outcome) await publish(js, ...writeReply(command, outcome, this.instance));
      message.ack();
      return true;
    } catch (error) {
      this.options.log(`${message.subject} was not handled (delivery ${delivered})`, error);
      const isAway = error instanceof DatabaseAway;
      if (isAway && delivered >= PUT_OFF_MOST) message.ack(); // the saga's row still asks for it; the sweeper sends it anew
      else message.nak(pauseAfter(delivered));
      return !isAway;
    } finally {
      clearInterval(progress);
    }
  }

  /** The answer to a command, committed with its effect; null if the command belongs to the past. */
  private async answer(command: Command, handler: Handler<Tx>): Promise<Outcome | null> {
    const limit = Math.ceil(timeLimit(this.options.limitMs, command, new Date()));
    const limited = AbortSignal.timeout(limit);
    try {
      return await this.database.transaction(limited, async (tx) => {
        const [known, now] = await this.database.lock(tx, command, command.deadline, this.options.keepMs);
        const decision = decide(known, command, now);
        if ("ignore" in decision) return null;
        if ("reply" in decision) return decision.reply;
        const outcome = await this.act(tx, { ...command, done: decision.run.done }, handler, limited);
        await this.database.save(tx, command, after(known, command, outcome));
        return outcome;
      });
    } catch (error) {
      if (limited.aborted) {
        this.options.log(`the handler of step ${command.step} of saga ${command.saga} was cut off after ${limit} ms`);
        return unknown(`the function did not end within ${limit} ms`);
      }
      throw this.database.isFault(error) ? error : new DatabaseAway(String(error), { cause: error });
    }
  }

  /** Runs the handler; its writes stay only if it returns `done()`. */
  private async act(tx: Tx, command: Command, handler: Handler<Tx>, signal: AbortSignal): Promise<Outcome> {
    await this.database.savepoint(tx);
    let outcome: Outcome;
    try {
      outcome = check(await handler(tx, command, signal));
      if (outcome.outcome === "done" && isTooLarge(command.context, outcome.output)) {
        this.options.log(`the output of step ${command.step} of saga ${command.saga} is too large`);
        outcome = failed("output_too_large");
      }
    } catch (error) {
      if (signal.aborted || this.database.isAway(error)) throw error;
      this.options.log(`the handler of step ${command.step} of saga ${command.saga} failed`, error);
      outcome = failed("handler_failed");
    }
    await (outcome.outcome === "done" ? this.database.release(tx) : this.database.rollback(tx));
    return outcome;
  }

  private async purge(stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      try {
        if ((await this.database.purge(PURGE_BATCH)) === PURGE_BATCH) continue;
      } catch (error) {
        this.options.log("old outcomes were not deleted", error);
      }
      await pause(PURGE_INTERVAL_MS, stop);
    }
  }
}

/** The pause before a message comes again: doubles with every delivery, from a quarter of a second to a minute. */
export function pauseAfter(delivered: number): number {
  return Math.min(LONGEST_PAUSE_MS, 250 * 2 ** (Math.min(Math.max(delivered, 1), 20) - 1));
}

/** The next message; null if there is none for a while, or once the signal comes. */
async function next(consumer: Consumer, signal: AbortSignal): Promise<JsMsg | null> {
  if (signal.aborted) return null;
  const begin = Date.now();
  const messages = await consumer.fetch({ max_messages: 1, expires: FETCH_TIMEOUT_MS });
  const close = () => void messages.close();
  signal.addEventListener("abort", close);
  try {
    for await (const message of messages) return message;
  } finally {
    signal.removeEventListener("abort", close);
  }
  if (!signal.aborted && Date.now() - begin < FETCH_TIMEOUT_MS / 2) {
    throw new Error("the consumer is not there, or NATS is away");
  }
  return null;
}

/** Returns once JetStream has the reply. It may be stored twice: the engine is fenced, too. */
async function publish(js: JetStreamClient, subject: string, headers: MsgHdrs, body: string): Promise<void> {
  const late = Date.now() + PUBLISH_TIMEOUT_MS;
  for (let delay = 50; ; delay = Math.min(1_000, 2 * delay)) {
    try {
      await js.publish(subject, body, { headers, timeout: Math.min(PUBLISH_ACK_TIMEOUT_MS, Math.max(1, late - Date.now())) });
      return;
    } catch (error) {
      if (Date.now() + delay > late) throw error;
    }
    await sleep(delay);
  }
}

async function pause(delay: number, stop: AbortSignal): Promise<void> {
  await sleep(delay, undefined, { signal: stop }).catch(() => {});
}
