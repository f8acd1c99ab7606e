/** Reading commands and writing replies: headers, and JSON with a version. */

import { headers as newHeaders, type MsgHdrs } from "@nats-io/nats-core";
import { check, isObject, type Json, type JsonObject, type Outcome } from "./outcome.js";

const COPIED = ["Saga", "Step", "Direction", "Visit", "Send", "Message-Id", "traceparent"];
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const RFC_3339 = /^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})$/;

/** A message that is not of its form. It is not acknowledged; in the end the orchestrator keeps it for an operator. */
export class Malformed extends Error {}

/** The step of a saga at a visit. */
export interface Fence {
  saga: string; // a UUID
  step: string;
  direction: "do" | "undo";
  visit: number;
  send: number;
}

/** What a handler is asked. */
export interface Command extends Fence {
  deadline: Date | null; // only on a do
  command: string; // such as "printer.print"
  workflow: string;
  reason: string | null; // on an undo: why the saga turned back
  context: Json; // the saga's input and the outputs of its earlier steps
  done: JsonObject | null; // on an undo: the output of the do, if it is known to be done
  headers: Record<string, string>;
}

export function plainHeaders(given: MsgHdrs | undefined): Record<string, string> {
  return Object.fromEntries((given?.keys() ?? []).map((name) => [name, given!.get(name)]));
}

export function readFence(headers: Record<string, string>): Fence {
  const { Saga: saga = "", Step: step, Direction: direction } = headers;
  if (!UUID.test(saga)) throw new Malformed("the header Saga is missing or not a UUID");
  if (direction !== "do" && direction !== "undo") throw new Malformed("the header Direction must be do or undo");
  if (step === undefined || step.includes("\0")) throw new Malformed("the header Step is missing or cannot be kept");
  return { saga: saga.toLowerCase(), step, direction, visit: readNumber(headers, "Visit"), send: readNumber(headers, "Send", "0") };
}

function readNumber(headers: Record<string, string>, name: string, missing = ""): number {
  const text = headers[name] ?? missing;
  const number = Number(text);
  if (!/^[+-]?\d{1,10}$/.test(text) || number < -(2 ** 31) || number >= 2 ** 31) {
    throw new Malformed(`the header ${name} is missing or not a number of 32 bits`);
  }
  return number;
}

function readBody(data: Uint8Array): JsonObject {
  let body: Json;
  try {
    body = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(data)) as Json;
  } catch (error) {
    throw new Malformed(`the body is not JSON: ${error}`);
  }
  if (!isObject(body) || body["version"] !== 1) throw new Malformed("the body is not an object of version 1");
  return body;
}

export function readCommand(subject: string, headers: Record<string, string>, data: Uint8Array): Command {
  const fence = readFence(headers);
  const { workflow, context, reason = null } = readBody(data);
  if (typeof workflow !== "string" || context === undefined) throw new Malformed("the body lacks workflow or context");
  if (reason !== null && (typeof reason !== "string" || reason.includes("\0"))) {
    throw new Malformed("the reason is no text or cannot be kept");
  }
  const command = subject.replace(/^steps\./, "");
  return { ...fence, deadline: readDeadline(headers["Deadline"]), command, workflow, reason, context, done: null, headers };
}

function readDeadline(text: string | undefined): Date | null {
  if (text === undefined) return null;
  const deadline = new Date(text);
  const year = deadline.getUTCFullYear();
  if (!RFC_3339.test(text) || !(year >= 2000 && year < 2200)) {
    throw new Malformed("the header Deadline must be of RFC 3339 and lie between the years 2000 and 2200");
  }
  return deadline;
}

/** A completion by hand: the step, and the output that it is given. */
export function readCompletion(headers: Record<string, string>, data: Uint8Array): [Fence, JsonObject] {
  const fence = readFence(headers);
  if (fence.direction !== "do") throw new Malformed("the header Direction of a completion must be do");
  const { output = {} } = readBody(data);
  try {
    check({ outcome: "done", output });
  } catch (error) {
    throw new Malformed(String(error));
  }
  return [fence, output as JsonObject];
}

/** Subject, headers and body of the reply to a command. */
export function writeReply(command: Command, outcome: Outcome, worker: string): [string, MsgHdrs, string] {
  const headers = newHeaders();
  for (const name of COPIED) {
    const value = command.headers[name];
    if (value !== undefined) headers.set(name, value);
  }
  headers.set("Worker", worker);
  return [`sagas.reply.${command.command.split(".")[0]}`, headers, JSON.stringify({ version: 1, ...outcome })];
}
