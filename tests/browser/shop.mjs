import assert from "node:assert/strict";
import { assertAccessible, assertNoSidewaysScroll, input, pageTest, screenshot } from "./harness.mjs";

const PHONE = { width: 390, height: 844 };
/** A refusal that a test provokes is an error in the browser's log. */
const REFUSED = /Failed to load resource.*status of (402|403|409|410)/;

/** A connection that a test cuts is one, too. */
const LOST = /Failed to load resource.*(status of (402|403|409|410)|ERR_INTERNET_DISCONNECTED|ERR_NETWORK_CHANGED|ERR_INCOMPLETE_CHUNKED_ENCODING)/;

/** Looks at a page as it is: reachable by all, not too wide, and a picture of it. */
async function lookAt(page, name) {
  await assertAccessible(page);
  await assertNoSidewaysScroll(page);
  await screenshot(page, `shop-${name}`);
}

/** An act of an operator on the line of the concert. */
async function operate(act) {
  const path = `${input.url}/v1/ops/queues/${input.concert}/${act}`;
  const headers = { authorization: `Bearer ${input.operator}`, "content-type": "application/json" };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify({ reason: "a test" }) });
  assert.equal(answer.status, 200, await answer.text());
}

/** From the front page into the line. */
async function getInLine(page) {
  await page.goto(input.url);
  await page.locator(".card", { hasText: "City Lights Live" }).click();
  await page.locator("a.primary").click();
}

/** From the dates to the map of the first date. */
async function openMap(page) {
  await page.locator("ul.rows .row").first().click();
  await page.locator("box-seats .seat").first().waitFor();
}

const seat = (page, number) => page.locator(`box-seats .seat[data-number="${number}"]`);
const hold = (page) => page.locator(".buy button.primary");

pageTest("a ticket is bought through the line, and a reload keeps the place", { ...PHONE, expected: REFUSED }, async (page, visitor) => {
  await operate("pause");
  await page.goto(input.url);
  await page.locator(".card").first().waitFor();
  await lookAt(page, "concerts");
  await page.locator(".card", { hasText: "City Lights Live" }).click();
  await page.locator(".hero").waitFor();
  await lookAt(page, "concert");
  await page.locator("a.primary").click();
  await page.locator("box-queue .number").waitFor();
  const other = await visitor();
  await getInLine(other);
  await other.locator("box-queue .number").waitFor();
  const number = await other.locator("box-queue .number").textContent();
  assert.equal(number, "2");
  await other.reload();
  await other.locator("box-queue .number").waitFor();
  assert.equal(await other.locator("box-queue .number").textContent(), number, "a reload keeps the place");
  await lookAt(other, "line");
  await operate("resume");

  await page.locator("ul.rows .row").first().waitFor();
  await lookAt(page, "dates");
  await openMap(page);
  await seat(page, 11).click();
  await seat(page, 12).click();
  await lookAt(page, "seats");
  await hold(page).dblclick();
  await page.locator(".pay").waitFor();
  await lookAt(page, "held");
  // A second hold: its payment comes after the first one has ended the turn in line.
  await page.goBack();
  await seat(page, 13).click();
  await hold(page).click();
  await page.locator(".pay").waitFor();
  await page.goBack();
  await page.locator("box-seats .seat").first().waitFor();
  await page.goto(`${input.url}/#/reservations`);
  await page.locator("ul.rows .row").nth(1).click();
  // The user has no points: they are added, and pay in the same act.
  await page.locator(".pay button.primary").dblclick();
  await page.locator(".ticket").nth(1).waitFor();
  assert.equal(await page.locator("svg.qr").count(), 2);
  await lookAt(page, "tickets");
  await page.goto(`${input.url}/#/points`);
  await page.locator("tbody tr").nth(1).waitFor();
  assert.equal(await page.locator("tbody tr").count(), 2, "two clicks add points once and pay once");
  assert.deepEqual(await page.locator("tbody td:nth-child(2)").allTextContents(), ["Payment", "Added"]);
  await lookAt(page, "points");
  await page.goto(`${input.url}/#/reservations`);
  await page.locator("ul.rows .row").first().waitFor();
  assert.equal(await page.locator("ul.rows .row").count(), 2, "two clicks hold once");
  await lookAt(page, "reservations");

  await page.locator("ul.rows .row").first().click();
  await page.locator(".pay button.primary").click();
  await page.locator(".ticket").first().waitFor();
  await page.getByRole("button", { name: "Return the tickets" }).click();
  await assertAccessible(page);
  await page.locator("dialog button.danger").click();
  await page.getByRole("heading", { name: "Cancelled" }).waitFor();
  await page.getByText("were returned to you").waitFor();
});

