// Local mode only: lets simulated buyers come, and shows what they do.

import { fill, h, repeat } from '../dom.js';
import * as session from '../session.js';
import { sentence, t } from '../text/index.js';

const BUYERS = 500;
const LOOK_INTERVAL_MS = 1_000;
const STATES = /** @type {const} */ (['arriving', 'waiting', 'choosing', 'holding', 'bought', 'gone']);

/** @param {import('../app.js').Visit} visit */
export function crowd({ shop, signal, id }) {
  const texts = t().crowd;
  const report = h('div', { role: 'status' });
  const button = h('button', { type: 'button' }, texts.start);
  const watch = () => repeat(signal, async () => {
    try {
      const { body } = await shop.client.send('GET', '/v1/crowds/current', { signal });
      show(body);
      return body.running ? LOOK_INTERVAL_MS : null;
    } catch {
      return null;
    }
  });
  const show = (/** @type {any} */ seen) => {
    button.disabled = seen.running;
    const total = seen.buyers;
    fill(
      report,
      h('p', {}, seen.running ? texts.running(total - seen.bought - seen.gone) : texts.done),
      h('dl.counts', {}, STATES.map((state) => h('div', {}, h('dt', {}, texts[state]), h('dd', {}, seen[state])))),
    );
  };
  button.addEventListener('click', async () => {
    button.disabled = true;
    try {
      await shop.needUser();
      show((await shop.client.send('POST', `/v1/concerts/${id}/crowds`, { body: { buyers: BUYERS } })).body);
      watch();
    } catch (error) {
      button.disabled = false;
      const isBusy = /** @type {any} */ (error).code === 'request_in_progress';
      shop.notice(isBusy ? texts.busy : sentence(error), 'error');
    }
  });
  // Without a user there is nothing to ask with; the button makes one.
  if (session.user()) watch();
  return h('section.panel.crowd', {}, h('h2', {}, texts.title), h('p', {}, texts.lead), h('p.actions', {}, button), report);
}
