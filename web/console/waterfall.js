// The history of one saga as bars over time.

import { h, svg } from "./dom.js";
import { clock, duration } from "./format.js";

const WIDTH = 1000;
/** Bars and their gaps shorter than this are still seen. */
const BAR_MIN = 3;
/** More rows are left out of the picture; the table below has them all. */
const ROWS_MAX = 200;

/** What a bar is about, by the event that ended it. Commands are work, with their time in the queue; the others are waits. */
function kind(event) {
  if (event === "started") return "start";
  if (event.startsWith("operator:")) return "operator";
  if (event.startsWith("signal:") || event === "deadline") return "wait";
  if (["done", "undone"].includes(event)) return "done";
  if (["failed", "unknown", "poisoned"].includes(event)) return "failed";
  if (event.endsWith("rejected")) return "rejected";
  return "other";
}

/**
 * A row for each history row: the bar reaches from the transition before it to itself, so it is what the saga spent its time
 * on until then. A member of a group of parallel steps has a bar from the start of the group. A saga that has not ended has a last
 * bar until now for each step that it is at.
 */
export function waterfall(saga) {
  const begin = new Date(saga.created_at).getTime();
  const rows = bars(saga, begin).slice(-ROWS_MAX);
  const end = Math.max(begin + 1, ...rows.map(({ to }) => to));
  const at = (time) => ((time - begin) / (end - begin)) * (WIDTH - BAR_MIN);
  const items = rows.map(({ from, to, name, step, direction, event, attempt }) =>
    h("li", {},
      h("span", { class: "what" }, direction === "undo" ? `undo ${step}` : step, attempt > 0 && h("small", {}, ` attempt ${attempt + 1}`)),
      svg("svg", { class: "bar", viewBox: `0 0 ${WIDTH} 10`, preserveAspectRatio: "none", "aria-hidden": "true" },
        svg("rect", { class: `track`, x: 0, y: 4.5, width: WIDTH, height: 1 }),
        svg("rect", { class: name, x: at(from), y: 0, width: Math.max(BAR_MIN, at(to) - at(from)), height: 10 })),
      h("span", { class: "took" }, h("b", {}, event.replaceAll("_", " ")), ` ${duration(to - from)}`)));
  const total = duration(end - begin);
  const sum = (text, ...kinds) => {
    const ms = rows.filter(({ name }) => kinds.includes(name)).reduce((all, { from, to }) => all + to - from, 0);
    return ms > 0 && `${duration(ms)} ${text}`;
  };
  const sums = [sum("until commands were answered", "done", "rejected"), sum("for failed attempts", "failed"),
    sum("waiting for signals or deadlines", "wait"), sum("until operators acted", "operator"), sum("not over", "open")].filter(Boolean);
  return h("figure", { class: "waterfall" },
    h("figcaption", {}, `${[`${clock(saga.created_at)}, ${total} in all`, sums.join(", ")].filter(Boolean).join(": ")}. ` +
      "Each bar is the time until the event beside it. The bar of a command begins when the command was sent, so it is the time in the queue and " +
      "the time of the worker together; after a failed attempt it has the pause before the next one too. The trace shows them apart."),
    h("ol", {}, items),
    h("ul", { class: "legend", "aria-label": "Colours" },
      [["done", "command: queue and work"], ["wait", "wait for a signal or deadline"], ["failed", "failed attempt"], ["rejected", "command: rejected"],
        ["operator", "until an operator acted"], ["open", "not over"]].map(([name, text]) =>
        h("li", {}, svg("svg", { viewBox: "0 0 10 10", width: 10, height: 10, "aria-hidden": "true" },
          svg("rect", { class: name, width: 10, height: 10 })), text))));
}

function bars(saga, begin) {
  let before = begin;
  const parallel = new Set(saga.steps.filter(({ group }) => group).map(({ step }) => step));
  const rows = saga.history.map(({ at, step, direction, event, attempt, duration_ms: took }) => {
    const to = new Date(at).getTime();
    // The members of a group were entered together, so their bars lie beside each other.
    const from = parallel.has(step) && direction === "do" ? to - took : before;
    const bar = { from, to, name: kind(event), step, direction, event, attempt };
    before = to;
    return bar;
  });
  if (!saga.finished_at) {
    const { direction, attempt } = saga;
    const event = saga.status === "stuck" ? "stuck" : "now";
    const now = saga.steps.filter(({ standing }) => standing === "now").map(({ step }) => step);
    for (const step of now.length > 0 ? now : [saga.step]) {
      rows.push({ from: before, to: Math.max(before, Date.now()), name: saga.status === "stuck" ? "failed" : "open", step, direction, event, attempt });
    }
  }
  return rows;
}
