// The waiting room.

import '../components/box-queue.js';
import { ask } from '../dialog.js';
import { fill, h } from '../dom.js';
import * as session from '../session.js';
import { sentence, t } from '../text/index.js';
import { crowd } from './crowd.js';

/** @type {import('../app.js').Page} */
export async function line({ shop, signal, id }) {
  await shop.needUser();
  shop.showBalance();
  const concert = await shop.client.concert(id);
  const texts = t().line;
  const kept = session.place(id);
  const actions = h('p.actions');
  const queue = h('box-queue', { client: shop.client, concert: id, token: kept?.token ?? null, startedAhead: kept?.startedAhead ?? null });
  const again = () => {
    session.endPlace(id);
    actions.replaceChildren(h('a.button.primary', { href: `#/concerts/${id}` }, texts.again));
  };
  queue.addEventListener('place', (/** @type {CustomEvent} */ { detail }) => {
    session.setPlace(id, { token: detail.token, startedAhead: queue.startedAhead });
    if (typeof detail.ahead === 'number') document.title = `${texts.titleAhead(detail.ahead)} · ${concert.name}`;
  });
  queue.addEventListener('admitted', () => {
    document.title = `${texts.yourTurn} · ${concert.name}`;
    shop.notice(texts.yourTurn);
    shop.go(`concerts/${id}/dates`);
  });
  queue.addEventListener('ended', () => {
    again();
    shop.notice(texts.endedText);
  });
  queue.addEventListener('refused', (/** @type {CustomEvent} */ { detail }) => {
    // A token of another user, or of a service that has been set up anew, is of no use.
    const isForeign = ['queue_token_invalid', 'queue_token_wrong_user'].includes(detail.code);
    if (isForeign && session.place(id)) {
      again();
    } else if (detail.code === 'unauthenticated') {
      session.setUser(null);
      actions.replaceChildren(h('button.primary', { type: 'button', onclick: () => location.reload() }, t().retry));
    } else {
      actions.replaceChildren(h('a.button', { href: `#/concerts/${id}` }, t().back));
    }
    fill(queueFrame, h('p.big', { role: 'alert' }, sentence(detail)));
  });
  const leave = async () => {
    if (!(await ask(texts.leaveSure, texts.leave, texts.stay))) return;
    try {
      if (queue.token) await shop.client.leave(queue.token);
      session.endPlace(id);
      shop.go(`concerts/${id}`);
    } catch (error) {
      shop.complain(error);
    }
  };
  actions.append(h('button.plain', { type: 'button', onclick: leave }, texts.leave));
  const queueFrame = h('section.panel.line', {}, queue);
  return [
    h('p.eyebrow', {}, concert.name),
    h('h1', {}, texts.title),
    queueFrame,
    actions,
    h('section.panel', {}, h('h2', {}, texts.nextTitle), h('ol', {}, texts.next.map((step) => h('li', {}, step)))),
    shop.config.local && crowd({ shop, signal, id }),
  ];
}
