import assert from "node:assert/strict";
import { input, pageTest } from "./harness.mjs";

pageTest("operations are listed and one can be opened", {}, async (page) => {
  await page.goto(`${input.url}/docs/`);
  const operation = page.locator("#operations-concerts-get_concerts");
  await operation.locator("button.opblock-summary-control").click();
  await operation.getByText("on_sale").first().waitFor();
  assert.match(await page.title(), /./);
});
