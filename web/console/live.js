// Keeps a page up to date: asks again every few seconds, unless the operator has paused that or does not look.

import { announce, button, h, replace } from "./dom.js";
import { problem } from "./format.js";

let isLive = true;
const running = new Set();

/** The switch in the header. */
export function liveSwitch() {
  const label = () => (isLive ? "Live" : "Paused");
  const toggle = button(label(), () => {
    isLive = !isLive;
    toggle.textContent = label();
    toggle.setAttribute("aria-pressed", String(isLive));
    if (isLive) for (const one of running) one.refresh();
  }, { class: "live", "aria-pressed": "true", title: "Refresh pages by themselves" });
  return toggle;
}

/**
 * Calls `load` now and every `seconds`, and gives its answer to `show`. A failure is shown above, and the last answer stays.
 * Returns what a page is made of: `refresh` and `stop`, and the element for failures.
 */
export function live(seconds, load, show) {
  const failure = h("div", { class: "failure", role: "alert" });
  let timer = null;
  let isStopped = false;
  let turn = 0;
  const next = () => {
    clearTimeout(timer);
    if (!isStopped) timer = setTimeout(tick, seconds * 1000);
  };
  const tick = () => (isLive && !document.hidden ? refresh() : next());
  // The page is busy until its first answer.
  const page = document.getElementById("main");
  page.setAttribute("aria-busy", "true");
  const refresh = async () => {
    const own = ++turn;
    try {
      const answer = await load();
      if (isStopped || own !== turn) return;
      failure.replaceChildren();
      show(answer);
    } catch (error) {
      if (isStopped || own !== turn) return;
      const text = problem(error);
      // Said once, and not again every few seconds.
      if (failure.textContent !== text) replace(failure, text);
    }
    page.removeAttribute("aria-busy");
    next();
  };
  const seen = () => !document.hidden && isLive && refresh();
  document.addEventListener("visibilitychange", seen);
  const one = {
    failure,
    refresh,
    stop() {
      isStopped = true;
      clearTimeout(timer);
      running.delete(one);
      document.removeEventListener("visibilitychange", seen);
    },
  };
  running.add(one);
  refresh();
  return one;
}

/** Says that something was done, where it can be seen and heard. */
export function done(element, text) {
  replace(element, h("p", { class: "success" }, text));
  announce(text);
}
