// Which sagas are meant: the fields of the API's filter, kept in the address of the page.

import { button, h } from "./dom.js";

const STATUSES = ["", "running", "waiting", "compensating", "completed", "compensated", "stuck", "abandoned"];
const BOOLEANS = ["", "true", "false"];

/** The fields: name, label, and how it is typed in. */
const FIELDS = [
  { name: "workflow", label: "Workflow", list: "workflow-names" },
  { name: "status", label: "Status", options: STATUSES },
  { name: "step", label: "Step" },
  { name: "reason_contains", label: "Reason contains", isSearch: true },
  { name: "open", label: "Not ended", options: ["", "true"], isMore: true },
  { name: "attribute", label: "Attribute (name=value)", isMore: true },
  { name: "direction", label: "Direction", options: ["", "do", "undo"], isMore: true },
  { name: "paused", label: "Paused", options: BOOLEANS, isMore: true },
  { name: "version", label: "Version", type: "number", min: 1, isMore: true },
  { name: "reservation_id", label: "Reservation", isMore: true },
  { name: "user_id", label: "User", isMore: true },
  { name: "performance_id", label: "Performance", isMore: true },
  { name: "started_after", label: "Started after", type: "datetime-local", isMore: true },
  { name: "started_before", label: "Started before", type: "datetime-local", isMore: true },
  { name: "older_than_seconds", label: "Older than (seconds)", type: "number", min: 0, isMore: true },
  { name: "idle_seconds", label: "Nothing happened for (seconds)", type: "number", min: 0, isMore: true },
];

/** Only the fields of the filter that have a value. */
export function filterOf(parameters) {
  const set = FIELDS.map(({ name }) => [name, parameters.get(name)]).filter(([, value]) => value);
  return Object.fromEntries(set);
}

/** The same with the types that a body has. */
export function filterBody(parameters) {
  const typed = ([name, value]) => {
    const field = FIELDS.find((known) => known.name === name);
    if (field.type === "number") return [name, Number(value)];
    if (["open", "paused"].includes(name)) return [name, value === "true"];
    return [name, value];
  };
  return Object.fromEntries(Object.entries(filterOf(parameters)).map(typed));
}

/** A form with the values of `parameters`; `apply` is called with the new ones. */
export function filterForm(parameters, workflows, apply) {
  const inputs = FIELDS.map((field) => [field, input(field, parameters.get(field.name))]);
  const shown = ({ isMore }, [field, control]) =>
    Boolean(field.isMore) === isMore && h("div", { class: "field" }, h("label", { for: control.id }, field.label), control);
  const values = () => {
    const found = new URLSearchParams();
    for (const [field, control] of inputs) {
      const value = field.type === "datetime-local" && control.value ? new Date(control.value).toISOString() : control.value.trim();
      if (value) found.set(field.name, value);
    }
    return found;
  };
  const submit = (event) => {
    event?.preventDefault();
    apply(values());
  };
  const more = inputs.filter(([field]) => field.isMore);
  const isOpen = more.some(([field]) => parameters.get(field.name));
  return h("form", { class: "filters", role: "search", "aria-label": "Filter", onsubmit: submit },
    h("datalist", { id: "workflow-names" }, workflows.map((name) => h("option", { value: name }))),
    h("div", { class: "fields" }, inputs.map((pair) => shown({ isMore: false }, pair)),
      h("div", { class: "buttons" },
        h("button", { type: "submit", class: "primary" }, "Apply"),
        button("Clear", () => apply(new URLSearchParams())))),
    h("details", { open: isOpen }, h("summary", {}, "More filters"),
      h("div", { class: "fields" }, more.map((pair) => shown({ isMore: true }, pair)))));
}

function input({ name, options, type = "text", min, list, isSearch }, value) {
  const own = { id: `filter-${name}`, name: `filter-${name}`, "data-search": isSearch };
  if (options) {
    const all = options.map((option) => h("option", { value: option, selected: option === (value ?? "") }, option || "any"));
    return h("select", { ...own }, all);
  }
  const text = type === "datetime-local" && value ? local(value) : value ?? "";
  return h("input", { ...own, type, value: text, min, list, autocomplete: "off", step: type === "datetime-local" ? "1" : null });
}

/** A time as an input of this zone has it. */
function local(text) {
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? "" : new Date(time.getTime() - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}
