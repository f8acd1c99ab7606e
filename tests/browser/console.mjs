import assert from "node:assert/strict";
import { assertAccessible, assertNoSidewaysScroll, input, pageTest, screenshot } from "./harness.mjs";

const CONSOLE = `${input.url}/console/`;

async function signIn(page, key = input.operator, at = "") {
  await page.goto(CONSOLE + at);
  await page.getByLabel("API key").fill(key);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("button", { name: "Sign out" }).waitFor();
}

/** A page of the console, shown and loaded. */
async function show(page, hash, title) {
  await page.evaluate((to) => { location.hash = to; }, hash);
  await page.getByRole("heading", { level: 1, name: title }).waitFor();
  await page.locator("main:not([aria-busy])").waitFor();
}

pageTest("a stuck saga is found by its reason and retried", {}, async (page) => {
  await signIn(page);
  await page.getByRole("link", { name: /Stuck sagas/ }).click();
  await page.getByRole("table").getByText("the printer burns").waitFor();
  await page.keyboard.press("/");
  await page.keyboard.type("PRINTER");
  await page.keyboard.press("Enter");
  await page.waitForURL(/reason_contains=PRINTER/);
  await page.getByRole("link", { name: `Saga ${input.lone}` }).click();
  await page.getByText(/an operator can retry/).waitFor();
  await page.getByRole("button", { name: "Retry" }).click();
  const dialog = page.getByRole("dialog");
  await assertAccessible(page);
  await dialog.getByRole("button", { name: "Retry" }).click();
  assert.ok(await dialog.isVisible(), "it asks for a reason");
  await dialog.getByLabel("Reason").fill("printer mended");
  await dialog.getByRole("button", { name: "Retry" }).click();
  await page.getByText("retry: done").first().waitFor();
  await page.locator(".facts").getByText("compensated", { exact: true }).waitFor();
  await page.getByRole("table", { name: /Acts on this saga/ }).getByText("printer mended").waitFor();
});

pageTest("a batch is tried out, started and watched to its end", {}, async (page) => {
  await signIn(page, input.operator, "#/sagas?status=stuck");
  await page.getByRole("link", { name: /Act on all of these/ }).click();
  await page.getByLabel("Reason", { exact: true }).fill("all mended");
  await page.getByRole("button", { name: "Dry run" }).click();
  await page.getByText(`${input.batch} would be done, 0 refused`).waitFor();
  await page.getByLabel("Acts per second").fill("2");
  await page.getByRole("button", { name: "Start" }).click();
  const bar = page.getByRole("progressbar");
  await bar.waitFor();
  // It is seen on its way, neither at its beginning nor at its end.
  await page.waitForFunction(() => {
    const seen = document.querySelector("progress");
    return seen && seen.value > 0 && seen.value < seen.max;
  });
  await assertAccessible(page);
  await screenshot(page, "batch-running");
  await page.getByRole("main").getByText("completed", { exact: true }).waitFor({ timeout: 60_000 });
  assert.equal(Number(await bar.getAttribute("value")), input.batch);
  await page.getByRole("link", { name: "Batches" }).click();
  await page.getByRole("table").getByText(`${input.batch} of ${input.batch}`).waitFor();
});

pageTest("markup in a saga's input is shown as text", {}, async (page) => {
  await signIn(page, input.operator, `#/sagas/${input.waiting}`);
  const shown = page.getByRole("region", { name: "Input" });
  await shown.waitFor();
  assert.equal(JSON.parse(await shown.textContent()).note, input.script);
  assert.equal(await page.locator("main script, main img").count(), 0);
  assert.equal(await page.evaluate(() => globalThis.hacked), undefined);
});

pageTest("sagas are found by an attribute, and a saga leads to its trace", {}, async (page) => {
  await signIn(page, input.operator, "#/sagas");
  await page.getByText("More filters").click();
  await page.getByLabel("Attribute (name=value)").fill("city=Oslo");
  await page.getByRole("button", { name: "Apply" }).click();
  await page.waitForURL(/attribute=city%3DOslo/);
  await page.locator("main:not([aria-busy])").waitFor();
  await page.getByRole("table").getByRole("link", { name: "city=Oslo" }).waitFor();
  assert.equal(await page.getByRole("table").locator("tbody tr").count(), 1);
  await page.getByRole("link", { name: `Saga ${input.waiting}` }).click();
  const trace = page.locator(".facts a[target=_blank]");
  await trace.waitFor();
  const id = await trace.textContent();
  assert.match(id, /^[0-9a-f]{32}$/);
  assert.equal(await trace.getAttribute("href"), `https://traces.example/trace/${id}`);
  await page.locator(".facts").getByRole("link", { name: "city=Oslo" }).waitFor();
  await page.getByText(/until commands were answered.*not over/).waitFor();
});

