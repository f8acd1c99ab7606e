// One saga: why it stands where it stands, what can be done, what happened, what it carries.

import { actButtons } from "../acts.js";
import { get } from "../api.js";
import { button, h, json, link, replace } from "../dom.js";
import { ago, clock, duration, status as badge } from "../format.js";
import { graph } from "../graph.js";
import { Pager, table } from "../list.js";
import { done, live } from "../live.js";
import { waterfall } from "../waterfall.js";
import { attributeLinks } from "./sagas.js";

const REFRESH_SECONDS = 2;

export function saga(page, { path: [id] }) {
  const parts = Object.fromEntries(["facts", "why", "acts", "answer", "waterfall", "graph", "data", "history", "audit"].map((name) => [name, h("div")]));
  let workflow;
  let shown = "";
  const load = async () => {
    const [found, why] = await Promise.all([get(`v1/ops/sagas/${id}`), get(`v1/ops/sagas/${id}/why`).catch(() => null)]);
    const isKnown = workflow?.name === found.workflow && workflow?.version === found.version;
    if (!isKnown) workflow = await get(`v1/ops/workflows/${encodeURIComponent(found.workflow)}`, { version: found.version }).catch(() => null);
    return { found, why };
  };
  const own = live(REFRESH_SECONDS, load, ({ found, why }) => {
    replace(parts.facts, facts(found));
    replace(parts.why, why && h("p", { class: "why" }, why.sentence));
    replace(parts.waterfall, waterfall(found));
    // What has not changed is left alone, so that a selection or a scroll position in it stays.
    const version = JSON.stringify([found.history.length, found.updated_at, found.allowed, found.paused]);
    if (version === shown) return;
    shown = version;
    replace(parts.acts, h("div", { class: "buttons" }, actButtons(found, acted),
      button("Download JSON", () => download(found, why), { "data-key": "download" })));
    replace(parts.graph, workflow ? graph(workflow, (step) => mark(found, step)) : h("p", { class: "empty" }, "Its definition is not known here."));
    replace(parts.data, data(found));
    replace(parts.history, history(found));
    audit(parts.audit, id);
  });
  const acted = (name, { left_behind: left = [], settlement }) => {
    const more = left.length > 0 ? ` These effects may be left behind: ${left.join(", ")}.` : "";
    const settled = settlement ? ` ${JSON.stringify(settlement)}` : "";
    done(parts.answer, `${name.replaceAll("_", " ")}: done.${more}${settled}`);
    own.refresh();
  };
  const section = (title, part) => h("section", {}, h("h2", {}, title), part);
  replace(page, h("h1", {}, "Saga ", h("code", {}, id)), own.failure, parts.why, parts.answer, parts.acts, parts.facts,
    h("div", { class: "columns" }, section("What happened", parts.waterfall), section("Where it stands", parts.graph)),
    section("What it carries", parts.data), section("History and events", parts.history), section("Acts of operators", parts.audit));
  return own;
}

function facts(saga) {
  const all = [
    ["Status", badge(saga.status, saga.paused)],
    ["Workflow", [link(`workflows/${encodeURIComponent(saga.workflow)}?version=${saga.version}`, saga.workflow), ` v${saga.version}`]],
    ["Step", saga.direction === "undo" ? `undo ${saga.step}` : saga.step],
    ["Visit, attempt", `${saga.visit}, ${saga.attempt}`],
    ["Started", ago(saga.created_at)],
    ["Last change", ago(saga.updated_at)],
    saga.finished_at ? ["Ended", ago(saga.finished_at)] : saga.due_at && ["Next look", ago(saga.due_at)],
    saga.stuck_since && ["Stuck", ago(saga.stuck_since)],
    saga.reason && ["Reason", saga.reason],
    saga.undo_path.length > 0 && ["Way back", saga.undo_path.join(", then ")],
    Object.keys(saga.attributes ?? {}).length > 0 && ["Attributes", attributeLinks(saga.attributes)],
    ["Trace", saga.trace_url ? h("a", { href: saga.trace_url, rel: "noopener noreferrer", target: "_blank" }, h("code", {}, saga.trace_id)) : h("code", {}, saga.trace_id)],
  ];
  return h("dl", { class: "facts" }, all.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

/** How a step of the graph stands in this saga. */
function mark({ steps, step: here, direction, status }, { name }) {
  const view = steps.find(({ step }) => step === name);
  if (!view) return {};
  const isHere = here === name && view.standing === "now";
  const took = view.duration_ms === null ? null : duration(view.duration_ms);
  return {
    standing: isHere && status === "stuck" && direction === "do" ? "stuck" : isHere && direction === "undo" ? "to-undo" : view.standing,
    backStanding: isHere && direction === "undo" ? (status === "stuck" ? "stuck" : "now") : { undone: "undone", undo_to_come: "to-undo" }[view.standing],
    forward: isHere && direction === "do" ? "here" : took ?? view.standing.replaceAll("_", " "),
    back: isHere && direction === "undo" ? "here" : { undone: "undone", undo_to_come: "to come" }[view.standing],
  };
}

function data(saga) {
  const steps = saga.steps.filter(({ output, error }) => output !== null || error !== null);
  return [
    h("h3", {}, "Input"), json(saga.input, "Input"),
    steps.map(({ step, output, error, worker }) => [
      h("h3", {}, step, worker && h("small", {}, ` by ${worker}`)),
      output !== null && json(output, `Output of ${step}`),
      error !== null && h("div", { class: "wrong" }, json(error, `Error of ${step}`)),
    ]),
  ];
}

function history(saga) {
  return table("History, oldest first", [
    { title: "Time", cell: ({ at }) => h("time", { datetime: at, title: at }, clock(at)) },
    { title: "Event", cell: ({ event }) => event },
    { title: "Step", cell: ({ step, direction }) => (direction === "undo" ? `undo ${step}` : step) },
    { title: "Visit", class: "number", cell: ({ visit }) => visit },
    { title: "Attempt", class: "number", cell: ({ attempt }) => attempt },
    { title: "In the step for", class: "number", cell: ({ duration_ms: ms }) => duration(ms) },
    { title: "Announced", cell: ({ emits }) => emits.join(", ") },
    { title: "Worker", cell: ({ worker }) => worker ?? "" },
    { title: "Detail", class: "wide", cell: ({ detail }) => (detail === null ? "" : h("code", {}, JSON.stringify(detail))) },
  ], saga.history);
}

async function audit(part, id) {
  const pager = new Pager();
  const show = async () => {
    const rows = await pager.load("v1/ops/acts", { saga_id: id });
    replace(part, table("Acts on this saga, newest first", [
      { title: "Time", cell: ({ at }) => ago(at) },
      { title: "Act", cell: ({ act }) => act },
      { title: "By", cell: ({ actor }) => actor },
      { title: "Reason", class: "wide", cell: ({ reason }) => reason },
      { title: "From, to", cell: ({ from, to }) => `${from} → ${to}` },
    ], rows, "No operator has acted on it."), pager.buttons(show));
  };
  await show().catch(() => replace(part, h("p", { class: "empty" }, "The acts could not be loaded.")));
}

function download(saga, why) {
  const text = JSON.stringify({ ...saga, why: why?.sentence }, null, 2);
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  h("a", { href: url, download: `saga-${saga.id}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
