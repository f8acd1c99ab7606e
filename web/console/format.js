// How values are written: times, durations, numbers, statuses.

import { h, link } from "./dom.js";

const NUMBER = new Intl.NumberFormat("en-US");
const TIME = new Intl.DateTimeFormat("en-CA", {
  year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});

export const number = (value) => (value === null || value === undefined ? "–" : NUMBER.format(value));

/** Milliseconds as a short text: 12 ms, 3.4 s, 5 min 10 s, 2 h 3 min, 4 d 5 h. */
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(ms < 9_950 ? 1 : 0)} s`;
  const seconds = Math.round(ms / 1000);
  const [days, hours, minutes] = [Math.floor(seconds / 86_400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return `${minutes} min ${seconds % 60} s`;
}

/** A time of this browser's zone. */
export function clock(text) {
  return text ? TIME.format(new Date(text)).replace(",", "") : "–";
}

/** A time as its distance from now; the time itself shows on hover. */
export function ago(text) {
  if (!text) return "–";
  const ms = Date.now() - new Date(text).getTime();
  const words = ms >= 0 ? `${duration(ms)} ago` : `in ${duration(-ms)}`;
  return h("time", { datetime: text, title: `${clock(text)} (${text})` }, words);
}

/** A status with its colour. */
export function status(name, paused = false) {
  const badge = h("span", { class: `status ${name}` }, name.replaceAll("_", " "));
  return paused ? [badge, " ", h("span", { class: "status paused" }, "paused")] : badge;
}

/** An id, short; the whole one shows on hover. Ids of one moment share their beginning, so the end is shown. */
export function shortId(id) {
  return h("code", { title: id }, `…${id.slice(-12)}`);
}

export const sagaLink = (id) =>
  link(`sagas/${id}`, h("code", {}, `…${id.slice(-12)}`), { title: id, "aria-label": `Saga ${id}` });

/** What is wrong with an API call, as text. */
export function problem(error) {
  const faults = (error.errors ?? []).map(({ pointer, reason }) => `${pointer.replace(/^\//, "")} ${reason}`);
  return [error.message, ...faults].join(" ");
}
