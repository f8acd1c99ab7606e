// The seats of a date: choose and hold.

import '../components/box-seats.js';
import { newKey } from '../client.js';
import { fill, h, repeat } from '../dom.js';
import * as session from '../session.js';
import { dateTime, t } from '../text/index.js';
import { isTurnOver, sessionBar } from './dates.js';

const LOOK_INTERVAL_MS = 2_000;
const RETRY_PAUSE_MS = 5_000;

/** @type {import('../app.js').Page} */
export async function seats({ shop, signal, id }) {
  await shop.needUser();
  const texts = t().map;
  const facts = session.dateFacts(id);
  const concert = facts?.concert ?? '';
  if (!facts || !session.place(concert)) {
    shop.go(concert ? `concerts/${concert}/line` : '');
    return [];
  }
  const map = h('box-seats');
  const bar = h('div.buy', { role: 'region', 'aria-label': texts.chosen });
  const token = () => session.place(concert)?.token ?? '';
  const turnOver = (/** @type {any} */ error) => {
    shop.complain(error);
    shop.go(`concerts/${concert}/line`);
  };

  /** @type {{ version?: string, etag?: string }} */
  let known = {};
  const look = async () => {
    const news = await shop.client.seats(id, token(), { since: known.version, etag: known.etag, signal });
    if (!news) return;
    if (news.map.since) map.change(news.map.seats);
    else map.show(news.map.seats);
    known = { version: news.map.version, etag: news.etag ?? undefined };
  };

  // One key for each choice: two clicks, or a click after a lost answer, hold these seats once.
  let intent = { seats: '', key: '' };
  const order = async (/** @type {string} */ wish, /** @type {(key: string) => Promise<any>} */ send, /** @type {any} */ button) => {
    if (button.getAttribute('aria-disabled') === 'true') return;
    button.setAttribute('aria-disabled', 'true');
    if (intent.seats !== wish) intent = { seats: wish, key: newKey() };
    try {
      const held = await send(intent.key);
      shop.go(`reservations/${held.id}`);
      return;
    } catch (error) {
      const refusal = /** @type {import('../client.js').ShopError} */ (error);
      if (refusal.code !== 'unavailable') intent = { seats: '', key: '' };
      if (isTurnOver(refusal)) {
        turnOver(refusal);
        return;
      }
      shop.complain(refusal);
      if (refusal.code === 'seat_taken') {
        const taken = new Set(refusal.problem.seats ?? []);
        // The map may be a second old: what the refusal names is shown at once.
        map.take([...taken]);
        known = {};
        await look().catch(() => undefined);
      }
    }
    button.removeAttribute('aria-disabled');
  };

  const hold = (/** @type {number[]} */ chosen, /** @type {any} */ button) =>
    order(chosen.join(), (key) => shop.client.hold(id, chosen, token(), key), button);
  const holdBest = (/** @type {number} */ count, /** @type {any} */ button) =>
    order(`best ${count}`, (key) => shop.client.holdBest(id, { count }, token(), key), button);

  const counts = Array.from({ length: map.max }, (_, at) => h('option', { value: String(at + 1) }, String(at + 1)));
  const count = /** @type {HTMLSelectElement} */ (h('select', { 'aria-label': texts.bestCount }, counts));
  count.value = '2';
  const best = h('button.plain', { type: 'button', onclick: () => holdBest(Number(count.value), best) }, texts.best);

  const showChoice = (/** @type {import('../client.js').Seat[]} */ chosen) => {
    const total = chosen.reduce((sum, seat) => sum + seat.price, 0);
    const numbers = chosen.map((seat) => seat.number);
    const button = h('button.primary', { type: 'button', onclick: () => hold(numbers, button) }, texts.hold(numbers.length));
    fill(
      bar,
      h('p', { 'aria-live': 'polite' }, chosen.length === 0 ? texts.choose : [h('strong', {}, `${chosen[0].section} ${numbers.join(', ')}`), h('br'), texts.total(t().points(total))]),
      chosen.length === 0 && h('p.actions.best', {}, count, best),
      chosen.length > 0 && h('p.actions', {}, h('button.plain', { type: 'button', onclick: () => map.clear() }, texts.clear), button),
    );
  };
  map.addEventListener('choice', (/** @type {CustomEvent} */ { detail }) => showChoice(detail));
  map.addEventListener('lost', (/** @type {CustomEvent} */ { detail }) => shop.notice(texts.lost(detail), 'error'));
  map.addEventListener('limit', (/** @type {CustomEvent} */ { detail }) => shop.notice(texts.limit(detail)));
  showChoice([]);

  try {
    await look();
  } catch (error) {
    if (!isTurnOver(error)) throw error;
    turnOver(error);
    return [];
  }
  repeat(signal, async () => {
    try {
      await look();
      return LOOK_INTERVAL_MS;
    } catch (error) {
      if (signal.aborted) return null;
      if (isTurnOver(error)) {
        turnOver(error);
        return null;
      }
      return RETRY_PAUSE_MS;
    }
  });
  return [
    h('p.eyebrow', {}, `${facts.name} · ${facts.venue}`),
    h('h1', {}, texts.title),
    h('p.lead', {}, dateTime(facts.starts_at)),
    sessionBar(shop, signal, concert),
    map,
    bar,
  ];
}
