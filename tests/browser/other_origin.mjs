import assert from "node:assert/strict";
import { input, pageTest } from "./harness.mjs";

/** An act of an operator on the line of the concert. */
async function operate(act) {
  const path = `${input.url}/v1/ops/queues/${input.concert}/${act}`;
  const headers = { authorization: `Bearer ${input.operator}`, "content-type": "application/json" };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify({ reason: "a test" }) });
  assert.equal(answer.status, 200, await answer.text());
}

pageTest("a page of another origin buys a ticket through the line, by a native EventSource", { origins: [input.page] }, async (page) => {
  await operate("pause");
  await page.goto(input.page);
  const waiting = await page.evaluate(async ({ url, concert }) => {
    const { ShopClient } = await import("/client.js");
    let token = null;
    const client = new ShopClient({ base: url, token: () => token });
    token = (await client.createUser("Ada")).access_token;
    await client.charge(1_000_000, "first");
    const { token: place } = await client.join(concert);
    const { key } = (await client.send("POST", "/v1/queue-tokens/current/stream-keys", { place })).body;
    const stream = new EventSource(`${url}/v1/queue-tokens/current/events?key=${encodeURIComponent(key)}`);
    const seen = [];
    globalThis.bought = new Promise((resolve, reject) => {
      stream.onerror = () => reject(new Error("the stream broke"));
      stream.onmessage = ({ data, lastEventId }) => {
        const now = JSON.parse(data);
        seen.push({ status: now.status, hasId: lastEventId !== "" });
        if (now.status !== "active") return;
        stream.close();
        resolve(now.token);
      };
    }).then(async (admitted) => {
      const [date] = (await client.performances(concert, admitted)).items;
      const { map, etag } = await client.seats(date.id, admitted);
      const free = map.seats.find((seat) => seat.status === "free");
      const held = await client.hold(date.id, [free.number], admitted, "hold");
      const receipt = await client.pay(held.id, admitted, "pay");
      return { seen, etag, tickets: receipt.tickets.length, status: (await client.reservation(held.id)).status };
    });
    while (seen.length === 0) await new Promise((wake) => setTimeout(wake, 20));
    return seen[0];
  }, { url: input.url, concert: input.concert });
  assert.deepEqual(waiting, { status: "waiting", hasId: true });
  await operate("resume");
  const bought = await page.evaluate(() => globalThis.bought);
  assert.equal(bought.seen.at(-1).status, "active");
  assert.ok(bought.etag, "the page may read the header ETag");
  assert.deepEqual([bought.tickets, bought.status], [1, "confirmed"]);
});

const REFUSED = /blocked by CORS policy|Failed to load resource.*ERR_FAILED/;

pageTest("a page of an origin that is not named gets no answer", { origins: [input.stranger], expected: REFUSED }, async (page) => {
  await page.goto(input.stranger);
  const answer = await page.evaluate((url) => fetch(`${url}/v1/concerts`).then(({ status }) => status, (error) => error.name), input.url);
  assert.equal(answer, "TypeError");
});
