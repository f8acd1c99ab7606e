// How a date sells: seats, revenue and refunds, by section and by hour.

import { get } from "../api.js";
import { salesChart } from "../sales-chart.js";
import { h, link, replace } from "../dom.js";
import { clock, number } from "../format.js";
import { Pager, table } from "../list.js";
import { live } from "../live.js";

const DATES_REFRESH_SECONDS = 30;
const REPORT_REFRESH_SECONDS = 10;
/** Hours in the table, the latest; the chart has more. */
const HOURS_SHOWN = 24;

export function reports(page) {
  const pager = new Pager();
  const list = h("div");
  const own = live(DATES_REFRESH_SECONDS, () => pager.load("v1/admin/performances"), (rows) => {
    replace(list, table("Dates, the latest first", [
      { title: "Concert", class: "wide", cell: ({ id, concert }) => link(`reports/${id}`, concert, { "data-key": id }) },
      { title: "Starts", cell: ({ starts_at: at }) => clock(at) },
      { title: "Venue", class: "wide", cell: ({ venue }) => venue },
      { title: "Seats", class: "number", cell: ({ seats_total: total }) => number(total) },
    ], rows, "There is no date yet."), pager.buttons(own.refresh));
  });
  replace(page, h("h1", {}, "Sales reports"), own.failure, h("p", { class: "hint" }, "Reports need a key with the role admin."), list);
  return own;
}

export function report(page, { path: [id] }) {
  const [head, body] = [h("div"), h("div")];
  const own = live(REPORT_REFRESH_SECONDS, () => get(`v1/admin/performances/${encodeURIComponent(id)}/report`), (found) => {
    const { performance: date, sections, hours } = found;
    replace(head, h("h1", {}, date.concert, " ", h("small", {}, `${date.venue}, ${clock(date.starts_at)}`)));
    replace(body, cards(found),
      h("section", {}, h("h2", {}, "By hour"), salesChart(hours), hourTable(found)),
      h("section", {}, h("h2", {}, "By section"), sectionTable(sections)));
  });
  replace(page, own.failure, head, body);
  return own;
}

function cards({ seats, revenue, refunds, net, at }) {
  const share = seats.total > 0 ? `${((100 * seats.sold) / seats.total).toFixed(1)} %` : "–";
  const all = [
    ["Sold", number(seats.sold), `${share} of ${number(seats.total)} seats`], ["Held", number(seats.held)],
    ["Blocked", number(seats.blocked)], ["Free", number(seats.free)],
    ["Revenue", number(revenue), "points"], ["Refunds", number(refunds), "points"], ["Net", number(net), `points, at ${clock(at)}`],
  ];
  return h("div", { class: "cards" }, all.map(([title, value, note]) =>
    h("div", { class: "card" }, h("span", { class: "title" }, title), h("b", {}, value), note && h("small", {}, note))));
}

function sectionTable(sections) {
  const count = (title, name) => ({ title, class: "number", cell: (row) => number(row[name]) });
  return table("Sales by section", [
    { title: "Section", class: "wide", cell: ({ section }) => section },
    count("Sold", "sold"), count("Held", "held"), count("Blocked", "blocked"), count("Free", "free"), count("Seats", "total"),
    count("Revenue", "revenue"), count("Refunds", "refunds"),
  ], sections, "The date has no seats.");
}

function hourTable({ hours, hours_left_out: areLeftOut }) {
  if (hours.length === 0) return null;
  const count = (title, name) => ({ title, class: "number", cell: (row) => number(row[name]) });
  const rows = hours.slice(-HOURS_SHOWN).reverse();
  const isCut = areLeftOut || rows.length < hours.length;
  return [
    table("Sales by hour, newest first", [
      { title: "Hour", cell: ({ hour }) => h("time", { datetime: hour, title: hour }, clock(hour)) },
      count("Seats sold", "seats_sold"), count("Seats returned", "seats_returned"), count("Revenue", "revenue"), count("Refunds", "refunds"),
    ], rows),
    isCut && h("p", { class: "hint" }, `The table has the latest ${HOURS_SHOWN} hours; the API has more.`),
  ];
}