pageTest("a workflow shows its text and the verdict of the model checker", {}, async (page) => {
  await signIn(page, input.viewer, "#/workflows/booking");
  const text = page.getByRole("region", { name: "Definition" });
  await text.waitFor();
  assert.match(await text.textContent(), /name = "booking"[^]*seats\.hold/);
  await page.getByText("Verdict of the model checker").waitFor();
  await assertAccessible(page);
});

pageTest("a report shows how a date sells", {}, async (page) => {
  await signIn(page, input.admin, "#/reports");
  await page.getByRole("table", { name: /Dates/ }).getByRole("link").first().click();
  await page.getByRole("img", { name: /^[1-9]\d* seats sold and \d+ returned since/ }).waitFor();
  const section = page.getByRole("table", { name: "Sales by section" }).locator("tbody tr").first();
  assert.equal(await section.locator("td").first().textContent(), "A");
  const hours = page.getByRole("table", { name: /Sales by hour/ }).locator("tbody tr");
  assert.ok((await hours.count()) >= 1);
  await assertAccessible(page);
  await assertNoSidewaysScroll(page);
  await screenshot(page, "sales-report");
});

pageTest("a viewer may look and not act, and a wrong key is refused", { expected: /status of 401/ }, async (page) => {
  await page.goto(CONSOLE);
  await page.getByLabel("API key").fill("bo_wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").getByText(/./).waitFor();
  await assertAccessible(page);
  await signIn(page, input.viewer);
  await show(page, `#/sagas/${input.waiting}`, /Saga/);
  await page.getByText("Your key may look, but not act.").waitFor();
  assert.equal(await page.getByRole("button", { name: "Cancel" }).count(), 0);
  assert.equal(await page.evaluate(() => Object.keys(localStorage).length + document.cookie.length), 0);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("API key").waitFor();
  assert.equal(await page.evaluate(() => Object.keys(sessionStorage).length), 0);
});

pageTest("lists are used with the keyboard, and filters stand in the address", {}, async (page) => {
  await signIn(page, input.operator, "#/sagas?workflow=booking");
  // A row may have links to its attributes, too: the first one leads to the saga.
  const links = page.getByRole("table").locator("tbody tr td:first-child a");
  await links.nth(1).waitFor();
  assert.equal(await page.getByLabel("Workflow", { exact: true }).inputValue(), "booking");
  await page.getByRole("button", { name: "Live" }).click();
  await links.first().focus();
  await page.keyboard.press("ArrowDown");
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("href")), await links.nth(1).getAttribute("href"));
  await page.keyboard.press("/");
  await page.keyboard.type("nothing like this");
  await page.keyboard.press("Enter");
  await page.getByText("No saga matches this filter.").waitFor();
  assert.match(page.url(), /reason_contains=nothing/);
  await page.goBack();
  await links.nth(1).waitFor();
});

const PAGES = [
  ["overview", "#/", "Overview"],
  ["sagas", "#/sagas", "Sagas"],
  ["saga", `#/sagas/${input.bought}`, /Saga/],
  ["workflows", "#/workflows", "Workflows"],
  ["workflow", "#/workflows/booking", "booking"],
  ["batches", "#/batches", "Batches"],
  ["batch-order", "#/batches/new?status=stuck", "Act on many sagas"],
  ["parked", "#/parked", "Parked messages"],
  ["parked-message", "#/parked/1", /Parked message/],
  ["workers", "#/workers", "Workers"],
  ["lines", "#/lines", "Lines"],
  ["line", `#/lines/${input.concert}`, /Line of Concert/],
  ["acts", "#/acts", "Acts of operators"],
];

for (const [device, options] of [["desktop", { scheme: "light" }], ["phone", { width: 390, height: 844, scheme: "dark" }]]) {
  pageTest(`every page is accessible and fits a ${device}`, options, async (page) => {
    await signIn(page);
    for (const [name, hash, title] of PAGES) {
      await show(page, hash, title);
      await assertAccessible(page);
      await assertNoSidewaysScroll(page);
      await screenshot(page, `console-${name}-${device}`);
    }
  });
}
