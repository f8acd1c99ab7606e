// What an operator may do to one saga.

import { may, post } from "./api.js";
import { button, h } from "./dom.js";
import { ask } from "./dialog.js";

/** By the names of the API, in the order of the buttons. */
export const ACTS = {
  retry: { label: "Retry", text: "The saga tries its step again now. A stuck saga does it with a new visit." },
  complete: {
    label: "Complete by hand",
    text: "The step counts as done, with this output. If it did run, nothing is changed.",
    fields: [{ name: "output", label: "Output (JSON object)", type: "json", value: "{}" }],
  },
  skip_undo: { label: "Skip undo", text: "The undo is left out. What it would have taken back stays.", isDangerous: true },
  cancel: { label: "Cancel", text: "The saga turns back. What it did is undone.", isDangerous: true },
  abandon: { label: "Abandon", text: "The saga is given up as it is. Nothing is undone.", isDangerous: true },
  pause: { label: "Pause", text: "The next forward command is held back. No clock stops: a hold still ends." },
  resume: { label: "Resume", text: "The saga goes on." },
};

/** Buttons for what is allowed now. `changed` is called with the answer. */
export function actButtons(saga, changed) {
  if (!may("operator")) return h("p", { class: "hint" }, "Your key may look, but not act.");
  const names = Object.keys(ACTS).filter((name) => saga.allowed.includes(name));
  const buttons = names.map((name) => {
    const { label, isDangerous } = ACTS[name];
    return button(label, () => act(saga.id, name, changed), { class: isDangerous ? "danger" : null, "data-key": `act-${name}` });
  });
  if (["compensated", "abandoned"].includes(saga.status)) {
    buttons.push(button("Refund points", () => refund(saga.id, changed), { "data-key": "act-refund" }));
  }
  return buttons.length > 0 ? buttons : h("p", { class: "hint" }, "Nothing can be done to it now.");
}

function act(id, name, changed) {
  const { label, text, fields, isDangerous } = ACTS[name];
  ask({ title: `${label} saga`, text, fields, isDangerous, confirm: label }, async (values, once) => {
    changed(name, await post(`v1/ops/sagas/${id}/${name.replaceAll("_", "-")}`, values, once));
  });
}

function refund(id, changed) {
  const text = "The points that were taken are given back, if the saga has ended without a ticket for them.";
  ask({ title: "Refund points", text, confirm: "Refund" }, async (values, once) => {
    await post(`v1/ops/sagas/${id}/refund`, values, once);
    changed("refund", { left_behind: [], settlement: null });
  });
}
