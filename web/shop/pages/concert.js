// One concert: how its sale stands, and the way into the line.

import '../components/box-countdown.js';
import { h } from '../dom.js';
import * as session from '../session.js';
import { dateTime, t } from '../text/index.js';
import { poster } from './concerts.js';
import { crowd } from './crowd.js';

/** @type {import('../app.js').Page} */
export async function concert({ shop, signal, id }) {
  const found = await shop.client.concert(id);
  const texts = t().concert;
  const isOver = found.phase === 'closed' || found.inventory === 'sold_out' || found.phase === 'sold_out';
  const note = found.phase === 'closed' ? texts.closed : isOver ? texts.soldOut : found.phase === 'paused' ? texts.paused : found.inventory === 'low' ? texts.low : null;
  const isToCome = typeof found.opens_in_seconds === 'number' && found.opens_at;
  return [
    h('div.hero', {}, poster(id), h('div.caption', {}, h('h1', {}, found.name), h('p', {}, found.description))),
    note && h('p.note', {}, note),
    isToCome && h('p.note', {}, texts.opens(dateTime(/** @type {string} */ (found.opens_at)))),
    !isOver && h('p.actions', {}, h('a.button.primary.wide', { href: `#/concerts/${id}/line` }, session.place(id) ? texts.resume : texts.join)),
    h('section.panel', {}, h('h2', {}, texts.fairTitle), h('ul', {}, texts.fair.map((line) => h('li', {}, line)))),
    shop.config.local && crowd({ shop, signal, id }),
  ];
}
