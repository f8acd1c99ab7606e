// One act on many sagas: ordered with a dry run before, watched while it runs, stopped.

import { get, may, newKey, post } from "../api.js";
import { ask } from "../dialog.js";
import { button, h, link, replace } from "../dom.js";
import { filterBody, filterOf } from "../filters.js";
import { ago, number, problem, status } from "../format.js";
import { Pager, table } from "../list.js";
import { done, live } from "../live.js";

const REFRESH_SECONDS = 3;
const PROGRESS_SECONDS = 1;
const ACTS = ["retry", "skip_undo", "cancel", "abandon", "pause", "resume"];

export function batches(page) {
  const pager = new Pager();
  const list = h("div");
  const own = live(REFRESH_SECONDS, () => pager.load("v1/ops/batches"), (rows) => {
    replace(list, table("Batches, newest first", [
      { title: "Batch", cell: ({ id, act, dry_run: isDry }) => link(`batches/${id}`, `${act.replaceAll("_", " ")}${isDry ? " (dry run)" : ""}`, { "data-key": id }) },
      { title: "Status", cell: (job) => status(job.status) },
      { title: "Sagas", class: "wide", cell: ({ filter }) => words(filter) },
      { title: "Done", class: "number", cell: (job) => `${number(job.done)} of ${number(job.total)}` },
      { title: "Refused", class: "number", cell: (job) => number(job.failed) },
      { title: "By", cell: ({ actor }) => actor },
      { title: "Reason", class: "wide", cell: ({ reason }) => reason },
      { title: "Started", cell: ({ created_at: at }) => ago(at) },
    ], rows, "No batch was started yet. Find sagas by a filter, then act on all of them."), pager.buttons(own.refresh));
  });
  const start = may("operator") && link("sagas?status=stuck", "Choose sagas…", { class: "button" });
  replace(page, h("div", { class: "title" }, h("h1", {}, "Batches"), start), own.failure, list);
  return own;
}

/** Orders a batch for the filter in the address. */
export function newBatch(page, { parameters, go }) {
  const filter = filterBody(parameters);
  const answer = h("div", { role: "status" });
  const failure = h("div", { class: "failure", role: "alert" });
  const field = (label, input, hint) => h("div", { class: "field" }, h("label", { for: input.id }, label), input, hint && h("small", {}, hint));
  const act = h("select", { id: "act", name: "act" }, ACTS.map((name) => h("option", { value: name }, name.replaceAll("_", " "))));
  const rate = h("input", { id: "rate", name: "rate", type: "number", min: 1, max: 1000, value: 50, required: true });
  const limit = h("input", { id: "limit", name: "limit", type: "number", min: 1, max: 100_000, value: 1000, required: true });
  const reason = h("input", { id: "reason", name: "reason", type: "text", maxlength: 1000, required: true, autocomplete: "off" });
  const order = () => ({ act: act.value, filter, reason: reason.value, rate_per_second: Number(rate.value), limit: Number(limit.value) });
  let once = newKey();
  const attempt = async (call) => {
    replace(failure);
    if (!form.reportValidity()) return;
    try {
      await call();
    } catch (error) {
      replace(failure, problem(error));
    }
  };
  const look = () => attempt(async () => {
    const tally = await post("v1/ops/sagas/batch", { ...order(), limit: Math.min(Number(limit.value), 10_000), dry_run: true });
    replace(answer, outcome(tally));
  });
  const start = () => attempt(async () => {
    const job = await post("v1/ops/batches", order(), once);
    once = newKey();
    go(`batches/${job.id}`);
  });
  const form = h("form", { class: "panel", onsubmit: (event) => {
    event.preventDefault();
    start();
  } },
    h("p", {}, "Sagas: ", h("b", {}, words(filter)), " ", link(`sagas?${new URLSearchParams(filterOf(parameters))}`, "show them")),
    h("div", { class: "fields" }, field("Act", act), field("Acts per second", rate), field("At most", limit, "the newest first")),
    field("Reason", reason, "It is written down with every act and your key's name."),
    failure, answer,
    h("div", { class: "buttons" }, button("Dry run", look, { "data-key": "dry-run" }), h("button", { type: "submit", class: "danger" }, "Start")));
  const isNarrow = Object.keys(filter).length > 0;
  replace(page, h("h1", {}, "Act on many sagas"), isNarrow ? form : h("p", { class: "empty" }, "Choose sagas by a filter first."));
  return { stop() {}, refresh() {} };
}

function outcome({ matched, looked_at: looked, done: good, refused, refusals, more }) {
  return h("div", { class: "why" },
    h("p", {}, `Dry run: ${number(matched)} sagas match, ${number(looked)} were looked at. ${number(good)} would be done, ${number(refused)} refused.`,
      more && " More sagas match than the limit."),
    reasons(refusals));
}

function reasons(refusals) {
  const all = Object.entries(refusals);
  return all.length > 0 && h("ul", {}, all.map(([why, count]) => h("li", {}, `${number(count)} × ${why}`)));
}

export function batch(page, { path: [id] }) {
  const [head, answer, body] = ["", "", ""].map(() => h("div"));
  const own = live(PROGRESS_SECONDS, () => get(`v1/ops/batches/${id}`), (job) => {
    replace(head, h("div", { class: "title" }, h("h1", {}, `Batch: ${job.act.replaceAll("_", " ")}`), status(job.status),
      job.status === "running" && may("operator") && !job.stopped_by && button("Stop", () => stop(id, answer, own), { class: "danger", "data-key": "stop" })));
    replace(body, progress(job));
    if (job.finished_at) own.stop();
  });
  replace(page, own.failure, head, answer, body);
  return own;
}

function stop(id, answer, own) {
  const text = "It stops within a second. What was done stays done.";
  ask({ title: "Stop the batch", text, confirm: "Stop", isDangerous: true }, async ({ reason }, once) => {
    await post(`v1/ops/batches/${id}/stop`, { reason }, once);
    done(answer, "The batch was asked to stop.");
    own.refresh();
  });
}

function progress(job) {
  const most = job.total ?? job.limit;
  const all = [
    ["Sagas", words(job.filter)],
    ["Looked at", `${number(job.looked_at)} of ${job.total === null ? "an unknown number" : number(job.total)}`],
    [job.dry_run ? "Would be done" : "Done", number(job.done)],
    ["Refused", number(job.failed)],
    ["Pace", `${number(job.rate_per_second)} per second, at most ${number(job.limit)} sagas`],
    ["Ordered", [ago(job.created_at), ` by ${job.actor}: ${job.reason}`]],
    job.finished_at && ["Ended", ago(job.finished_at)],
    job.stopped_by && ["Stopped by", job.stopped_by],
    job.error && ["Error", job.error],
    job.more && job.finished_at && ["Left", "More sagas match, which it did not come to."],
  ];
  return [
    h("progress", { "aria-label": "Progress of the batch", value: Math.min(job.looked_at, most), max: Math.max(1, most) }),
    h("dl", { class: "facts" }, all.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    job.failed > 0 && h("section", {}, h("h2", {}, "Why acts were refused"), reasons(job.refusals)),
  ];
}

const words = (filter) => Object.entries(filter).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`).join(", ");
