// The list of sagas, by a filter that stands in the address.

import { get, may } from "../api.js";
import { h, link, replace } from "../dom.js";
import { filterForm, filterOf } from "../filters.js";
import { ago, sagaLink, status } from "../format.js";
import { Pager, table } from "../list.js";
import { live } from "../live.js";

const REFRESH_SECONDS = 3;

export function sagas(page, { parameters, go }) {
  const filter = filterOf(parameters);
  const query = String(new URLSearchParams(filter));
  const pager = new Pager();
  const list = h("div");
  const form = h("div");
  const apply = (values) => go(`sagas?${values}`);
  replace(form, filterForm(parameters, [], apply));
  get("v1/ops/workflows").then(({ items }) => {
    // The names come later than the form, which may be in use already.
    const names = form.querySelector("datalist");
    replace(names, items.map(({ name }) => h("option", { value: name })));
  }, () => {});
  const own = live(REFRESH_SECONDS, () => pager.load("v1/ops/sagas", filter), (rows) => {
    replace(list, sagaTable(rows, query ? "No saga matches this filter." : "There are no sagas yet."), pager.buttons(own.refresh));
  });
  const batch = query && may("operator") && link(`batches/new?${query}`, "Act on all of these…", { class: "button" });
  replace(page, h("div", { class: "title" }, h("h1", {}, "Sagas"), batch), form, own.failure, list);
  return own;
}

export function sagaTable(rows, empty) {
  return table("Sagas, newest first", [
    { title: "Saga", cell: ({ id }) => sagaLink(id) },
    { title: "Workflow", cell: ({ workflow, version }) => `${workflow} v${version}` },
    { title: "Status", cell: (saga) => status(saga.status, saga.paused) },
    { title: "Step", cell: ({ step, direction }) => (direction === "undo" ? `undo ${step}` : step) },
    { title: "Reason", class: "wide", cell: ({ reason }) => reason ?? "" },
    rows.some(({ attributes }) => attributes && Object.keys(attributes).length > 0) && {
      title: "Attributes", class: "wide", cell: ({ attributes }) => attributeLinks(attributes ?? {}) },
    { title: "Started", cell: ({ created_at: at }) => ago(at) },
    { title: "Last change", cell: ({ updated_at: at }) => ago(at) },
  ].filter(Boolean), rows, empty);
}

/** Each attribute leads to the sagas that have it. */
export function attributeLinks(attributes) {
  return Object.entries(attributes).map(([name, value]) => {
    const pair = `${name}=${value}`;
    return [link(`sagas?${new URLSearchParams({ attribute: pair })}`, pair), " "];
  });
}
