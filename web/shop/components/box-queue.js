// <box-queue>: a place in the line of a concert. It follows the place by its event stream; where that does not work it asks as often as
// the service says. It shows number, estimate and progress, and survives a reload (`token`), a sleep and a lost connection.
//
// Properties: `client` (a ShopClient), `concert` (its id), `token` (the latest queue token, if there is one),
// `startedAhead` (how many stood before this place at first, for the progress).
// Events: `place` on each answer (detail: the queue token object), `admitted`, `ended`, `refused` (detail: the error).

import './box-countdown.js';
import { common, sheet } from './style.js';
import { clockTime, t } from '../text/index.js';
import { fill, h, repeat } from '../dom.js';

/** A screen reader gets a changed number at most this often. */
const ANNOUNCE_INTERVAL_MS = 15_000;
/** The pause after a question without an answer. */
const RETRY_PAUSE_MS = 3_000;

/** How often the service is asked while the stream brings the changes. */
const STREAM_CHECK_MS = 60_000;
/** The pause after a stream that did not work, before the next one is tried. */
const STREAM_PAUSE_MS = 30_000;

const style = sheet(`
  .card { display: grid; gap: 1.25rem; text-align: center; }
  .number { font-size: clamp(3.5rem, 18vw, 6rem); line-height: 1; font-weight: 800; letter-spacing: -.03em;
            font-variant-numeric: tabular-nums; color: var(--box-accent, #b3261e); }
  .label { margin: 0; color: var(--box-muted, #6b6459); }
  .big { margin: 0; font-size: 1.25rem; font-weight: 650; }
  .note { margin: 0; padding: .75rem 1rem; border-radius: .75rem; background: var(--box-soft, #f1ebe1); }
  .track { height: .75rem; border-radius: 1rem; background: var(--box-soft, #f1ebe1); overflow: hidden; }
  .bar { height: 100%; border-radius: 1rem; background: var(--box-accent, #b3261e); transition: inline-size .8s ease; inline-size: 0; }
  .facts { margin: .75rem 0 0; display: flex; justify-content: space-between; gap: 1rem; flex-wrap: wrap; color: var(--box-muted, #6b6459); font-size: .9375rem; text-align: start; }
  .facts strong { color: var(--box-text, #1d1a16); }
  @media (prefers-reduced-motion: reduce) { .bar { transition: none; } }
`);

export class BoxQueue extends HTMLElement {
  /** @type {import('../client.js').ShopClient | null} */
  #client = null;
  concert = '';
  /** @type {string | null} */
  token = null;
  /** @type {number | null} */
  startedAhead = null;
  /** @type {import('../client.js').Place | null} */
  #place = null;
  #isOffline = false;
  /** @type {AbortController | null} */
  #stop = null;
  /** The stream that is open, by what ends it. @type {AbortController | null} */
  #stream = null;
  #noStreamUntil = -Infinity;
  #card = h('div.card');
  #live = h('p.hidden', { 'aria-live': 'polite', role: 'status' });
  #announcedAt = -Infinity;
  #announced = '';

