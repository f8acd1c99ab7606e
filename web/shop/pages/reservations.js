// The buyer's reservations, newest first.

import { h, put } from '../dom.js';
import * as session from '../session.js';
import { shortTime, t } from '../text/index.js';

/** @type {import('../app.js').Page} */
export async function reservations({ shop }) {
  await shop.needUser();
  shop.showBalance();
  const texts = t().reservations;
  const list = h('ul.rows');
  const more = h('p.actions');
  const load = async (/** @type {string | undefined} */ cursor) => {
    const page = await shop.client.reservations(cursor);
    put(list, page.items.map((one) => {
      const facts = session.dateFacts(one.performance_id);
      const date = one.performance ?? facts;
      const numbers = one.seats.map((seat) => seat.number).join(', ');
      return h('li', {}, h('a.row', { href: `#/reservations/${one.id}` },
        h('span', {}, h('strong', {}, facts?.name ?? t().reservation.unknownDate), h('br'), shortTime(date ? date.starts_at : one.created_at), ` · ${one.seats[0]?.section ?? ''} ${numbers}`),
        h('span.end', {}, h(`span.badge${one.status === 'confirmed' ? '.good' : one.status === 'held' ? '.warn' : ''}`, {}, texts.status[one.status]), h('span', {}, t().points(one.amount))),
      ));
    }));
    if (!list.children.length) put(list, h('li.empty', {}, texts.none));
    more.replaceChildren();
    if (page.next_cursor) more.append(h('button', { type: 'button', onclick: () => load(page.next_cursor ?? undefined).catch((error) => shop.complain(error)) }, texts.more));
  };
  await load(undefined);
  return [h('h1', {}, texts.title), list, more];
}
