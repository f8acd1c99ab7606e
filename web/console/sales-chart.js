// Seats that were sold and returned, hour by hour, as bars.

import { h, svg } from "./dom.js";
import { clock, number } from "./format.js";

const WIDTH = 720;
const HEIGHT = 120;
const HOUR_MS = 3_600_000;
/** Bars of a chart. A longer sale has wider steps, so that bars stay visible. */
const BARS_MAX = 180;
const STEPS_HOURS = [1, 3, 6, 12, 24, 72, 168, 720];

/** Bars upwards for seats sold, beside them those returned. Hours without sales are gaps. */
export function salesChart(hours) {
  if (hours.length === 0) return h("p", { class: "empty" }, "Nothing was sold yet.");
  const time = ({ hour }) => new Date(hour).getTime();
  const first = time(hours[0]);
  const span = (time(hours.at(-1)) - first) / HOUR_MS + 1;
  const step = STEPS_HOURS.find((size) => span / size <= BARS_MAX) ?? Math.ceil(span / BARS_MAX);
  const count = Math.ceil(span / step);
  const bars = Array.from({ length: count }, () => ({ sold: 0, returned: 0 }));
  for (const one of hours) {
    const bar = bars[Math.floor((time(one) - first) / HOUR_MS / step)];
    bar.sold += one.seats_sold;
    bar.returned += one.seats_returned;
  }
  const most = Math.max(1, ...bars.map(({ sold, returned }) => Math.max(sold, returned)));
  const total = (name) => bars.reduce((sum, bar) => sum + bar[name], 0);
  const width = WIDTH / count;
  const half = Math.max(1, width / 2 - 0.5);
  const rect = (name, value, x) => {
    const height = (value / most) * (HEIGHT - 4);
    return value > 0 && svg("rect", { class: name, x, y: HEIGHT - height, width: half, height });
  };
  const drawn = bars.map(({ sold, returned }, at) => [rect("completed", sold, at * width), rect("compensating", returned, at * width + half)]);
  const steps = step === 1 ? "an hour" : `${step} hours`;
  const words = `${number(total("sold"))} seats sold and ${number(total("returned"))} returned since ${clock(hours[0].hour)}, at most ${number(most)} in ${steps}`;
  const legend = [["completed", "sold"], ["compensating", "returned"]];
  return h("figure", { class: "chart" },
    h("figcaption", {}, `${words}.`),
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": words },
      svg("path", { class: "axis", d: `M0 ${HEIGHT - 0.5}H${WIDTH}` }), drawn),
    h("ul", { class: "legend", "aria-label": "Colours" }, legend.map(([name, text]) =>
      h("li", {}, svg("svg", { viewBox: "0 0 10 10", width: 10, height: 10, "aria-hidden": "true" },
        svg("rect", { class: name, width: 10, height: 10 })), text))));
}
