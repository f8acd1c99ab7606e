// The audit of operators' acts.

import { button, h, replace } from "../dom.js";
import { clock, sagaLink } from "../format.js";
import { Pager, table } from "../list.js";
import { live } from "../live.js";

const REFRESH_SECONDS = 5;

export function acts(page, { parameters, go }) {
  const pager = new Pager();
  const list = h("div");
  const wanted = { actor: parameters.get("actor"), saga_id: parameters.get("saga_id"), since: parameters.get("since") };
  const own = live(REFRESH_SECONDS, () => pager.load("v1/ops/acts", wanted), (rows) => {
    replace(list, table("Acts of operators, newest first", [
      { title: "Time", cell: ({ at }) => h("time", { datetime: at, title: at }, clock(at)) },
      { title: "By", cell: ({ actor }) => actor },
      { title: "Act", cell: ({ act }) => act },
      { title: "On", class: "wide", cell: ({ saga_id: id, target }) => [id && sagaLink(id), id && target && " ", target] },
      { title: "Reason", class: "wide", cell: ({ reason }) => reason },
      { title: "From, to", class: "wide", cell: ({ from, to }) => `${from} → ${to}` },
    ], rows, "No operator has acted yet."), pager.buttons(own.refresh));
  });
  replace(page, h("h1", {}, "Acts of operators"), form(wanted, go), own.failure, list);
  return own;
}

function form({ actor, saga_id: saga }, go) {
  const by = h("input", { id: "actor", name: "actor", type: "text", value: actor ?? "", "data-search": true, autocomplete: "off" });
  const on = h("input", { id: "saga", name: "saga", type: "text", value: saga ?? "", autocomplete: "off" });
  const submit = (event) => {
    event.preventDefault();
    const set = [["actor", by.value.trim()], ["saga_id", on.value.trim()]].filter(([, value]) => value);
    go(`acts?${new URLSearchParams(set)}`);
  };
  const field = (label, input) => h("div", { class: "field" }, h("label", { for: input.id }, label), input);
  return h("form", { class: "filters", role: "search", "aria-label": "Filter", onsubmit: submit },
    h("div", { class: "fields" }, field("By (key's name)", by), field("Saga", on),
      h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Apply"), button("Clear", () => go("acts")))));
}
