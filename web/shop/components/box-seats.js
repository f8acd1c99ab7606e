// <box-seats>: the seats of a date, by section, to choose from with mouse, finger or keyboard.
//
// The service names seats by number, section and price; rows are laid out to fit the width.
// Methods: `show(seats)` takes the whole map, `change(seats)` what has changed. Properties: `max`, `chosen` (numbers).
// Events: `choice` (detail: the chosen seats), `lost` (detail: numbers that were chosen and are taken now), `limit`.

import { common, sheet } from './style.js';
import { t } from '../text/index.js';
import { fill, h } from '../dom.js';

/** @typedef {import('../client.js').Seat} Seat */
/** @typedef {{ seat: Seat, cell: HTMLElement }} Cell */

const SEAT_PX = 30;
const GAP_PX = 4;
const ROW_SEATS_MAX = 30;

const style = sheet(`
  .stage { margin: 0 auto 1.25rem; padding: .5rem; max-width: 30rem; text-align: center; letter-spacing: .2em; text-transform: uppercase; font-size: .8125rem;
           color: var(--box-muted, #6b6459); background: var(--box-soft, #f1ebe1); border-radius: .25rem .25rem 50% 50% / .25rem .25rem 1.25rem 1.25rem; }
  .legend { display: flex; flex-wrap: wrap; gap: .375rem 1rem; padding: 0; margin: 0 0 1rem; list-style: none; font-size: .875rem; justify-content: center; }
  .legend span { display: inline-block; inline-size: 1rem; block-size: 1rem; vertical-align: -.15rem; margin-inline-end: .375rem; }
  .jump { display: flex; gap: .5rem; overflow-x: auto; padding: .25rem; margin: 0 0 1rem; }
  .jump button { flex: none; font: inherit; font-size: .875rem; min-height: 2.5rem; padding: .375rem .75rem; border-radius: 2rem; cursor: pointer;
                 border: 1px solid var(--box-line, #8a8175); background: var(--box-surface, #fff); color: inherit; }
  .section { margin: 0 0 1.75rem; scroll-margin-top: 5rem; }
  .section header { display: flex; flex-wrap: wrap; gap: 0 1rem; justify-content: center; align-items: baseline; margin-block-end: .5rem; }
  h2 { font-size: 1.0625rem; margin: 0; }
  .section header span { color: var(--box-muted, #6b6459); font-size: .9375rem; }
  .grid { display: grid; gap: ${GAP_PX}px; justify-content: center; }
  .row { display: flex; gap: ${GAP_PX}px; justify-content: center; }
  .seat, .legend span { border-radius: .5rem .5rem .2rem .2rem; border: 1.5px solid var(--box-seat, #2e6b4f); background: var(--box-seat-soft, #e0f0e7); box-sizing: border-box; }
  .seat { inline-size: ${SEAT_PX}px; block-size: ${SEAT_PX}px; display: grid; place-items: center; font-size: .6875rem; font-variant-numeric: tabular-nums;
          color: var(--box-seat-text, #16432f); cursor: pointer; user-select: none; -webkit-tap-highlight-color: transparent; touch-action: manipulation; }
  .seat:hover { background: var(--box-seat, #2e6b4f); color: var(--box-surface, #fff); }
  .seat:focus-visible, button:focus-visible { outline: 3px solid var(--box-focus, #1259c3); outline-offset: 1px; }
  .seat.held, .legend .held { background: repeating-linear-gradient(45deg, var(--box-soft, #f1ebe1) 0 4px, var(--box-line-soft, #cfc6b8) 4px 7px); border-color: var(--box-line-soft, #cfc6b8); color: transparent; }
  .seat.sold, .legend .sold { background: var(--box-line-soft, #cfc6b8); border-color: var(--box-line-soft, #cfc6b8); color: transparent; }
  .seat.held, .seat.sold { cursor: not-allowed; }
  .seat.held:hover, .seat.sold:hover { color: transparent; background-color: var(--box-line-soft, #cfc6b8); }
  .seat.chosen, .legend .chosen, .seat.chosen:hover { background: var(--box-accent, #b3261e); border-color: var(--box-accent, #b3261e); color: var(--box-on-accent, #fff); font-weight: 700; }
  .changed { animation: changed 1.2s ease-out; }
  @keyframes changed { from { box-shadow: 0 0 0 5px var(--box-accent, #b3261e); } to { box-shadow: 0 0 0 0 transparent; } }
  @media (prefers-reduced-motion: reduce) { .changed { animation: none; } }
  @media (forced-colors: active) { .chosen { outline: 3px solid; } .sold, .held { opacity: .4; } }
`);

