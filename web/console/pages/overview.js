// The first page: what needs an operator, what is under way, what was started in the last minutes.

import { get } from "../api.js";
import { activityChart } from "../chart.js";
import { h, link, replace } from "../dom.js";
import { number, problem, status } from "../format.js";
import { table } from "../list.js";
import { live } from "../live.js";

const REFRESH_SECONDS = 3;

export function overview(page) {
  const cards = h("div", { class: "cards" });
  const chart = h("div");
  const open = h("div");
  const own = live(REFRESH_SECONDS, load, ({ state, fleet, lines }) => {
    replace(cards, cardsOf(state, fleet, lines));
    replace(chart, activityChart(state.activity));
    replace(open, openTable(state.open));
  });
  replace(page, h("h1", {}, "Overview"), own.failure, cards,
    h("section", {}, h("h2", {}, "Started in the last ten minutes"), chart),
    h("section", {}, h("h2", {}, "Sagas that have not ended"), open));
  return own;
}

/** What one server does not say must not hide what the others do. */
async function load() {
  const softly = (call) => call.catch((error) => ({ error }));
  const [state, fleet, lines] = await Promise.all([
    get("v1/ops/overview"), softly(get("v1/ops/workers")), softly(get("v1/ops/queues", { limit: 100 })),
  ]);
  return { state, fleet, lines };
}

function cardsOf(state, fleet, lines) {
  const open = state.open?.reduce((total, { count }) => total + count, 0);
  const cards = [
    card("Stuck sagas", number(state.stuck), "sagas?status=stuck", state.stuck > 0 && "bad"),
    card("Parked messages", number(state.parked), "parked", state.parked > 0 && "bad"),
    card("Sagas under way", state.open ? number(open) : "too many to count", "sagas?open=true"),
  ];
  if (fleet.error) {
    cards.push(card("Workers", "unknown", "workers", "bad", problem(fleet.error)));
  } else {
    const waiting = fleet.commands.reduce((total, { waiting: own }) => total + own, 0);
    const idle = fleet.commands.filter(({ workers }) => workers === 0);
    const note = idle.length > 0 && `no worker for ${idle.map(({ command }) => command).join(", ")}`;
    cards.push(
      card("Commands waiting", number(waiting), "workers", waiting > 0 && idle.length > 0 && "bad"),
      card("Workers", number(fleet.workers.length), "workers", idle.length > 0 && "bad", note));
  }
  if (lines.error) {
    cards.push(card("Lines", "unknown", "lines", "bad", problem(lines.error)));
  } else {
    const sum = (name) => lines.items.reduce((total, line) => total + line[name], 0);
    const stalled = lines.items.filter(({ stalled_since: since }) => since).length;
    cards.push(
      card("In line", number(sum("length")), "lines", stalled > 0 && "bad", stalled > 0 ? `${stalled} stalled` : `${number(sum("active"))} active`),
      card("Admitted per minute", number(sum("admitted_last_minute")), "lines", null, `${number(sum("joined_last_minute"))} joined`));
  }
  return cards;
}

function card(title, value, path, tone, note) {
  return h("a", { class: `card ${tone || ""}`, href: `#/${path}` }, h("span", { class: "title" }, title), h("b", {}, value), note && h("small", {}, note));
}

function openTable(open) {
  if (!open) return h("p", { class: "empty" }, "There are too many to count in time. The list of sagas finds them by filter.");
  return table("Sagas that have not ended", [
    { title: "Workflow", cell: ({ workflow, version }) => [link(`workflows/${encodeURIComponent(workflow)}`, workflow), ` v${version}`] },
    { title: "Step", cell: ({ step, direction }) => (direction === "undo" ? `undo ${step}` : step) },
    { title: "Status", cell: (row) => status(row.status) },
    { title: "Sagas", class: "number", cell: (row) => link(`sagas?${new URLSearchParams(filter(row))}`, number(row.count), {
      "aria-label": `${row.count} sagas of ${row.workflow} at ${row.step}, ${row.status}` }) },
  ], open, "Every saga has ended.");
}

const filter = ({ workflow, step, direction, status: own }) => ({ workflow, step, direction, status: own });
