/** The cases of sdk/fence-cases.json, which every SDK runs; and messages and limits. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Malformed, readCommand, readCompletion, writeReply, plainHeaders } from "../src/command.js";
import { after, complete, decide, timeLimit } from "../src/fence.js";
import { check, done, isTooLarge, jsonBytes, OUTPUT_BYTES_MAX, type Json } from "../src/outcome.js";
import { Postgres } from "../src/postgres.js";
import { pauseAfter, Worker } from "../src/worker.js";

const ROOT = new URL("../../../", import.meta.url); // sdk/
const CASES = JSON.parse(readFileSync(new URL("fence-cases.json", ROOT), "utf8"));
const NOW = new Date("2027-01-15T00:00:00Z");
const SAGA = "01a1fcbd-1604-7519-a173-55615421f06d";

function asked({ direction, visit = 1, deadline_s }: { direction: "do" | "undo"; visit?: number; deadline_s?: number | null }) {
  return { direction, visit, deadline: deadline_s == null ? null : new Date(NOW.getTime() + 1000 * deadline_s) };
}

for (const c of CASES.decide) {
  test(`decide: ${c.name}`, () => assert.deepEqual(decide(c.known, asked(c.command), NOW), c.decision));
}
for (const c of CASES.after) {
  test(`after: ${c.name}`, () => assert.deepEqual(after(c.known, asked(c.command), c.outcome), c.becomes));
}
for (const c of CASES.complete) {
  test(`complete: ${c.name}`, () => assert.deepEqual(complete(c.known, c.visit, c.output), [c.becomes, c.answer]));
}
for (const c of CASES.limit) {
  test(`limit: ${c.name}`, () => assert.equal(timeLimit(1000 * c.limit_s, asked(c), NOW), 1000 * c.expected_s));
}
for (const c of CASES.outcomes) {
  test(`outcome: ${c.name}`, () => {
    if (c.can_be_kept) assert.deepEqual(check(c.outcome), c.outcome);
    else assert.throws(() => check(c.outcome));
  });
}
for (const [name, codes] of Object.entries<string[]>(CASES.sqlstates)) {
  for (const code of codes) {
    test(`SQLSTATE ${code}: ${name}`, () => {
      const database = new Postgres({ on: () => {} } as never);
      const error = { code, severity: "ERROR" };
      assert.deepEqual([database.isAway(error), database.isFault(error)], name === "the database is away" ? [true, false] : [false, true]);
    });
  }
}

test("depth has a bound", () => {
  let nested: Json = 1;
  for (let level = 0; level < 63; level++) nested = [nested];
  check(done({ a: nested }));
  assert.throws(() => check(done({ a: [nested] })));
});

test("values that JSON lacks are refused", () => {
  for (const value of [NaN, Infinity, 2n, "\ud800"]) assert.throws(() => check(done({ a: value as Json })));
  for (const outcome of [undefined, null, "done", [], {}]) assert.throws(() => check(outcome));
});

test("large outputs are found", () => {
  assert.equal(isTooLarge({}, { x: "y".repeat(OUTPUT_BYTES_MAX - 100) }), false);
  assert.equal(isTooLarge({}, { x: "y".repeat(OUTPUT_BYTES_MAX) }), true);
  assert.equal(isTooLarge("z".repeat(768 * 1024 - 1_000), { x: "y".repeat(2_000) }), true);
});

test("JSON is never larger than counted", () => {
  const value = { a: [1, -2.5e-300, null, true, false], '\u0001"\\': "é\n", b: {} };
  const real = Buffer.byteLength(JSON.stringify(value));
  assert.ok(real <= jsonBytes(value) && jsonBytes(value) < real + 60);
});

const HEADERS = { Saga: SAGA, Step: "print", Direction: "do", Visit: "2", Send: "1", "Message-Id": "m" };
const bytes = (text: string) => new TextEncoder().encode(text);
const BODY = bytes('{"version":1,"workflow":"party","context":{"how":""},"new":1}');

test("a command is read and answered", () => {
  const read = readCommand("steps.printer.print", { ...HEADERS, Deadline: "2027-01-15T00:00:00.123456Z" }, BODY);
  assert.deepEqual([read.saga, read.visit, read.send, read.command], [SAGA, 2, 1, "printer.print"]);
  assert.equal(read.deadline?.toISOString(), "2027-01-15T00:00:00.123Z");
  const [subject, headers, body] = writeReply(read, done({ badge: 1 }), "host:1");
  assert.equal(subject, "sagas.reply.printer");
  assert.deepEqual(plainHeaders(headers), { ...HEADERS, Worker: "host:1" });
  assert.deepEqual(JSON.parse(body), { version: 1, outcome: "done", output: { badge: 1 } });
});

test("malformed commands are refused", () => {
  const changes: [string, string][] = [
    ["Saga", "x"], ["Direction", "redo"], ["Visit", "one"], ["Visit", "2147483648"], ["Send", "x"], ["Deadline", "soon"],
    ["Deadline", "2027-01-15T00:00:00"], ["Deadline", "1999-01-15T00:00:00Z"],
  ];
  for (const [name, value] of changes) {
    assert.throws(() => readCommand("steps.printer.print", { ...HEADERS, [name]: value }, BODY), Malformed, `${name} ${value}`);
  }
  for (const name of ["Saga", "Step", "Direction", "Visit"]) {
    const headers = Object.fromEntries(Object.entries(HEADERS).filter(([one]) => one !== name));
    assert.throws(() => readCommand("steps.printer.print", headers, BODY), Malformed, name);
  }
  for (const body of ["", "[]", '{"version":2,"workflow":"w","context":{}}', '{"version":1,"workflow":"w"}']) {
    assert.throws(() => readCommand("steps.printer.print", HEADERS, bytes(body)), Malformed, body);
  }
});

test("malformed completions are refused", () => {
  assert.deepEqual(readCompletion(HEADERS, bytes('{"version":1}'))[1], {});
  for (const body of ['{"version":1,"output":[]}', '{"version":1,"output":{"a":"\\u0000"}}']) {
    assert.throws(() => readCompletion(HEADERS, bytes(body)), Malformed, body);
  }
  assert.throws(() => readCompletion({ ...HEADERS, Direction: "undo" }, bytes('{"version":1}')), Malformed);
});

test("commands belong to the service", () => {
  const worker = new Worker<null>("printer", null as never);
  assert.throws(() => worker.step({ do: ["seats.hold", async () => done()] }));
});

test("the pause grows to a minute", () => assert.deepEqual([1, 4, 1_000].map(pauseAfter), [250, 2_000, 60_000]));

test("the README shows the example as it is", () => {
  const example = readFileSync(new URL("typescript/examples/badges.ts", ROOT), "utf8");
  assert.ok(readFileSync(new URL("typescript/README.md", ROOT), "utf8").includes("```ts\n" + example + "```"));
});