export class BoxSeats extends HTMLElement {
  max = 6;
  /** @type {Map<number, Cell>} */
  #cells = new Map();
  /** @type {Map<string, { seats: Seat[], grid: HTMLElement, free: HTMLElement, jump: HTMLElement }>} */
  #sections = new Map();
  /** @type {Set<number>} */
  #chosen = new Set();
  #columns = 0;
  #body = h('div');
  #resized = new ResizeObserver(() => this.#layOut());

  constructor() {
    super();
    const root = this.attachShadow({ mode: 'open' });
    root.adoptedStyleSheets = [common, style];
    root.append(this.#body);
    this.#body.addEventListener('click', (/** @type {Event} */ event) => this.#toggle(numberOf(event)));
    this.#body.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => this.#onKey(event));
  }

  connectedCallback() {
    this.#resized.observe(this);
  }

  disconnectedCallback() {
    this.#resized.disconnect();
  }

  get chosen() {
    return [...this.#chosen].sort((one, other) => one - other);
  }

  clear() {
    const before = this.chosen;
    this.#chosen.clear();
    before.forEach((number) => this.#paint(number));
    this.#sendChoice();
  }

  /** Shows the whole map. @param {Seat[]} seats */
  show(seats) {
    if (seats.length === this.#cells.size && seats.every((seat) => this.#cells.has(seat.number))) {
      this.change(seats.filter((seat) => this.#cells.get(seat.number)?.seat.status !== seat.status));
      return;
    }
    this.#cells.clear();
    this.#sections.clear();
    for (const seat of seats) {
      const cell = h('div.seat', { role: 'gridcell', tabIndex: -1, 'data-number': seat.number });
      this.#cells.set(seat.number, { seat: { ...seat }, cell });
      const known = this.#sections.get(seat.section);
      if (known) known.seats.push(seat);
      else this.#sections.set(seat.section, { seats: [seat], ...this.#section(seat) });
    }
    this.#columns = 0;
    const texts = t().map;
    const legend = (/** @type {string} */ kind, /** @type {string} */ text) => h('li', {}, h(`span${kind}`), text);
    fill(
      this.#body,
      h('ul.legend', {}, legend('', texts.free), legend('.chosen', texts.chosen), legend('.held', texts.held), legend('.sold', texts.sold)),
      this.#sections.size > 1 && h('div.jump', { role: 'group', 'aria-label': texts.sections }, [...this.#sections.values()].map(({ jump }) => jump)),
      h('div.stage', {}, texts.stage),
      h('p.hidden', { id: 'keys' }, texts.keys),
      [...this.#sections.values()].map(({ grid }) => grid.parentElement),
    );
    this.#cells.forEach((_, number) => this.#paint(number));
    this.#sections.forEach((_, name) => this.#count(name));
    this.#layOut();
  }

  /** Shows what has changed. @param {Seat[]} seats */
  change(seats) {
    const lost = [];
    for (const seat of seats) {
      const known = this.#cells.get(seat.number);
      if (!known || known.seat.status === seat.status) continue;
      known.seat.status = seat.status;
      known.cell.classList.remove('changed');
      requestAnimationFrame(() => known.cell.classList.add('changed'));
      if (seat.status !== 'free' && this.#chosen.delete(seat.number)) lost.push(seat.number);
      this.#paint(seat.number);
    }
    new Set(seats.map((seat) => this.#cells.get(seat.number)?.seat.section)).forEach((name) => name && this.#count(name));
    if (lost.length) {
      this.dispatchEvent(new CustomEvent('lost', { detail: lost }));
      this.#sendChoice();
    }
  }

  /** Shows seats as held by another buyer: a refusal named them. @param {number[]} numbers */
  take(numbers) {
    const known = numbers.flatMap((number) => this.#cells.get(number)?.seat ?? []);
    this.change(known.filter((seat) => seat.status === 'free').map((seat) => ({ ...seat, status: /** @type {const} */ ('held') })));
  }

  /** The frame of a section. @param {Seat} first */
  #section(first) {
    const free = h('span');
    const grid = h('div.grid', { role: 'grid', 'aria-label': first.section, 'aria-describedby': 'keys' });
    const frame = h('div.section', {}, h('header', {}, h('h2', {}, first.section), h('span', {}, t().points(first.price)), free), grid);
    const jump = h('button', { type: 'button', onclick: () => frame.scrollIntoView({ block: 'start' }) });
    return { grid, free, jump };
  }

  /** @param {string} name */
  #count(name) {
    const section = this.#sections.get(name);
    if (!section) return;
    const free = section.seats.filter((seat) => this.#cells.get(seat.number)?.seat.status === 'free').length;
    section.free.textContent = t().map.sectionFree(free);
    section.jump.textContent = `${name} · ${t().map.sectionFree(free)}`;
  }

  /** Divides the sections into rows that fit. */
  #layOut() {
    const width = this.clientWidth;
    const fitting = Math.max(4, Math.min(ROW_SEATS_MAX, Math.floor((width + GAP_PX) / (SEAT_PX + GAP_PX))));
    if (!width || fitting === this.#columns) return;
    this.#columns = fitting;
    for (const { seats, grid } of this.#sections.values()) {
      const rows = Math.ceil(seats.length / fitting);
      const columns = Math.ceil(seats.length / rows);
      const focused = this.shadowRoot?.activeElement;
      const curve = Math.min(18, columns / 1.6);
      grid.replaceChildren();
      for (let start = 0; start < seats.length; start += columns) {
        const cells = seats.slice(start, start + columns).map((seat) => /** @type {Cell} */ (this.#cells.get(seat.number)).cell);
        cells.forEach((cell, at) => {
          // Rows bend towards the stage.
          const off = (2 * at) / Math.max(1, cells.length - 1) - 1;
          cell.style.translate = `0 ${(-curve * off * off).toFixed(1)}px`;
          cell.setAttribute('aria-colindex', String(at + 1));
        });
        grid.append(h('div.row', { role: 'row' }, cells));
      }
      if (curve > 0) grid.style.paddingBlockStart = `${curve}px`;
      const first = seats.find((seat) => this.#cells.get(seat.number)?.seat.status === 'free') ?? seats[0];
      if (!grid.querySelector('[tabindex="0"]')) this.#reach(first.number);
      if (focused instanceof HTMLElement && grid.contains(focused)) focused.focus();
    }
  }

  /** @param {number} number */
  #paint(number) {
    const known = this.#cells.get(number);
    if (!known) return;
    const { seat, cell } = known;
    const isChosen = this.#chosen.has(number);
    const texts = t().map;
    cell.classList.toggle('chosen', isChosen);
    cell.classList.toggle('held', seat.status === 'held');
    cell.classList.toggle('sold', seat.status === 'sold' || seat.status === 'blocked');
    cell.textContent = String(number);
    cell.setAttribute('aria-selected', String(isChosen));
    cell.setAttribute('aria-disabled', String(seat.status !== 'free'));
    cell.setAttribute('aria-label', texts.label(number, seat.section, t().points(seat.price), isChosen ? texts.chosen : texts[seat.status]));
  }

  /** @param {number | null} number */
  #toggle(number) {
    const known = number === null ? undefined : this.#cells.get(number);
    if (number === null || !known || known.seat.status !== 'free') return;
    if (!this.#chosen.delete(number)) {
      if (this.#chosen.size >= this.max) {
        this.dispatchEvent(new CustomEvent('limit', { detail: this.max }));
        return;
      }
      this.#chosen.add(number);
    }
    this.#reach(number);
    this.#paint(number);
    this.#sendChoice();
  }

  #sendChoice() {
    const detail = this.chosen.map((number) => this.#cells.get(number)?.seat);
    this.dispatchEvent(new CustomEvent('choice', { detail }));
  }

  /** Makes a seat the one of its section that Tab reaches. @param {number} number */
  #reach(number) {
    const cell = this.#cells.get(number)?.cell;
    const grid = cell?.closest('[role=grid]');
    grid?.querySelectorAll('[tabindex="0"]').forEach((/** @type {any} */ other) => { other.tabIndex = -1; });
    if (cell) cell.tabIndex = 0;
    return cell;
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const number = numberOf(event);
    const cell = number === null ? null : this.#cells.get(number)?.cell;
    const row = cell?.parentElement;
    const grid = row?.parentElement;
    if (number === null || !cell || !row || !grid) return;
    const cells = [...row.children];
    const rows = [...grid.children];
    const [at, line] = [cells.indexOf(cell), rows.indexOf(row)];
    const vertical = (/** @type {number} */ by) => {
      const other = rows[line + by];
      return other?.children[Math.min(at, other.children.length - 1)];
    };
    /** @type {Record<string, () => Element | undefined>} */
    const moves = {
      ArrowRight: () => cells[at + 1] ?? rows[line + 1]?.children[0],
      ArrowLeft: () => cells[at - 1] ?? rows[line - 1]?.lastElementChild ?? undefined,
      ArrowDown: () => vertical(1),
      ArrowUp: () => vertical(-1),
      Home: () => (event.ctrlKey ? rows[0].children[0] : cells[0]),
      End: () => (event.ctrlKey ? rows.at(-1)?.lastElementChild ?? undefined : cells.at(-1)),
    };
    if (event.key === ' ' || event.key === 'Enter') this.#toggle(number);
    else if (moves[event.key]) {
      const next = moves[event.key]();
      if (next instanceof HTMLElement) this.#reach(Number(next.dataset.number))?.focus();
    } else return;
    event.preventDefault();
  }
}

/** The seat that an event is about. @param {Event} event */
function numberOf(event) {
  const cell = event.target instanceof Element ? event.target.closest('[data-number]') : null;
  return cell instanceof HTMLElement ? Number(cell.dataset.number) : null;
}

customElements.define('box-seats', BoxSeats);
