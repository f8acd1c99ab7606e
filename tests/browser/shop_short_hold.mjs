import assert from "node:assert/strict";
import { assertAccessible, input, pageTest, screenshot } from "./harness.mjs";

pageTest("a hold runs out before the buyer's eyes", { expected: /Failed to load resource.*status of 410/ }, async (page) => {
  await page.goto(input.url);
  await page.locator(".card", { hasText: "City Lights Live" }).click();
  await page.locator("a.primary").click();
  await page.locator("ul.rows .row").first().click();
  await page.locator("box-seats .seat:not(.held):not(.sold)").first().click();
  await page.locator(".buy button.primary").click();
  await page.locator(".pay box-countdown time.urgent").waitFor();
  await page.getByRole("heading", { name: "The hold has run out" }).waitFor();
  await page.getByText("Nothing was charged").waitFor();
  await assertAccessible(page);
  await screenshot(page, "shop-expired");
});

pageTest("a crowd comes at the touch of a button", { width: 390, height: 844 }, async (page) => {
  await page.goto(input.url);
  await page.locator(".card", { hasText: "City Lights Live" }).click();
  await page.getByRole("button", { name: "Let 500 buyers come" }).click();
  await page.getByText("are on the way").waitFor();
  const waiting = page.locator(".counts div", { hasText: "in line" }).locator("dd", { hasText: /[1-9]/ });
  await waiting.waitFor();
  await assertAccessible(page);
  await screenshot(page, "shop-crowd");
  assert.equal(await page.getByRole("button", { name: "Let 500 buyers come" }).isDisabled(), true);
});
