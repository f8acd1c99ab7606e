// A workflow as a picture: its steps downwards, the undo of each beside it.

import { h, svg } from "./dom.js";
import { number } from "./format.js";

const WIDTH = 560;
const BOX = { x: 8, width: 256, height: 50 };
const UNDO = { x: 326, width: 226 };
const ROW = 84;

/**
 * Draws it. `mark(step)` says how a step stands: {standing, backStanding, forward, back, forwardLink, backLink}; forward
 * and back are texts or counts.
 */
export function graph(workflow, mark) {
  const height = workflow.steps.length * ROW + 34;
  const rows = workflow.steps.map((step, at) => row(workflow, step, at, mark(step)));
  const last = workflow.steps.length * ROW + 4;
  const picture = svg("svg", {
    class: "graph", viewBox: `0 0 ${WIDTH} ${height}`, width: WIDTH, height, role: "group",
    "aria-label": `Steps of ${workflow.name}, version ${workflow.version}`,
  },
    svg("defs", {}, svg("marker", {
      id: "tip", viewBox: "0 0 8 8", refX: 8, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto-start-reverse",
    }, svg("path", { d: "M0 0L8 4L0 8z" }))),
    rows,
    svg("text", { x: BOX.x + BOX.width / 2, y: last + 20, class: "end" }, "completed"));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Graph of the workflow" }, picture);
}

function row(workflow, step, at, { standing = "", backStanding = "", forward, back, forwardLink, backLink }) {
  const y = at * ROW + 4;
  const middle = y + BOX.height / 2;
  const what = step.signal ? `waits for ${step.signal}` : step.command;
  const isPivot = workflow.pivot === step.name;
  const next = workflow.steps[at + 1];
  const parts = [
    box(BOX, y, `step ${standing} ${step.signal ? "wait" : ""}`, step.name, what, forward, forwardLink),
    next?.group && next.group === step.group ? null : svg("path", { class: "way", d: `M${BOX.x + BOX.width / 2} ${y + BOX.height}v${ROW - BOX.height - 2}`, "marker-end": "url(#tip)" }),
  ];
  if (step.undo) {
    parts.push(
      box(UNDO, y, `undo ${backStanding}`, `undo ${step.name}`, step.undo, back, backLink),
      svg("path", { class: "way back", d: `M${BOX.x + BOX.width} ${middle}h${UNDO.x - BOX.x - BOX.width - 2}`, "marker-end": "url(#tip)" }));
  }
  if (step.group) {
    parts.push(svg("text", { class: "note", x: BOX.x + 12, y: y + BOX.height + 20 }, `in parallel: ${step.group}`));
  }
  if (isPivot) {
    parts.push(svg("text", { class: "note", x: BOX.x + BOX.width / 2 + 10, y: y + BOX.height + 20 }, "no way back from here"));
  } else if (step.deadline_reason) {
    const after = step.deadline_seconds ? `after ${step.deadline_seconds} s` : "at its deadline";
    parts.push(svg("text", { class: "note", x: BOX.x + BOX.width / 2 + 10, y: y + BOX.height + 20 }, `${after}: ${step.deadline_reason}`));
  }
  return svg("g", {}, parts);
}

function box({ x, width }, y, name, title, what, count, target) {
  const parts = [
    svg("rect", { x, y, width, height: BOX.height, rx: 7, class: name }),
    svg("text", { x: x + 12, y: y + 21, class: "name" }, title),
    svg("text", { x: x + 12, y: y + 39, class: "what" }, what),
  ];
  if (count !== undefined && count !== null && count !== 0) {
    const text = typeof count === "number" ? number(count) : count;
    const label = svg("text", { x: x + width - 12, y: y + 21, class: "count" }, text);
    parts.push(target ? svg("a", { href: target, "aria-label": `${text} sagas at ${title}` }, label) : label);
  }
  return parts;
}