pageTest("the line is followed by its stream, and a lost connection costs no place", { ...PHONE, expected: LOST }, async (page) => {
  await operate("pause");
  const asked = [];
  page.on("request", (request) => asked.push(new URL(request.url()).pathname + new URL(request.url()).search));
  await getInLine(page);
  await page.locator("box-queue .number").waitFor();
  const isFollowed = () => asked.some((path) => path.startsWith("/v1/queue-tokens/current/events?key="));
  for (let tries = 0; tries < 300 && !isFollowed(); tries += 1) await page.waitForTimeout(100);
  assert.ok(isFollowed(), String(asked));
  const number = await page.locator("box-queue .number").textContent();
  await page.context().setOffline(true);
  await operate("resume");
  await page.context().setOffline(false);
  await page.locator("ul.rows .row").first().waitFor();
  assert.ok(Number(number) >= 1);
});

pageTest("without EventSource the line is asked for", { ...PHONE, expected: REFUSED }, async (page) => {
  await operate("pause");
  await page.addInitScript(() => { delete globalThis.EventSource; });
  const asked = [];
  page.on("request", (request) => asked.push(request.url()));
  await getInLine(page);
  await page.locator("box-queue .number").waitFor();
  await operate("resume");
  await page.locator("ul.rows .row").first().waitFor();
  assert.ok(!asked.some((url) => url.includes("/current/events")), "no stream was opened");
});

pageTest("the best seats are held without choosing on the map", { ...PHONE, expected: REFUSED }, async (page) => {
  await getInLine(page);
  await openMap(page);
  await page.locator(".buy .best select").selectOption("3");
  await lookAt(page, "best");
  await page.getByRole("button", { name: "Hold the best seats" }).dblclick();
  await page.locator(".pay").waitFor();
  await page.goto(`${input.url}/#/reservations`);
  await page.locator("ul.rows .row").first().waitFor();
  assert.equal(await page.locator("ul.rows .row").count(), 1, "two clicks hold once");
});

pageTest("two browsers race for a seat, and the map of the loser shows it taken", { expected: REFUSED }, async (page, visitor) => {
  const other = await visitor();
  for (const one of [page, other]) {
    await getInLine(one);
    await openMap(one);
    await seat(one, 30).click();
  }
  await Promise.all([page, other].map((one) => hold(one).click()));
  // One has the seat. The other sees that, by the refusal or by a map that has changed before the click.
  const won = await Promise.any([page, other].map((one) => one.locator(".pay").waitFor().then(() => one)));
  const lost = won === page ? other : page;
  await lost.locator("#notice .error", { hasText: "30" }).waitFor();
  await lost.locator('box-seats .seat.held[data-number="30"]').waitFor();
  assert.match(lost.url(), /#\/dates\//);
  await seat(lost, 31).click();
  await hold(lost).click();
  await lost.locator(".pay").waitFor();
  // What one buyer holds, another one's map shows without a reload.
  const third = await visitor();
  await getInLine(third);
  await openMap(third);
  await won.getByRole("button", { name: "Release the seats" }).click();
  await won.getByRole("heading", { name: "Cancelled" }).waitFor();
  await third.locator('box-seats .seat[data-number="30"]:not(.held)').waitFor();
});

pageTest("seats are chosen with the keyboard, in Korean and in the dark", { locale: "ko-KR", scheme: "dark" }, async (page) => {
  await getInLine(page);
  assert.equal(await page.locator("html").getAttribute("lang"), "ko");
  await page.locator("ul.rows .row").first().waitFor();
  await lookAt(page, "dates-ko");
  await openMap(page);
  await page.locator('box-seats [role="grid"] [tabindex="0"]').first().focus();
  await page.keyboard.press("Control+Home");
  for (const key of ["ArrowDown", "ArrowRight", "Space", "ArrowRight", "Enter"]) await page.keyboard.press(key);
  assert.equal(await page.locator("box-seats .seat.chosen").count(), 2);
  await lookAt(page, "seats-ko");
  await hold(page).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "좌석이 확보되었습니다" }).waitFor();
  await lookAt(page, "held-ko");
});
