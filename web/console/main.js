// The frame of the console: sign-in, header, and which page the address names.

import { get, key, session, signIn, signOut } from "./api.js";
import { button, h, link, replace } from "./dom.js";
import { problem } from "./format.js";
import { liveSwitch } from "./live.js";
import { acts } from "./pages/acts.js";
import { batch, batches, newBatch } from "./pages/batches.js";
import { line, lines } from "./pages/lines.js";
import { overview } from "./pages/overview.js";
import { parked, parkedMessage } from "./pages/parked.js";
import { report, reports } from "./pages/reports.js";
import { saga } from "./pages/saga.js";
import { sagas } from "./pages/sagas.js";
import { workers } from "./pages/workers.js";
import { workflow, workflows } from "./pages/workflows.js";

/** The first part of the address, its title in the header, its page, and the page of one item. */
const SECTIONS = [
  ["", "Overview", overview],
  ["sagas", "Sagas", sagas, saga],
  ["workflows", "Workflows", workflows, workflow],
  ["batches", "Batches", batches, (page, place) => (place.path[0] === "new" ? newBatch : batch)(page, place)],
  ["parked", "Parked", parked, parkedMessage],
  ["workers", "Workers", workers],
  ["lines", "Lines", lines, line],
  ["reports", "Reports", reports, report],
  ["acts", "Audit", acts],
];
const UUID = /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i;

const header = document.getElementById("header");
const main = document.getElementById("main");
let shown = null;

/** Leads to a page; the same address again shows it anew. */
function go(path) {
  const hash = `#/${path}`.replace(/\?$/, "");
  if (location.hash === hash) route();
  else location.hash = hash;
}

function route() {
  shown?.stop();
  shown = null;
  main.removeAttribute("aria-busy");
  if (!session.name) return askForKey();
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [first, ...rest] = path.split("/").map(decodeURIComponent);
  const section = SECTIONS.find(([name]) => name === first);
  const page = section?.[rest.length > 0 ? 3 : 2];
  for (const anchor of header.querySelectorAll("nav a")) {
    const isHere = anchor.getAttribute("href") === `#/${first}`;
    if (isHere) {
      anchor.setAttribute("aria-current", "page");
      anchor.scrollIntoView({ block: "nearest", inline: "center" });
    } else anchor.removeAttribute("aria-current");
  }
  document.title = `${section?.[1] ?? "Not found"}${rest[0] ? ` ${rest[0]}` : ""} · Box Office console`;
  if (!page) return replace(main, h("h1", {}, "Not found"), h("p", {}, "The console has no such page. ", link("", "To the overview")));
  shown = page(main, { path: rest, parameters: new URLSearchParams(query), go });
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function showHeader() {
  const search = h("input", {
    type: "search", name: "find", id: "find", placeholder: "Find by id or reason", "aria-label": "Find sagas by id or reason", title: "Press / to come here",
    autocomplete: "off",
  });
  const found = (event) => {
    event.preventDefault();
    if (search.value.trim()) find(search.value.trim());
    search.value = "";
  };
  replace(header,
    h("div", { class: "top" },
      h("a", { class: "brand", href: "#/" }, "Box Office"),
      h("form", { class: "find", role: "search", "aria-label": "Find sagas", onsubmit: found }, search),
      liveSwitch(),
      h("span", { class: "who", title: `Your key: ${session.name} (${session.role})` }, session.role),
      button("Sign out", signOut, { "data-key": "sign-out" })),
    h("nav", { "aria-label": "Pages" }, SECTIONS.map(([name, title]) => link(name, title))));
}

/** An id may be that of a saga, a reservation, a user or a performance; any other text is looked for in reasons. */
async function find(text) {
  if (!UUID.test(text)) return go(`sagas?${new URLSearchParams({ reason_contains: text })}`);
  const isSaga = await get(`v1/ops/sagas/${text}`).then(() => true, () => false);
  if (isSaga) return go(`sagas/${text}`);
  for (const field of ["reservation_id", "user_id", "performance_id"]) {
    const page = await get("v1/ops/sagas", { [field]: text, limit: 1 }).catch(() => null);
    if (page?.items.length > 0) return go(`sagas?${field}=${text}`);
  }
  go(`sagas?reservation_id=${text}`);
}

function askForKey(failure) {
  header.replaceChildren();
  document.title = "Sign in · Box Office console";
  const input = h("input", { id: "key", name: "key", type: "password", required: true, autocomplete: "off", spellcheck: "false" });
  const submit = async (event) => {
    event.preventDefault();
    key.set(input.value.trim());
    await start();
  };
  replace(main, h("form", { class: "panel sign-in", onsubmit: submit },
    h("h1", {}, "Box Office console"),
    h("p", {}, "Type in an API key with the role viewer, operator or admin. It is kept in this tab only, until the tab is closed."),
    h("div", { class: "field" }, h("label", { for: "key" }, "API key"), input,
      h("small", {}, "A key is made with: ", h("code", {}, "boxoffice keys create --role operator --name you"))),
    h("div", { class: "failure", role: "alert" }, failure),
    h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Sign in"))));
  input.focus();
}

async function start() {
  if (!key.get()) return askForKey();
  try {
    await signIn();
  } catch (error) {
    if (error.status === 401 || error.status === 403) key.forget();
    return askForKey(problem(error));
  }
  showHeader();
  route();
}

addEventListener("hashchange", route);
addEventListener("signed-out", () => {
  shown?.stop();
  shown = null;
  askForKey("You are signed out.");
});
addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, textarea, select, dialog");
  if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const search = document.querySelector("main [data-search]") ?? document.getElementById("find");
  if (!search) return;
  event.preventDefault();
  search.focus();
});
start();
