// One reservation: pay for the hold before it runs out, show the tickets, cancel.

import '../components/box-countdown.js';
import { newKey } from '../client.js';
import { ask } from '../dialog.js';
import { fill, h, repeat, svg } from '../dom.js';
import * as session from '../session.js';
import { dateTime, sentence, shortTime, t } from '../text/index.js';
import { encode } from '../vendor/uqr.js';

const LOOK_INTERVAL_MS = 10_000;
/** While the service settles something: a hold that begins, or one whose time is up. */
const SETTLING_INTERVAL_MS = 1_000;
/** Points are added in steps of this size. */
const TOP_UP_STEP = 1_000;

/** @type {import('../app.js').Page} */
export async function reservation({ shop, signal, id }) {
  await shop.needUser();
  const body = h('div.stack');
  /** @type {import('../client.js').Reservation | null} */
  let shown = null;
  let isBusy = false;
  // One key for each intent: clicks that follow a click do nothing more.
  const keys = { pay: newKey(), topUp: newKey(), cancel: newKey() };

  const look = async () => {
    const found = await shop.client.reservation(id);
    const isSame = shown && JSON.stringify({ ...shown, expires_in_seconds: 0 }) === JSON.stringify({ ...found, expires_in_seconds: 0 });
    if (isSame) {
      const countdown = body.querySelector('box-countdown');
      if (countdown) /** @type {any} */ (countdown).seconds = found.expires_in_seconds;
    } else {
      shown = found;
      await draw(found);
    }
    return found;
  };

  /** Runs an act of the buyer; a second click while it runs does nothing. @param {() => Promise<void>} work */
  const act = async (work) => {
    if (isBusy) return;
    isBusy = true;
    body.setAttribute('aria-busy', 'true');
    try {
      await work();
    } catch (error) {
      shop.complain(error);
    } finally {
      isBusy = false;
      body.removeAttribute('aria-busy');
    }
    shown = null;
    await look().catch((error) => shop.complain(error));
    shop.showBalance();
  };

  const pay = () => act(async () => {
    const concert = shown ? session.dateFacts(shown.performance_id)?.concert : undefined;
    await shop.client.pay(id, concert ? session.latestToken(concert) : '', keys.pay);
    // A payment ends the turn in line.
    if (concert) session.endPlace(concert);
  });
  const topUpAndPay = (/** @type {number} */ amount) => act(async () => {
    await shop.client.charge(amount, keys.topUp);
    keys.topUp = newKey();
    await pay.now();
  });
  pay.now = async () => {
    isBusy = false;
    await pay();
  };
  const cancel = () => act(async () => { await shop.client.cancel(id, keys.cancel); });
  const refund = async (/** @type {number} */ amount) => {
    const texts = t().reservation;
    if (await ask(texts.refundSure(t().points(amount)), texts.refund, texts.keep)) await cancel();
  };

  /** @param {import('../client.js').Reservation} found */
  const draw = async (found) => {
    const texts = t().reservation;
    const facts = session.dateFacts(found.performance_id);
    // The date may have changed since it was remembered.
    const date = found.performance ?? facts;
    const titles = { pending: texts.pendingTitle, held: texts.heldTitle, confirmed: texts.confirmedTitle, expired: texts.expiredTitle, cancelled: texts.cancelledTitle, failed: texts.failedTitle };
    const title = titles[found.status];
    const summary = h('section.panel', {},
      h('h2', {}, facts?.name ?? texts.unknownDate),
      date && h('p', {}, dateTime(date.starts_at), h('br'), date.venue),
      h('ul.lines', {}, found.seats.map((seat) => h('li', {}, h('span', {}, `${seat.section ?? ''} ${t().seat(seat.number)}`.trim()), h('span', {}, typeof seat.price === 'number' ? t().points(seat.price) : '')))),
      h('p.sum', {}, h('span', {}, texts.total), h('strong', {}, t().points(found.amount))),
    );
    const parts = { pending: () => [], held: () => held(found), confirmed: () => confirmed(found), expired: () => over(found), cancelled: () => over(found), failed: () => over(found) };
    const own = await parts[found.status]();
    fill(body, h('h1', {}, title), found.status === 'confirmed' ? [own, summary] : [summary, own]);
    document.title = `${title} · Box Office`;
  };

  /** @param {import('../client.js').Reservation} found */
  const held = async (found) => {
    const texts = t().reservation;
    const { balance } = await shop.client.points();
    const missing = found.amount - balance;
    const added = Math.ceil(missing / TOP_UP_STEP) * TOP_UP_STEP;
    const countdown = h('box-countdown', { seconds: found.expires_in_seconds ?? 0, onexpired: () => settle() });
    return [
      h('section.panel.pay', {},
        h('p.session', {}, texts.timeLeft, ' ', countdown),
        h('p.sum', {}, h('span', {}, texts.balance), h('span', {}, t().points(balance))),
        missing > 0 ? h('p.note', {}, texts.short(t().points(missing))) : h('p.sum', {}, h('span', {}, texts.after), h('span', {}, t().points(-missing))),
        h('p.actions', {},
          missing > 0 && shop.config.local && h('button.primary', { type: 'button', onclick: () => topUpAndPay(added) }, texts.topUpAndPay(t().points(added))),
          missing > 0 && !shop.config.local && h('p', {}, t().balance.production),
          missing <= 0 && h('button.primary', { type: 'button', onclick: pay }, texts.pay(t().points(found.amount))),
          h('button.plain', { type: 'button', onclick: cancel }, texts.cancelHold),
        ),
      ),
    ];
  };

  /** @param {import('../client.js').Reservation} found */
  const confirmed = (found) => {
    const texts = t().reservation;
    return [
      h('p.lead', {}, texts.show),
      h('ul.tickets', {}, found.tickets.filter((ticket) => ticket.status !== 'void').map((ticket) => h('li.ticket', {}, ticket.code && qr(ticket.code, texts.code(ticket.seat)), h('div', {}, h('strong', {}, t().seat(ticket.seat)), h('code', {}, ticket.code ?? texts.transferred))))),
      h('p.actions', {}, h('button.plain', { type: 'button', onclick: () => refund(found.amount) }, texts.refund)),
    ];
  };

  /** @param {import('../client.js').Reservation} found */
  const over = (found) => {
    const texts = t().reservation;
    const concert = session.dateFacts(found.performance_id)?.concert;
    const why = found.status === 'expired' ? texts.expiredText : ['failed', 'cancelled'].includes(found.status) && found.reason ? sentence({ code: found.reason, message: found.reason, problem: { seats: found.seats.map((seat) => seat.number) } }) : null;
    const back = found.payment?.status === 'refunded' ? texts.refunded(t().points(found.payment.amount)) : null;
    return [
      (why || back) && h('p.note', { role: 'status' }, found.status === 'cancelled' ? [why, back].filter(Boolean).join(' ') : back ?? why),
      h('p.actions', {}, h('a.button.primary', { href: concert ? `#/concerts/${concert}/line` : '#/' }, texts.again)),
    ];
  };

  /** Looks again until the hold that has run out is over. */
  const settle = () => repeat(signal, async () => {
    const found = await look().catch(() => null);
    return found && !['held', 'pending'].includes(found.status) ? null : SETTLING_INTERVAL_MS;
  });

  await look();
  repeat(signal, async () => {
    if (isBusy) return SETTLING_INTERVAL_MS;
    const found = await look().catch(() => null);
    if (found && ['expired', 'cancelled', 'failed'].includes(found.status)) return null;
    return found?.status === 'pending' ? SETTLING_INTERVAL_MS : LOOK_INTERVAL_MS;
  });
  return [body];
}

/** A QR code as a drawing. @param {string} code @param {string} label */
function qr(code, label) {
  const { data, size } = encode(code, { border: 2, ecc: 'M' });
  const path = data.flatMap((row, y) => row.flatMap((dark, x) => (dark ? [`M${x} ${y}h1v1h-1z`] : []))).join('');
  return svg('svg', { viewBox: `0 0 ${size} ${size}`, class: 'qr', role: 'img', 'aria-label': label, 'shape-rendering': 'crispEdges' }, svg('rect', { width: size, height: size, fill: '#fff' }), svg('path', { d: path, fill: '#000' }));
}
