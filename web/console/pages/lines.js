// The lines before concerts: how long, how fast, and what an operator may change.

import { get, may, post } from "../api.js";
import { ask } from "../dialog.js";
import { button, h, link, replace } from "../dom.js";
import { ago, clock, duration, number, problem, status } from "../format.js";
import { Pager, table } from "../list.js";
import { done, live } from "../live.js";

const REFRESH_SECONDS = 2;

export function lines(page) {
  const pager = new Pager();
  const list = h("div");
  const own = live(REFRESH_SECONDS, () => pager.load("v1/ops/queues"), (rows) => {
    replace(list, table("Lines", [
      { title: "Concert", class: "wide", cell: ({ concert_id: id, concert_name: name }) => link(`lines/${id}`, name ?? id) },
      { title: "Phase", cell: (line) => [status(line.phase), line.stalled_since && [" ", h("span", { class: "status stuck" }, "stalled")]] },
      { title: "In line", class: "number", cell: ({ length }) => number(length) },
      { title: "Active", class: "number", cell: ({ active, settings }) => `${number(active)} of ${number(settings.max_active)}` },
      { title: "Rate per minute", class: "number", cell: ({ admission_rate: rate }) => number(rate) },
      { title: "Admitted, last minute", class: "number", cell: ({ admitted_last_minute: count }) => number(count) },
      { title: "Joined, last minute", class: "number", cell: ({ joined_last_minute: count }) => number(count) },
      { title: "Oldest waits", class: "number", cell: ({ oldest_waiter_seconds: seconds }) => (seconds === null ? "–" : duration(seconds * 1000)) },
    ], rows, "There is no concert yet."), pager.buttons(own.refresh));
  });
  replace(page, h("h1", {}, "Lines"), own.failure, list);
  return own;
}

export function line(page, { path: [id] }) {
  const [head, answer, body, acts] = ["", "", "", ""].map(() => h("div"));
  const changed = (text) => {
    done(answer, text);
    own.refresh();
    audit();
  };
  const pager = new Pager();
  const audit = async () => {
    const rows = await pager.load("v1/ops/queues/acts", { concert: id });
    replace(acts, table("Acts on this line, newest first", [
      { title: "Time", cell: ({ at }) => ago(at) },
      { title: "Act", cell: ({ act }) => act },
      { title: "By", cell: ({ actor }) => actor },
      { title: "Reason", class: "wide", cell: ({ reason }) => reason },
      { title: "From, to", class: "wide", cell: ({ from, to }) => `${from} → ${to}` },
    ], rows, "No operator has acted on it."), pager.buttons(audit));
  };
  const own = live(REFRESH_SECONDS, () => get(`v1/ops/queues/${id}`), (found) => {
    replace(head, h("div", { class: "title" }, h("h1", {}, found.concert_name ? `Line of ${found.concert_name}` : "Line"), status(found.phase)),
      may("operator") && h("div", { class: "buttons" }, buttons(found, changed)));
    replace(body, facts(found));
  });
  audit().catch((error) => replace(acts, h("p", { class: "empty" }, `The acts could not be loaded. ${problem(error)}`)));
  replace(page, own.failure, head, answer, body, h("section", {}, h("h2", {}, "Acts of operators"), acts));
  return own;
}

function buttons({ concert_id: id, settings }, changed) {
  const optional = { reasonIsOptional: true };
  const stop = settings.paused
    ? button("Resume", () => ask({ ...optional, title: "Resume the line", text: "Admission goes on.", confirm: "Resume" },
      async (values, once) => changed((await post(`v1/ops/queues/${id}/resume`, values, once), "Admission goes on.")))
    , { "data-key": "resume" })
    : button("Pause", () => ask({ ...optional, title: "Pause the line", text: "Admission stops. Everyone keeps their place.", confirm: "Pause", isDangerous: true },
      async (values, once) => changed((await post(`v1/ops/queues/${id}/pause`, values, once), "Admission has stopped.")))
    , { "data-key": "pause", class: "danger" });
  const admit = button("Admit now…", () => ask({
    ...optional, title: "Admit the next in line", text: "Beyond the rate, never beyond the cap.", confirm: "Admit",
    fields: [{ name: "count", label: "How many", type: "number", value: 1, min: 1, max: 1_000_000, required: true }],
  }, async (values, once) => {
    const { admitted } = await post(`v1/ops/queues/${id}/admit`, values, once);
    changed(`${number(admitted)} admitted.`);
  }), { "data-key": "admit" });
  return [stop, admit, button("Settings…", () => change(id, settings, changed), { "data-key": "settings" })];
}

/** Only what was changed is sent. */
function change(id, settings, changed) {
  const whole = (name, label) => ({ name, label, type: "number", value: settings[name], min: 0, required: true });
  const optional = (name, label, hint) => ({ name, label, type: "number", value: settings[name], min: 0, hint });
  const time = (name, label) => ({ name, label, type: "datetime-local", value: local(settings[name]) });
  const fields = [
    whole("max_active", "Most active at once"), whole("admit_per_minute", "Admitted per minute"),
    optional("min_rate", "Slowest rate of the throttle", "The throttle is on if both rates are set."),
    optional("max_rate", "Fastest rate of the throttle"),
    time("pre_queue_at", "Early comers gather from"), time("opens_at", "The sale opens at"),
  ];
  ask({ title: "Settings of the line", text: "They are in force within a second. Lowering the cap evicts no one.", fields, confirm: "Change", reasonIsOptional: true },
    async ({ reason, ...values }, once) => {
      const before = (name) => fields.find((field) => field.name === name).value ?? "";
      const isSame = ([name, value]) => (fields.find((field) => field.name === name).type === "number"
        ? value === settings[name]
        : (value === null ? "" : local(value)) === before(name));
      const different = Object.entries(values).filter((entry) => !isSame(entry));
      if (different.length === 0) throw new Error("Nothing is different.");
      await post(`v1/ops/queues/${id}/settings`, { ...Object.fromEntries(different), reason }, once);
      changed("The settings are in force.");
    });
}

/** A time as an input of this zone has it, to the minute. */
function local(text) {
  if (!text) return "";
  const time = new Date(text);
  return new Date(time.getTime() - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

function facts(line) {
  const { settings, brake } = line;
  const all = [
    ["In line", number(line.length)], ["Silent", number(line.silent)], ["Active", `${number(line.active)} of ${number(settings.max_active)}`],
    ["Rate per minute", number(line.admission_rate)], ["Set rate", number(settings.admit_per_minute)],
    ["Joined, last minute", number(line.joined_last_minute)], ["Admitted, last minute", number(line.admitted_last_minute)],
    ["Went silent, last minute", number(line.silenced_last_minute)], ["Did not come, last minute", number(line.no_shows_last_minute)],
    ["Oldest waits since", ago(line.oldest_waiter_since)], ["Seats", line.inventory.replaceAll("_", " ")],
    ["Sale opens", clock(line.opens_at)], ["Early comers from", clock(settings.pre_queue_at)],
    line.stalled_since && ["Stalled", ago(line.stalled_since)],
    ["Throttle", brake ? `${brake.reason} (${number(Math.round(brake.rate))} per minute)` : "off"],
    ["Concert", h("code", {}, line.concert_id)], ["Admitted by", line.leader ? h("code", {}, line.leader) : "no process"],
  ];
  return h("dl", { class: "facts" }, all.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}
