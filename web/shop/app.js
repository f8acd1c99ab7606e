// The shop: starts, chooses the page by the address, and holds what all pages share.

import { ShopClient } from './client.js';
import { fill, h } from './dom.js';
import * as session from './session.js';
import { language, sentence, switchLanguage, t } from './text/index.js';
import { concerts } from './pages/concerts.js';
import { concert } from './pages/concert.js';
import { line } from './pages/line.js';
import { dates } from './pages/dates.js';
import { seats } from './pages/seats.js';
import { reservation } from './pages/reservation.js';
import { reservations } from './pages/reservations.js';
import { points } from './pages/points.js';

/** A notice that is older, in milliseconds, goes with the page that it belongs to. */
const NOTICE_OF_PAGE_MS = 1_500;
/** How long a notice stays, in milliseconds. */
const NOTICE_MS = 8_000;

/** @typedef {{ local: boolean, sign_in: string | null }} Config What this service says about itself. */
/** @typedef {{ shop: Shop, signal: AbortSignal, id: string }} Visit A page while it is shown; the signal ends with it. */
/** @typedef {(visit: Visit) => Promise<Node[]> | Node[]} Page */

/** @type {[RegExp, Page][]} */
const routes = [
  [/^$/, concerts],
  [/^concerts\/([\w-]+)$/, concert],
  [/^concerts\/([\w-]+)\/line$/, line],
  [/^concerts\/([\w-]+)\/dates$/, dates],
  [/^dates\/([\w-]+)$/, seats],
  [/^reservations$/, reservations],
  [/^reservations\/([\w-]+)$/, reservation],
  [/^points$/, points],
];

export class Shop {
  /** @param {Config} config */
  constructor(config) {
    this.config = config;
    this.client = new ShopClient({ token: () => session.user()?.access_token ?? null });
    this.balance = h('span.amount');
    /** @type {Promise<void> | null} */
    this.signingIn = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.noticeTimer = undefined;
    this.noticedAt = -Infinity;
  }

  /** Sees to it that there is a user; in local mode one is made. */
  async needUser() {
    if (session.user()) return;
    if (!this.config.local) {
      signIn(this.config);
      throw Object.assign(new Error(t().signIn.needed), { code: 'unauthenticated' });
    }
    this.signingIn ??= (async () => {
      const name = `${t().signIn.guest} ${Math.floor(1_000 + Math.random() * 9_000)}`;
      session.setUser(await this.client.createUser(name));
    })().finally(() => { this.signingIn = null; });
    await this.signingIn;
  }

  async showBalance() {
    if (!session.user()) return;
    try {
      this.balance.textContent = t().points((await this.client.points()).balance);
      document.querySelector('nav .name')?.classList.add('label');
    } catch {
      // The header is not the place to complain; pages that need the balance do.
    }
  }

  /** @param {string} text @param {'note' | 'error'} [kind] */
  notice(text, kind = 'note') {
    const box = /** @type {HTMLElement} */ (document.getElementById('notice'));
    fill(box, h(`p.${kind}`, {}, h('span', {}, text), h('button.plain', { type: 'button', 'aria-label': t().close, onclick: () => fill(box) }, '✕')));
    clearTimeout(this.noticeTimer);
    this.noticedAt = performance.now();
    this.noticeTimer = setTimeout(() => fill(box), NOTICE_MS);
  }

  /** Says what went wrong. @param {any} error */
  complain(error) {
    if (!error?.code) console.error(error);
    if (error?.code === 'unauthenticated' && session.user()) session.setUser(null);
    this.notice(sentence(error), 'error');
  }

  /** @param {string} path */
  go(path) {
    location.hash = `#/${path}`;
  }
}

/** Sends the browser to the sign-in page of the operator, if there is one. @param {Config} config */
function signIn(config) {
  if (!config.sign_in) return;
  const state = crypto.randomUUID();
  session.remember('sign_in', { state, back: location.hash });
  const address = new URL(config.sign_in);
  address.searchParams.set('return_to', `${location.origin}/`);
  address.searchParams.set('state', state);
  location.assign(address);
}

