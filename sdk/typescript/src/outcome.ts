/** What a worker answers, and what of it the engine can keep. */

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
export type JsonObject = { [name: string]: Json };

export type Outcome =
  | { outcome: "done"; output: JsonObject }
  | { outcome: "rejected"; code: string; detail: Json }
  | { outcome: "failed"; code: string }
  | { outcome: "unknown"; reason: string };

/** The effect is there. The output joins the saga's context. */
export const done = (output: JsonObject = {}): Outcome => ({ outcome: "done", output });
/** A business no: nothing was done, and asking again would not change it. */
export const rejected = (code: string, detail: Json = null): Outcome => ({ outcome: "rejected", code, detail });
/** Nothing was done this time. The engine tries again. */
export const failed = (code: string): Outcome => ({ outcome: "failed", code });
/** The effect may have taken place. The engine asks again with the same visit. */
export const unknown = (reason: string): Outcome => ({ outcome: "unknown", reason });

export const OUTPUT_BYTES_MAX = 256 * 1024; // the output of one step
export const CONTEXT_BYTES_MAX = 768 * 1024; // the input and all outputs of a saga together
const DEPTH_MAX = 64; // levels of arrays and objects

const TEXTS: Record<string, string[]> = { done: [], rejected: ["code"], failed: ["code"], unknown: ["reason"] };

/** The outcome as JSON has it. Throws if the engine's database cannot keep it. */
export function check(given: unknown): Outcome {
  const text = JSON.stringify(given, (_name, value: unknown) => {
    if (typeof value === "bigint" || (typeof value === "number" && !Number.isFinite(value))) {
      throw new Error(`${value} is no number that JSON has; send it as a string`);
    }
    return value;
  }) as string | undefined;
  const outcome = JSON.parse(text ?? "null") as JsonObject | null;
  const texts = TEXTS[String(outcome?.["outcome"])];
  if (!outcome || !texts || texts.some((name) => typeof outcome[name] !== "string")) {
    throw new Error(`a handler must return done(), rejected(), failed() or unknown(), not ${text?.slice(0, 200)}`);
  }
  if (outcome["outcome"] === "done" && !isObject(outcome["output"])) throw new Error("an output must be an object");
  for (const name of ["output", "code", "detail", "reason"]) checkValue(outcome[name] ?? null, name, 1);
  return outcome as Outcome;
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function checkValue(value: Json, where: string, depth: number): void {
  if (typeof value === "string") {
    if (value.includes("\0")) throw new Error(`${where} must not have the character U+0000 in it`);
    if (!value.isWellFormed()) throw new Error(`${where} has half a character in it`);
  } else if (typeof value === "number") {
    const digits = value.toExponential().split("e")[0]!.replace(/[^0-9]/g, "").length;
    const isWhole64 = Number.isInteger(value) && value >= -(2 ** 63) && value < 2 ** 64 && !String(value).includes("e");
    if (Math.abs(value) > 2 ** 53 && digits > 15 && !isWhole64) {
      throw new Error(`${where} is a number that would be rounded; send it as a string`);
    }
  } else if (typeof value === "object" && value !== null) {
    if (depth > DEPTH_MAX) throw new Error(`${where} is nested too deep: ${DEPTH_MAX} levels are possible`);
    for (const [name, item] of Object.entries(value)) {
      checkValue(name, where, depth);
      checkValue(item, `${where}/${name}`, depth + 1);
    }
  }
}

/** Whether an output would fit no message, alone or with what the saga knows already. */
export function isTooLarge(context: Json, output: JsonObject): boolean {
  const size = jsonBytes(output);
  return size > OUTPUT_BYTES_MAX || jsonBytes(context) + size > CONTEXT_BYTES_MAX;
}

/** The size as the engine counts it: at least that of the JSON, with 24 bytes for each number. */
export function jsonBytes(value: Json): number {
  if (value === null || value === true) return 4;
  if (value === false) return 5;
  if (typeof value === "number") return 24;
  if (typeof value === "string") {
    const quotes = value.match(/["\\]/g)?.length ?? 0;
    const controls = value.match(/[\u0000-\u001f]/g)?.length ?? 0;
    return 2 + Buffer.byteLength(value) + quotes + 5 * controls;
  }
  if (Array.isArray(value)) return value.reduce<number>((size, item) => size + 1 + jsonBytes(item), 2);
  return Object.entries(value).reduce((size, [name, item]) => size + 2 + jsonBytes(name) + jsonBytes(item), 2);
}
