// Chooses the language: what the buyer chose before, else the browser's.

import en from './en.js';
import ko from './ko.js';
import { recall, remember } from '../session.js';

/** @typedef {typeof en} Texts */
/** @type {Record<string, Texts>} */
const languages = { en, ko };

/** @returns {'en' | 'ko'} */
export function language() {
  const wanted = [recall('language'), ...navigator.languages].filter(Boolean);
  const known = wanted.map((tag) => String(tag).slice(0, 2).toLowerCase()).find((tag) => tag in languages);
  return /** @type {'en' | 'ko'} */ (known ?? 'en');
}

export function switchLanguage() {
  remember('language', language() === 'ko' ? 'en' : 'ko');
}

/** The texts in the language in force. @returns {Texts} */
export const t = () => languages[language()];

/** @param {string | Date} time */
export const dateTime = (time) => new Intl.DateTimeFormat(language(), { dateStyle: 'full', timeStyle: 'short' }).format(new Date(time));
/** @param {string | Date} time */
export const shortTime = (time) => new Intl.DateTimeFormat(language(), { dateStyle: 'medium', timeStyle: 'short' }).format(new Date(time));
/** @param {Date} time */
export const clockTime = (time) => new Intl.DateTimeFormat(language(), { timeStyle: 'medium' }).format(time);

/** The sentence for a refusal. @param {any} error a ShopError, or whatever was thrown @returns {string} */
export function sentence(error) {
  const known = /** @type {Record<string, (problem: any, wait: number | null) => string>} */ (t().errors)[error?.code];
  if (known) return known(error.problem ?? {}, error.retryAfterSeconds ?? null);
  return error?.code ? `${t().errorTitle}: ${error.message}` : t().errors.internal();
}
