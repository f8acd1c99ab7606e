// What is on: the front page.

import { h, svg } from '../dom.js';
import { t } from '../text/index.js';

/** @type {import('../app.js').Page} */
export async function concerts({ shop }) {
  const { items } = await shop.client.concerts();
  const texts = t().concerts;
  return [
    h('h1', {}, texts.title),
    h('p.lead', {}, texts.lead),
    items.length === 0 && h('p', {}, texts.none),
    h('ul.cards', {}, items.map((concert) => h(
      'li', {},
      h('a.card', { href: `#/concerts/${concert.id}` },
        poster(concert.id),
        h('span.body', {},
          h('strong', {}, concert.name),
          h('span', {}, concert.description),
          h(concert.on_sale ? 'span.badge.good' : 'span.badge', {}, concert.on_sale ? texts.onSale : texts.notOnSale),
        ),
      ),
    ))),
  ];
}

/** A picture of its own for each concert, drawn from its id. @param {string} id */
export function poster(id) {
  let state = [...id].reduce((sum, letter) => (Math.imul(sum, 31) + letter.charCodeAt(0)) >>> 0, 7);
  const next = (/** @type {number} */ below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const hue = next(360);
  const color = (/** @type {number} */ turn, /** @type {number} */ light) => `hsl(${(hue + turn) % 360} 55% ${light}%)`;
  const [x, y] = [60 + next(200), 40 + next(60)];
  const rings = [150, 118, 88, 60, 36, 16].map((r, at) => svg('circle', { cx: x, cy: y, r, fill: color(at * 14, 20 + at * 9) }));
  const bars = Array.from({ length: 27 }, (_, at) => {
    const height = 8 + next(58) * (0.5 + Math.abs(Math.sin(at / 3)) / 2);
    return svg('rect', { x: at * 12 + 1, y: 160 - height, width: 7, height, rx: 3, fill: '#fff', opacity: 0.82 });
  });
  return svg('svg', { viewBox: '0 0 320 160', class: 'poster', 'aria-hidden': 'true', preserveAspectRatio: 'xMidYMid slice' }, svg('rect', { width: 320, height: 160, fill: color(0, 16) }), ...rings, ...bars);
}