/** Takes the access token that a sign-in page has sent along, if it answers a sign-in that began here. */
function takeSignIn() {
  const given = new URLSearchParams(location.hash.slice(1));
  const token = given.get('access_token');
  if (!token) return;
  const begun = session.recall('sign_in');
  session.remember('sign_in', null);
  const isOurs = begun && begun.state === given.get('state');
  history.replaceState(null, '', `/${isOurs ? begun.back : ''}`);
  if (isOurs) session.setUser({ id: '', name: '', access_token: token });
}

/** @type {AbortController | null} */
let leaving = null;

/** @param {Shop} shop @param {boolean} isFirst */
async function show(shop, isFirst) {
  leaving?.abort();
  const visit = new AbortController();
  leaving = visit;
  const path = location.hash.replace(/^#\/?/, '');
  const main = /** @type {HTMLElement} */ (document.getElementById('main'));
  drawFrame(shop, path);
  if (performance.now() - shop.noticedAt > NOTICE_OF_PAGE_MS) document.getElementById('notice')?.replaceChildren();
  main.setAttribute('aria-busy', 'true');
  let content;
  try {
    const [pattern, page] = routes.find(([route]) => route.test(path)) ?? routes[0];
    content = await page({ shop, signal: visit.signal, id: path.match(pattern)?.[1] ?? '' });
  } catch (error) {
    if (visit.signal.aborted) return;
    content = failed(shop, error);
  }
  if (visit.signal.aborted) return;
  fill(main, content);
  main.removeAttribute('aria-busy');
  const title = main.querySelector('h1');
  document.title = title ? `${title.textContent} · Box Office` : 'Box Office';
  if (!isFirst) {
    window.scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
}

/** @param {Shop} shop @param {any} error */
function failed(shop, error) {
  if (!error?.code) console.error(error);
  if (error?.code === 'unauthenticated' && session.user()) session.setUser(null);
  const canSignIn = error?.code === 'unauthenticated' && !shop.config.local;
  return [
    h('h1', {}, t().errorTitle),
    h('p', { role: 'alert' }, canSignIn && !shop.config.sign_in ? t().signIn.notHere : sentence(error)),
    h('p.actions', {}, h('button.primary', { type: 'button', onclick: () => show(shop, false) }, t().retry), h('a.button', { href: '#/' }, t().nav.concerts)),
  ];
}

/** @param {Shop} shop @param {string} path */
function drawFrame(shop, path) {
  const texts = t();
  document.documentElement.lang = language();
  /** @type {HTMLElement} */ (document.getElementById('skip')).textContent = texts.skip;
  const link = (/** @type {string} */ to, /** @type {import('./dom.js').Child[]} */ ...label) =>
    h('a', { href: `#/${to}`, 'aria-current': path === to ? 'page' : null }, label);
  const turn = () => {
    switchLanguage();
    shop.showBalance();
    show(shop, false);
  };
  fill(
    /** @type {Element} */ (document.getElementById('header')),
    h('div', {},
      h('a.brand', { href: '#/' }, h('img', { src: '/shop/icon.svg', alt: '', width: 28, height: 28 }), 'Box Office'),
      h('nav', { 'aria-label': 'Box Office' },
        link('reservations', texts.nav.reservations),
        link('points', h(shop.balance.textContent ? 'span.name.label' : 'span.name', {}, `${texts.nav.points} `), shop.balance),
        h('button.plain', { type: 'button', lang: language() === 'ko' ? 'en' : 'ko', title: texts.nav.languageLabel, onclick: turn }, texts.nav.language),
      ),
    ),
  );
  fill(/** @type {Element} */ (document.getElementById('footer')), h('p', {}, texts.footer));
}

async function start() {
  takeSignIn();
  const answer = await fetch('/shop/config.json');
  const shop = new Shop(await answer.json());
  window.addEventListener('hashchange', () => show(shop, false));
  document.getElementById('skip')?.addEventListener('click', (event) => {
    event.preventDefault();
    document.getElementById('main')?.focus();
  });
  shop.showBalance();
  await show(shop, true);
}

start();
