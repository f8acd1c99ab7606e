// Opens pages in Chromium for the tests, and fails a test whose page reports an error or asks another host.

import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { after, test } from "node:test";
import { chromium } from "playwright-core";

/** What the Rust test passed on: addresses, keys, ids. */
export const input = JSON.parse(process.env.BROWSER_TEST_INPUT ?? "{}");

/** Where screenshots go. */
const SHOTS = fileURLToPath(new URL("../../target/browser/", import.meta.url));

/** How long a page may take for one thing; the machine may be busy. */
const ACTION_TIMEOUT_MS = 30_000;

const PROGRAMS = [
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/lib64/chromium-browser/chromium-browser",
  "/usr/bin/google-chrome",
  "/opt/homebrew/bin/chromium",
  "/Applications/Chromium.app/Contents/MacOS/Chromium",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];

const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  // Chromium itself reaches nothing but this machine either.
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
];

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let browser;

/** The one browser of this script, headless, with a fresh profile. */
async function open() {
  const program = PROGRAMS.find((path) => existsSync(path));
  assert.ok(program, "Chromium is missing; run: scripts/deps.sh tests");
  browser ??= await chromium.launch({ executablePath: program, args: ARGUMENTS, headless: true });
  return browser;
}

after(async () => browser?.close());

/** A test of the page; `body` gets a page of a visitor of its own, and `visitor()` for more of them. */
export function pageTest(name, options, body) {
  test(name, { timeout: 240_000 }, async () => {
    const visitors = [];
    const visitor = async (own = {}) => {
      const opened = await openVisitor({ ...options, ...own });
      visitors.push(opened);
      return opened.page;
    };
    try {
      await body(await visitor(), visitor);
      for (const { complaints } of visitors) assert.deepEqual(complaints, []);
    } catch (error) {
      const all = visitors.flatMap(({ complaints }) => complaints);
      if (all.length > 0) console.error("the page complained:", all);
      for (const [at, { page }] of visitors.entries()) await screenshot(page, `failed-${at}-${name}`);
      throw error;
    } finally {
      for (const { context } of visitors) await context.close();
    }
  });
}

/**
 * A context of its own, so with its own storage. Options: width, height, scheme (light, dark), locale, origins (beside the
 * service's own, which the page may ask), expected (a pattern of console errors that belong to the test).
 */
async function openVisitor({ width = 1440, height = 900, scheme = "light", locale = "en-US", origins = [], expected }) {
  const context = await (await open()).newContext({
    viewport: { width, height },
    colorScheme: scheme,
    locale,
    timezoneId: "UTC",
    reducedMotion: "reduce",
  });
  context.setDefaultTimeout(ACTION_TIMEOUT_MS);
  const complaints = [];
  const complain = (text) => {
    if (!expected?.test(text)) complaints.push(text);
  };
  const known = new Set([input.url, ...origins].filter(Boolean).map((url) => new URL(url).origin));
  context.on("request", (request) => {
    const url = new URL(request.url());
    if (["data:", "blob:", "about:"].includes(url.protocol)) return;
    if (!known.has(url.origin)) complaints.push(`it asked another host: ${url}`);
  });
  context.on("page", (page) => {
    page.on("console", (message) => message.type() === "error" && complain(message.text()));
    page.on("pageerror", (error) => complain(String(error.stack ?? error)));
  });
  return { context, page: await context.newPage(), complaints };
}

/** Fails with all that axe finds on the page, as it is now. */
export async function assertAccessible(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const found = violations.flatMap(({ id, help, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${help}\n    ${html}\n    ${failureSummary}`),
  );
  assert.equal(found.length, 0, `${page.url()}\n  ${found.join("\n  ")}`);
}

/** Fails if the page is wider than its window. */
export async function assertNoSidewaysScroll(page) {
  const [wide, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide <= window, `${page.url()} is ${wide} px wide in a window of ${window} px`);
}

/** Keeps what the page looks like under target/browser. */
export async function screenshot(page, name) {
  mkdirSync(SHOTS, { recursive: true });
  const path = `${SHOTS}${name.replaceAll(/[^a-zA-Z0-9-]+/g, "-")}.png`;
  await page.screenshot({ path }).catch((error) => console.error(`no screenshot ${name}: ${error}`));
  return path;
}
