// The balance, its entries, and adding points.

import { newKey } from '../client.js';
import { fill, h } from '../dom.js';
import { shortTime, t } from '../text/index.js';

const AMOUNTS = [10_000, 50_000, 100_000];

/** @type {import('../app.js').Page} */
export async function points({ shop }) {
  await shop.needUser();
  const texts = t().balance;
  const balance = h('p.balance', { 'aria-live': 'polite' });
  const rows = h('tbody');
  const table = h('table', {}, h('thead', {}, h('tr', {}, Object.values(texts.columns).map((name) => h('th', { scope: 'col' }, name)))), rows);
  const empty = h('p', {}, texts.none);
  const load = async () => {
    const [own, entries] = await Promise.all([shop.client.points(), shop.client.entries()]);
    balance.textContent = t().points(own.balance);
    table.hidden = entries.items.length === 0;
    empty.hidden = entries.items.length > 0;
    fill(rows, entries.items.map((entry) => h('tr', {},
      h('td', {}, shortTime(entry.created_at)),
      h('td', {}, entry.reservation_id ? h('a', { href: `#/reservations/${entry.reservation_id}` }, texts.kind[entry.kind]) : texts.kind[entry.kind]),
      h('td.number', {}, t().points(entry.amount)),
      h('td.number', {}, t().points(entry.balance)),
    )));
    shop.showBalance();
  };
  const keys = new Map();
  const add = async (/** @type {number} */ amount) => {
    if (keys.has(amount)) return;
    keys.set(amount, newKey());
    try {
      await shop.client.charge(amount, keys.get(amount));
      await load();
    } catch (error) {
      shop.complain(error);
    }
    keys.delete(amount);
  };
  await load();
  return [
    h('h1', {}, texts.title),
    h('p.lead', {}, texts.lead),
    h('section.panel', {}, balance, shop.config.local
      ? [h('p.actions', {}, AMOUNTS.map((amount) => h('button', { type: 'button', onclick: () => add(amount) }, texts.add(t().points(amount))))), h('p.small', {}, texts.local)]
      : h('p.small', {}, texts.production)),
    h('section.panel', {}, h('h2', {}, texts.entries), empty, h('div.scroll', { tabIndex: 0, role: 'region', 'aria-label': texts.entries }, table)),
  ];
}
