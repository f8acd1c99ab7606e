// Asks for a reason and a confirmation before something is changed.

import { newKey } from "./api.js";
import { announce, button, h, replace } from "./dom.js";
import { problem } from "./format.js";

/** The longest reason. */
const REASON_CHARS_MAX = 1000;

/**
 * Asks, and calls `submit(values, once)` when it is confirmed; `values` has the reason and the value of each field, `once` is the
 * Idempotency-Key of this dialog. Fields: {name, label, type, value, required, hint, options}. The dialog stays open with the
 * message if that fails.
 */
export function ask({ title, text, fields = [], confirm, isDangerous = false, reasonIsOptional = false }, submit) {
  const once = newKey();
  const failure = h("div", { class: "failure", role: "alert" });
  const inputs = fields.map((field) => [field, control(field)]);
  const reason = h("input", {
    id: "reason", name: "reason", type: "text", maxlength: REASON_CHARS_MAX, required: !reasonIsOptional, autocomplete: "off",
  });
  const send = h("button", { type: "submit", class: isDangerous ? "danger" : "primary" }, confirm);
  const form = h("form", { method: "dialog", onsubmit: run },
    h("h2", { id: "dialog-title" }, title),
    text && h("p", {}, text),
    inputs.map(([field, input]) =>
      h("div", { class: "field" }, h("label", { for: input.id }, field.label), input, field.hint && h("small", {}, field.hint))),
    h("div", { class: "field" },
      h("label", { for: "reason" }, reasonIsOptional ? "Reason (optional)" : "Reason"), reason,
      h("small", {}, "It is written down with your key's name.")),
    failure,
    h("div", { class: "buttons" }, button("Cancel", () => dialog.close()), send));
  const dialog = h("dialog", { "aria-labelledby": "dialog-title", onclose: () => dialog.remove() }, form);
  async function run(event) {
    event.preventDefault();
    send.disabled = true;
    try {
      const values = Object.fromEntries(inputs.map(([field, input]) => [field.name, read(field, input)]));
      await submit({ ...values, reason: reason.value }, once);
      dialog.close();
      announce(`${title}: done`);
    } catch (error) {
      replace(failure, problem(error));
      send.disabled = false;
    }
  }
  document.body.append(dialog);
  dialog.showModal();
  (inputs[0]?.[1] ?? reason).focus();
}

function control({ name, type = "text", value = "", required = false, options, min, max }) {
  const own = { id: `field-${name}`, name, required, autocomplete: "off" };
  if (options) {
    return h("select", { ...own, value }, options.map((option) => h("option", { value: option, selected: option === value }, option)));
  }
  if (type === "json") {
    return h("textarea", { ...own, rows: 5, spellcheck: "false", value });
  }
  if (type === "checkbox") return h("input", { ...own, type, checked: Boolean(value) });
  return h("input", { ...own, type, value: value ?? "", min, max });
}

/** The value of a field as the API takes it; an empty number or time is null. */
function read({ type, label }, input) {
  if (type === "checkbox") return input.checked;
  if (type === "number") return input.value === "" ? null : Number(input.value);
  if (type === "datetime-local") return input.value === "" ? null : new Date(input.value).toISOString();
  if (type === "json") {
    try {
      return JSON.parse(input.value || "{}");
    } catch {
      throw new Error(`${label} must be JSON.`);
    }
  }
  return input.value;
}
