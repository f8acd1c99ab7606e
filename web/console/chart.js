// Sagas of the last minutes as stacked bars.

import { h, svg } from "./dom.js";
import { clock, number } from "./format.js";

const WIDTH = 720;
const HEIGHT = 120;
/** From the bottom up. */
const ORDER = ["completed", "compensated", "abandoned", "waiting", "running", "compensating", "stuck"];

/** Bars of the sagas that were started in each interval, by the status that they have now. */
export function activityChart({ since, until, interval_seconds: seconds, intervals }) {
  const step = seconds * 1000;
  const first = Math.floor(new Date(since).getTime() / step) * step;
  const count = Math.max(1, Math.ceil((new Date(until).getTime() - first) / step));
  const sum = ({ by_status: by }) => Object.values(by).reduce((total, one) => total + one, 0);
  const most = Math.max(1, ...intervals.map(sum));
  const total = intervals.reduce((all, interval) => all + sum(interval), 0);
  const width = WIDTH / count;
  const bars = intervals.map((interval) => {
    const x = ((new Date(interval.at).getTime() - first) / step) * width;
    let y = HEIGHT;
    return ORDER.filter((name) => interval.by_status[name]).map((name) => {
      const height = (interval.by_status[name] / most) * (HEIGHT - 4);
      y -= height;
      return svg("rect", { class: name, x: x + 0.5, y, width: Math.max(1, width - 1), height });
    });
  });
  const present = ORDER.filter((name) => intervals.some(({ by_status: by }) => by[name]));
  const words = `${number(total)} sagas started since ${clock(since)}, at most ${number(most)} in ${seconds} s`;
  return h("figure", { class: "chart" },
    h("figcaption", {}, `${words}.`),
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": words },
      svg("path", { class: "axis", d: `M0 ${HEIGHT - 0.5}H${WIDTH}` }), bars),
    h("ul", { class: "legend", "aria-label": "Colours" }, present.map((name) =>
      h("li", {}, svg("svg", { viewBox: "0 0 10 10", width: 10, height: 10, "aria-hidden": "true" },
        svg("rect", { class: name, width: 10, height: 10 })), name))));
}
