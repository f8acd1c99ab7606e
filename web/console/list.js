// Tables and their pages.

import { get } from "./api.js";
import { button, h } from "./dom.js";

/** Rows on one page. */
export const PAGE = 50;

/**
 * A table. Columns: {title, cell(row), class}. On a narrow window each row becomes a card, with the titles beside the values.
 * The arrow keys move between the first links of the rows.
 */
export function table(label, columns, rows, empty = "Nothing here.") {
  if (rows.length === 0) return h("p", { class: "empty" }, empty);
  const head = h("tr", {}, columns.map(({ title, class: name }) => h("th", { scope: "col", class: name }, title)));
  const body = rows.map((row) =>
    h("tr", {}, columns.map(({ title, cell, class: name }) =>
      h("td", { "data-label": title, class: name }, h("div", {}, cell(row)))))
  );
  return h("table", { "aria-label": label, onkeydown: move }, h("thead", {}, head), h("tbody", {}, body));
}

function move(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const row = event.target.closest("tbody tr");
  if (!step || !row || event.target.matches("input, select, textarea")) return;
  const rows = [...row.parentElement.children];
  const target = rows[rows.indexOf(row) + step]?.querySelector("a, button");
  if (!target) return;
  event.preventDefault();
  target.focus();
}

/** The cursors of a list: one page is loaded at a time, and the way back to newer pages is remembered. */
export class Pager {
  #back = [];
  #cursor;
  #next = null;

  /** Loads the page that is looked at. */
  async load(path, parameters = {}) {
    const page = await get(path, { ...parameters, limit: PAGE, cursor: this.#cursor });
    this.#next = page.next_cursor;
    return page.items;
  }

  /** Buttons to newer and older items. */
  buttons(refresh) {
    if (this.#back.length === 0 && !this.#next) return null;
    const newer = () => {
      this.#cursor = this.#back.pop();
      refresh();
    };
    const older = () => {
      this.#back.push(this.#cursor);
      this.#cursor = this.#next;
      refresh();
    };
    return h("nav", { class: "pager", "aria-label": "Pages of the list" },
      button("Newer", newer, { disabled: this.#back.length === 0, "data-key": "newer" }),
      h("span", {}, `Page ${this.#back.length + 1}`),
      button("Older", older, { disabled: !this.#next, "data-key": "older" }));
  }
}