  constructor() {
    super();
    const root = this.attachShadow({ mode: 'open' });
    root.adoptedStyleSheets = [common, style];
    root.append(this.#card, this.#live);
  }

  get client() {
    return this.#client;
  }

  set client(/** @type {import('../client.js').ShopClient | null} */ client) {
    this.#client = client;
    if (this.isConnected) this.#start();
  }

  connectedCallback() {
    this.#start();
  }

  /** Begins to ask, once the other properties that are set along with this one are there. */
  #start() {
    this.#stop?.abort();
    this.#endStream();
    const stop = new AbortController();
    this.#stop = stop;
    this.#render();
    queueMicrotask(() => repeat(stop.signal, () => this.#ask()));
  }

  disconnectedCallback() {
    this.#stop?.abort();
    this.#endStream();
  }

  #endStream() {
    this.#stream?.abort();
    this.#stream = null;
  }

  /** Opens the event stream, if there is none and this browser can. When it is lost, the service is asked at once. */
  #follow() {
    const { client, token } = this;
    if (!client || !token || this.#stream || typeof EventSource !== 'function' || performance.now() < this.#noStreamUntil) return;
    const stream = new AbortController();
    this.#stream = stream;
    const lost = () => {
      if (this.#stream !== stream) return;
      this.#endStream();
      this.#noStreamUntil = performance.now() + STREAM_PAUSE_MS;
      if (this.isConnected) this.#start();
    };
    const take = (/** @type {import('../client.js').Place} */ place) => {
      if (this.#stream !== stream) return;
      this.#isOffline = false;
      if (this.#take(place) === null) this.#endStream();
    };
    client.follow(token, { take, lost, signal: stream.signal }).catch(lost);
  }

  /** Asks once; returns the pause until the next question, null after the last. */
  async #ask() {
    const client = this.client;
    if (!client) return null;
    const signal = this.#stop?.signal;
    try {
      const place = this.token ? await client.place(this.token, signal) : await client.join(this.concert);
      if (signal?.aborted) return null;
      this.#isOffline = false;
      // What the stream did not bring is a sign that its connection is dead, for instance after a sleep.
      const known = this.#place;
      if (this.#stream && (known?.status !== place.status || known?.position !== place.position)) this.#endStream();
      const pause = this.#take(place);
      if (pause === null) {
        this.#endStream();
        return null;
      }
      this.#follow();
      return this.#stream ? STREAM_CHECK_MS : pause;
    } catch (error) {
      if (signal?.aborted) return null;
      const refusal = /** @type {import('../client.js').ShopError} */ (error);
      if (refusal.code === 'unavailable' || refusal.code === 'rate_limited') {
        this.#isOffline = refusal.code === 'unavailable';
        this.#render();
        return Math.max((refusal.retryAfterSeconds ?? 0) * 1_000, RETRY_PAUSE_MS);
      }
      this.dispatchEvent(new CustomEvent('refused', { detail: error }));
      return null;
    }
  }

  /** @param {import('../client.js').Place} place */
  #take(place) {
    const before = this.#place;
    this.#place = place;
    this.token = place.token;
    if (typeof place.ahead === 'number') this.startedAhead = Math.max(this.startedAhead ?? 0, place.ahead);
    this.#render();
    this.#announce();
    this.dispatchEvent(new CustomEvent('place', { detail: place }));
    if (place.status === 'active' && before?.status !== 'active') this.dispatchEvent(new CustomEvent('admitted', { detail: place }));
    if (place.status === 'expired') {
      this.dispatchEvent(new CustomEvent('ended', { detail: place }));
      return null;
    }
    return place.poll_after_ms;
  }

  #render() {
    const place = this.#place;
    const texts = t().line;
    if (!place) {
      fill(this.#card, h('p.label', {}, this.#isOffline ? texts.offline : t().loading));
      return;
    }
    const isWaiting = place.status === 'waiting';
    const known = typeof place.position === 'number';
    const number = (place.position ?? 0).toLocaleString();
    fill(
      this.#card,
      isWaiting && known && h('div', {}, h('p.label', {}, texts.position), h('div.number', {}, number)),
      isWaiting && known && h('p.big', {}, texts.ahead(place.ahead ?? 0)),
      isWaiting && !known && h('p.big', {}, ['not_open', 'pre_queue'].includes(place.phase) ? texts.gathering : texts.unknown),
      place.status === 'active' && h('p.big', {}, texts.yourTurn),
      place.status === 'expired' && h('p.big', {}, place.phase === 'sold_out' ? t().concert.soldOut : texts.ended),
      isWaiting && typeof place.opens_in_seconds === 'number' && this.#opening(place.opens_in_seconds),
      isWaiting && known && this.#progress(place),
      isWaiting && place.phase === 'paused' && h('p.note', {}, texts.paused),
      isWaiting && place.inventory === 'low' && h('p.note', {}, texts.low),
      this.#isOffline && h('p.note', {}, texts.offline),
    );
  }

  /** @param {number} seconds */
  #opening(seconds) {
    return h('p.label', {}, t().line.opensIn, ' ', h('box-countdown', { seconds }));
  }

  /** @param {import('../client.js').Place} place */
  #progress(place) {
    const texts = t().line;
    const total = (this.startedAhead ?? 0) + 1;
    const percent = Math.round((100 * (total - (place.ahead ?? 0))) / total);
    const bar = h('div.bar');
    bar.style.inlineSize = `${percent}%`;
    return h(
      'div', {},
      h('div.track', { role: 'progressbar', 'aria-label': texts.progress, 'aria-valuemin': 0, 'aria-valuemax': 100, 'aria-valuenow': percent }, bar),
      h('p.facts', {},
        h('span', {}, `${texts.etaLabel}: `, h('strong', {}, place.eta_known && place.eta_seconds !== null && place.eta_seconds !== undefined ? texts.eta(place.eta_seconds) : texts.etaUnknown)),
        h('span', {}, texts.updated(clockTime(new Date()))),
      ),
    );
  }

  /** Writes the text for screen readers: a new status at once, a new number now and then. */
  #announce() {
    const place = this.#place;
    if (!place) return;
    const texts = t().line;
    const kind = `${place.status} ${place.phase}`;
    const now = performance.now();
    if (kind === this.#announced && now - this.#announcedAt < ANNOUNCE_INTERVAL_MS) return;
    const said = { waiting: typeof place.ahead === 'number' ? texts.ahead(place.ahead) : texts.unknown, active: texts.yourTurn, expired: texts.ended }[place.status];
    if (this.#live.textContent !== said) this.#live.textContent = said;
    this.#announced = kind;
    this.#announcedAt = now;
  }
}

customElements.define('box-queue', BoxQueue);
