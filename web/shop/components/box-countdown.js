// <box-countdown>: minutes and seconds until a deadline. Its `seconds` come from the server (`expires_in_seconds`), so the
// client's clock may be wrong. It sends `expired` once, and says at 60, 30 and 10 seconds how much is left.

import { common, sheet } from './style.js';
import { t } from '../text/index.js';

const ANNOUNCED_SECONDS = [60, 30, 10];
/** From here on the time is shown as urgent. */
const URGENT_SECONDS = 60;
const TICK_MS = 250;

const style = sheet(`
  :host { display: inline-block; font-variant-numeric: tabular-nums; }
  time { font-weight: 700; }
  time.urgent { color: var(--box-accent, #b3261e); }
`);

export class BoxCountdown extends HTMLElement {
  #time = document.createElement('time');
  #live = document.createElement('span');
  /** @type {number | null} The deadline, in milliseconds of `performance.now()`. */
  #end = null;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;
  /** @type {number[]} */
  #toAnnounce = [];

  constructor() {
    super();
    const root = this.attachShadow({ mode: 'open' });
    root.adoptedStyleSheets = [common, style];
    this.#time.setAttribute('role', 'timer');
    this.#live.className = 'hidden';
    this.#live.setAttribute('aria-live', 'polite');
    root.append(this.#time, this.#live);
  }

  /** How many seconds are left, by the server. */
  set seconds(/** @type {number | null} */ seconds) {
    const end = seconds === null ? null : performance.now() + seconds * 1_000;
    // An answer of the server says whole seconds, rounded up: a difference below that is no news.
    if (end !== null && this.#end !== null && Math.abs(end - this.#end) < 1_500) return;
    this.#end = end;
    this.#toAnnounce = ANNOUNCED_SECONDS.filter((at) => seconds !== null && at < seconds);
    if (this.isConnected) this.#start();
  }

  get seconds() {
    return this.#end === null ? null : Math.max(0, (this.#end - performance.now()) / 1_000);
  }

  connectedCallback() {
    this.#start();
  }

  disconnectedCallback() {
    clearInterval(this.#timer);
  }

  #start() {
    clearInterval(this.#timer);
    if (this.#end === null) {
      this.#time.textContent = '';
      return;
    }
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    this.#tick();
  }

  #tick() {
    const left = Math.ceil(this.seconds ?? 0);
    const text = clock(left);
    if (this.#time.textContent !== text) {
      this.#time.textContent = text;
      this.#time.classList.toggle('urgent', left <= URGENT_SECONDS);
    }
    if (left <= (this.#toAnnounce[0] ?? -1)) {
      this.#toAnnounce = this.#toAnnounce.filter((at) => at < left);
      this.#live.textContent = t().countdown.soon(left);
    }
    if (left === 0) {
      clearInterval(this.#timer);
      this.#live.textContent = t().countdown.over;
      this.dispatchEvent(new CustomEvent('expired', { bubbles: true, composed: true }));
    }
  }
}

/** @param {number} seconds */
function clock(seconds) {
  const [hours, minutes] = [Math.floor(seconds / 3_600), Math.floor(seconds / 60) % 60];
  const two = (/** @type {number} */ part) => String(part).padStart(2, '0');
  return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

customElements.define('box-countdown', BoxCountdown);
