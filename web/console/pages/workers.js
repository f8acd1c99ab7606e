// The commands of all workflows, what waits for each, and the workers that are present.

import { get, may, post } from "../api.js";
import { ask } from "../dialog.js";
import { button, h, link, replace } from "../dom.js";
import { ago, number } from "../format.js";
import { table } from "../list.js";
import { done, live } from "../live.js";

const REFRESH_SECONDS = 3;

export function workers(page) {
  const [answer, commands, present] = ["", "", ""].map(() => h("div"));
  const own = live(REFRESH_SECONDS, () => get("v1/ops/workers"), (fleet) => {
    replace(commands, commandTable(fleet.commands, (text) => {
      done(answer, text);
      own.refresh();
    }));
    replace(present, table("Workers that are present", [
      { title: "Service", cell: ({ service }) => service },
      { title: "Instance", class: "wide", cell: ({ instance, id }) => instance ?? id },
      { title: "Version", cell: ({ version }) => version },
      { title: "Commands", class: "wide", cell: ({ commands: own }) => own.join(", ") },
      { title: "Started", cell: ({ started_at: at }) => ago(at) },
      { title: "Answered in", class: "number", cell: ({ answered_ms: ms }) => `${ms} ms` },
    ], fleet.workers, "No worker answers."));
  });
  replace(page, h("h1", {}, "Workers"), own.failure, answer,
    h("section", {}, h("h2", {}, "Commands"), commands), h("section", {}, h("h2", {}, "Workers that are present"), present));
  return own;
}

function commandTable(commands, changed) {
  return table("Commands", [
    { title: "Command", cell: ({ command }) => h("code", {}, command) },
    { title: "Workflows", cell: ({ workflows }) => workflows.map((name, at) => [at > 0 && ", ", link(`workflows/${encodeURIComponent(name)}`, name)]) },
    { title: "Waiting", class: "number", cell: ({ waiting }) => number(waiting) },
    { title: "At work", class: "number", cell: ({ unacknowledged }) => number(unacknowledged) },
    { title: "Redelivered", class: "number", cell: ({ redelivered }) => number(redelivered) },
    { title: "Workers", class: "number", cell: ({ workers: count }) => (count > 0 ? number(count) : h("span", { class: "status stuck" }, "none")) },
    { title: "Deliveries", cell: (one) => [one.paused_until && h("span", { class: "status paused" }, "paused"), " ", may("operator") && hold(one, changed)] },
  ], commands);
}

function hold({ command, paused_until: until }, changed) {
  const act = until ? "resume" : "pause";
  const title = until ? "Resume" : "Pause";
  const text = until
    ? "Its consumers deliver again."
    : "Its consumers deliver nothing, everywhere. A command that was delivered before is still worked on, and no clock stops.";
  const fields = until ? [] : [{ name: "whole_consumer", label: "Also consumers that take other commands too", type: "checkbox" }];
  return button(title, () =>
    ask({ title: `${title} ${command}`, text, fields, confirm: title, isDangerous: !until }, async (values, once) => {
      await post(`v1/ops/steps/${encodeURIComponent(command)}/${act}`, values, once);
      changed(`${title} ${command}: done.`);
    }), { "aria-label": `${title} ${command}`, "data-key": `${act}-${command}` });
}
