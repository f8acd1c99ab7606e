// Messages that nothing could act on.

import { get, may, post } from "../api.js";
import { ask } from "../dialog.js";
import { button, h, json, link, replace } from "../dom.js";
import { ago, sagaLink } from "../format.js";
import { Pager, table } from "../list.js";
import { done, live } from "../live.js";

const REFRESH_SECONDS = 5;

export function parked(page, { parameters }) {
  const pager = new Pager();
  const list = h("div");
  const saga = parameters.get("saga_id");
  const own = live(REFRESH_SECONDS, () => pager.load("v1/ops/parked", { saga_id: saga }), (rows) => {
    replace(list, table("Parked messages, newest first", [
      { title: "Message", cell: ({ id }) => link(`parked/${id}`, `#${id}`) },
      { title: "Parked", cell: ({ parked_at: at }) => ago(at) },
      { title: "Subject", cell: ({ subject }) => h("code", {}, subject) },
      { title: "Why", class: "wide", cell: ({ error }) => error },
      { title: "Saga", cell: ({ headers }) => (headers.Saga ? sagaLink(headers.Saga) : "") },
    ], rows, "No message is parked."), pager.buttons(own.refresh));
  });
  replace(page, h("h1", {}, "Parked messages"),
    h("p", { class: "hint" }, "A message is parked when nothing could act on it: it is malformed, illegal, or fails alone. It is kept until an operator releases or drops it."),
    own.failure, list);
  return own;
}

export function parkedMessage(page, { path: [id], go }) {
  const body = h("div");
  const answer = h("div");
  const own = live(3600, () => get(`v1/ops/parked/${id}`), (message) => {
    const act = (name, title, text, isDangerous) => button(title, () =>
      ask({ title: `${title} message ${id}`, text, confirm: title, isDangerous }, async ({ reason }, once) => {
        await post(`v1/ops/parked/${id}/${name}`, { reason }, once);
        done(answer, `${title}: done.`);
        own.stop();
        setTimeout(() => go("parked"), 800);
      }), { class: isDangerous ? "danger" : null, "data-key": name });
    replace(body,
      h("p", { class: "why" }, message.error),
      may("operator") && h("div", { class: "buttons" },
        act("release", "Release", "It is published again, where it came from. Do this when what stood in its way is mended.", false),
        act("drop", "Drop", "It is thrown away.", true)),
      h("dl", { class: "facts" }, [["Parked", ago(message.parked_at)], ["Stream", message.stream], ["Subject", h("code", {}, message.subject)],
        message.headers.Saga && ["Saga", sagaLink(message.headers.Saga)]].filter(Boolean).map(([name, value]) =>
        h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
      h("h2", {}, "Headers"), json(message.headers, "Headers"),
      h("h2", {}, "Payload"), payload(message));
  });
  replace(page, h("h1", {}, `Parked message #${id}`), own.failure, answer, body);
  return own;
}

function payload({ payload: text, payload_base64: base64 }) {
  if (text === null) return [h("p", { class: "hint" }, "It is no text; this is base64."), h("pre", { tabindex: "0" }, base64)];
  try {
    return json(JSON.parse(text), "Payload");
  } catch {
    return h("pre", { tabindex: "0", role: "region", "aria-label": "Payload" }, text);
  }
}
