// The workflows, and the graph of one with the sagas that stand at each step now.

import { get, may, post } from "../api.js";
import { ask } from "../dialog.js";
import { button, h, json, link, replace } from "../dom.js";
import { ago, number, status } from "../format.js";
import { graph } from "../graph.js";
import { table } from "../list.js";
import { done, live } from "../live.js";

const REFRESH_SECONDS = 3;

export function workflows(page) {
  const list = h("div");
  const load = async () => {
    const [all, pauses] = await Promise.all([get("v1/ops/workflows"), get("v1/ops/pauses")]);
    return { items: all.items, pauses: pauses.items };
  };
  const own = live(10, load, ({ items, pauses }) => {
    const paused = (name) => pauses.find((pause) => pause.kind === "workflow" && pause.name === name);
    replace(list, table("Workflows", [
      { title: "Workflow", cell: ({ name }) => link(`workflows/${encodeURIComponent(name)}`, name) },
      { title: "Versions", cell: ({ versions }) => versions.join(", ") },
      { title: "Steps", class: "number", cell: ({ steps }) => steps },
      { title: "State", cell: ({ name }) => (paused(name) ? status("paused") : "runs") },
    ], items));
  });
  replace(page, h("h1", {}, "Workflows"), own.failure, list);
  return own;
}

export function workflow(page, { path: [name], parameters, go }) {
  const [head, answer, picture, counts, text] = ["", "", "", "", ""].map(() => h("div"));
  let definition;
  const version = parameters.get("version");
  const load = async () => {
    const shown = await get(`v1/ops/workflows/${encodeURIComponent(name)}`, { version });
    const [found, pauses] = await Promise.all([
      get("v1/ops/sagas/counts", { workflow: name, version: shown.version, open: true }), get("v1/ops/pauses"),
    ]);
    const pause = pauses.items.find((one) => one.kind === "workflow" && one.name === name);
    // The text of a version never changes; its verdict does not either.
    if (definition?.version !== shown.version) {
      definition = await get(`v1/workflows/${encodeURIComponent(name)}`, { version: shown.version }).catch(() => null);
      replace(text, definition ? source(definition) : h("p", { class: "empty" }, "The text of this version is not stored."));
    }
    return { shown, items: found.items, total: found.total, pause };
  };
  const own = live(REFRESH_SECONDS, load, ({ shown, items, total, pause }) => {
    replace(head, heading(shown, pause, go, (text) => {
      done(answer, text);
      own.refresh();
    }));
    replace(picture, graph(shown, (step) => mark(shown, items, step)));
    replace(counts, table("Sagas that have not ended", [
      { title: "Step", cell: ({ step, direction }) => (direction === "undo" ? `undo ${step}` : step) },
      { title: "Status", cell: (row) => status(row.status) },
      { title: "Sagas", class: "number", cell: (row) => link(`sagas?${query(shown, row)}&status=${row.status}`, number(row.count), {
        "aria-label": `${row.count} sagas at ${row.step}, ${row.status}` }) },
    ], items, "No saga of this version is under way."), h("p", { class: "hint" }, `${number(total)} sagas of this version have not ended.`));
  });
  replace(page, own.failure, head, answer, h("div", { class: "columns" },
    h("section", {}, h("h2", {}, "Steps, and the sagas at each now"), picture),
    h("section", {}, h("h2", {}, "Where sagas stand"), counts)),
    h("section", {}, h("h2", {}, "What was deployed"), text));
  return own;
}

function heading({ name, version, versions, forward_only: isForwardOnly }, pause, go, changed) {
  const choose = h("select", { id: "version", "aria-label": "Version", onchange: () => go(`workflows/${encodeURIComponent(name)}?version=${choose.value}`) },
    versions.map((one) => h("option", { value: one, selected: one === version }, `version ${one}`)));
  return [
    h("div", { class: "title" }, h("h1", {}, name), versions.length > 1 ? choose : h("span", { class: "hint" }, `version ${version}`),
      may("operator") && (pause
        ? button("Resume workflow", () => hold(name, "resume", "What was held back is sent.", changed), { "data-key": "resume" })
        : button("Pause workflow", () => hold(name, "pause", "Forward commands of all its sagas are held back. Undos go on, and no clock stops.", changed), { "data-key": "pause" }))),
    pause && h("p", { class: "why" }, "Paused ", ago(pause.since), ` by ${pause.actor}: ${pause.reason}`),
    isForwardOnly && h("p", { class: "hint" }, "Its sagas never turn back."),
  ];
}

const VERDICTS = {
  good: "The model checker has explored its runs and found no fault.",
  broken: "The model checker has found a fault; it was deployed with an accepted risk.",
  unfinished: "The model checker did not finish in time; it was deployed with an accepted risk.",
  unchecked: "It was not checked when it was deployed. Check it with: boxoffice workflow check.",
};

/** What was deployed: by whom, what the model checker found, and the text. */
function source({ verdict, check, deployed_by: by, deployed_at: at, accepted_risk: risk, retired_at: retired, definition: toml }) {
  const facts = [
    ["Verdict of the model checker", [status(verdict), ` ${VERDICTS[verdict] ?? ""}`]],
    at && ["Deployed", [ago(at), by && ` by ${by}`]],
    risk && ["Accepted risk", risk],
    retired && ["Retired", ago(retired)],
  ];
  return [
    h("dl", { class: "facts" }, facts.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    check && Object.keys(check).length > 0 && [h("h3", {}, "What the model checker looked at"), json(check, "Result of the model checker")],
    h("h3", {}, "Definition (TOML)"),
    h("pre", { tabindex: "0", role: "region", "aria-label": "Definition" }, toml),
  ];
}

function hold(name, act, text, changed) {
  const title = `${act === "pause" ? "Pause" : "Resume"} the workflow ${name}`;
  ask({ title, text, confirm: act === "pause" ? "Pause" : "Resume", isDangerous: act === "pause" }, async ({ reason }, once) => {
    const { changed: isNew } = await post(`v1/ops/workflows/${encodeURIComponent(name)}/${act}`, { reason }, once);
    changed(isNew ? `${title}: done.` : "It was so before.");
  });
}

function mark(shown, items, { name }) {
  const sum = (direction) => items.filter((row) => row.step === name && row.direction === direction).reduce((total, { count }) => total + count, 0);
  const standing = (direction) => {
    const isStuck = items.some((row) => row.step === name && row.direction === direction && row.status === "stuck");
    return isStuck ? "stuck" : sum(direction) > 0 ? "now" : "";
  };
  const target = (direction) => `#/sagas?${query(shown, { step: name, direction })}&open=true`;
  return {
    standing: standing("do"), backStanding: standing("undo"),
    forward: sum("do"), back: sum("undo"), forwardLink: target("do"), backLink: target("undo"),
  };
}

const query = ({ name, version }, { step, direction }) => new URLSearchParams({ workflow: name, version, step, direction });
