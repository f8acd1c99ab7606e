// The dates of a concert, for a buyer whose turn it is.

import '../components/box-countdown.js';
import { fill, h, repeat } from '../dom.js';
import * as session from '../session.js';
import { dateTime, t } from '../text/index.js';

const LOOK_INTERVAL_MS = 5_000;

/** @type {import('../app.js').Page} */
export async function dates({ shop, signal, id }) {
  await shop.needUser();
  const concert = await shop.client.concert(id);
  const texts = t().dates;
  const list = h('ul.rows');
  let isFirst = true;
  const look = async () => {
    const token = session.place(id)?.token;
    if (!token) {
      shop.go(`concerts/${id}/line`);
      return;
    }
    const { items } = await shop.client.performances(id, token);
    for (const date of items) session.setDateFacts(date.id, { concert: id, name: concert.name, venue: date.venue, starts_at: date.starts_at });
    fill(list, items.length === 0 && h('li.empty', {}, texts.none), items.map((date) => h(
      'li', {},
      h('a.row', { href: `#/dates/${date.id}` },
        h('span', {}, h('strong', {}, dateTime(date.starts_at)), h('br'), `${date.venue} · ${texts.minutes(date.duration_minutes)}`),
        h('span.end', {}, h('span', {}, texts.free(date.seats_free, date.seats_total)), meter(date.seats_free, date.seats_total)),
      ),
    )));
  };
  const frame = [h('p.eyebrow', {}, concert.name), h('h1', {}, texts.title), sessionBar(shop, signal, id), list];
  try {
    await look();
  } catch (error) {
    if (isTurnOver(error)) {
      shop.complain(error);
      shop.go(`concerts/${id}/line`);
      return frame;
    }
    throw error;
  }
  repeat(signal, async () => {
    try {
      if (!isFirst && !list.contains(document.activeElement)) await look();
      isFirst = false;
    } catch (error) {
      if (isTurnOver(error)) {
        shop.complain(error);
        shop.go(`concerts/${id}/line`);
        return null;
      }
    }
    return LOOK_INTERVAL_MS;
  });
  return frame;
}

/** Whether the place in line does not let this buyer through any more. @param {any} error */
export const isTurnOver = (error) => String(error?.code).startsWith('queue_token_');

/** How long this buyer's turn lasts. @param {import('../app.js').Shop} shop @param {AbortSignal} signal @param {string} concert */
export function sessionBar(shop, signal, concert) {
  const countdown = h('box-countdown');
  const bar = h('p.session', { hidden: true }, t().dates.session, ' ', countdown);
  repeat(signal, async () => {
    const kept = session.place(concert);
    if (!kept) return null;
    try {
      const place = await shop.client.place(kept.token, signal);
      session.setPlace(concert, { ...kept, token: place.token });
      countdown.seconds = place.expires_in_seconds ?? null;
      bar.hidden = place.status !== 'active';
      return place.status === 'expired' ? null : Math.max(place.poll_after_ms, 5_000);
    } catch {
      return 10_000;
    }
  });
  return bar;
}

/** @param {number} free @param {number} total */
function meter(free, total) {
  const filled = h('span');
  filled.style.inlineSize = `${Math.round((100 * free) / Math.max(1, total))}%`;
  return h('span.meter', { 'aria-hidden': 'true' }, filled);
}
