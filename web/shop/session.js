// What this browser remembers: the user, the places in line, and what is known of dates. It survives a reload, and the tabs
// of one browser share it.

const PREFIX = 'boxoffice.';

/** @param {string} name @returns {any} */
export function recall(name) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name) ?? 'null');
  } catch {
    return null;
  }
}

/** @param {string} name @param {unknown} value null forgets it */
export function remember(name, value) {
  try {
    if (value === null) localStorage.removeItem(PREFIX + name);
    else localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // Storage is full or forbidden: the shop works until the page is reloaded.
  }
}

/** @typedef {{ id: string, name: string, access_token: string }} User */
/** @returns {User | null} */
export const user = () => recall('user');
/** @param {User | null} value */
export function setUser(value) {
  remember('user', value);
  if (value === null) remember('places', null);
}

/** @typedef {{ token: string, startedAhead: number | null, isOver?: boolean }} KeptPlace */
/** The place in the line of a concert, unless it is over. @param {string} concert @returns {KeptPlace | null} */
export function place(concert) {
  const kept = recall('places')?.[concert];
  return kept && !kept.isOver ? kept : null;
}
/** @param {string} concert @param {KeptPlace} value */
export function setPlace(concert, value) {
  remember('places', { ...recall('places'), [concert]: value });
}
/** Ends a place. Its token is kept: it still pays for what is held. @param {string} concert */
export function endPlace(concert) {
  const kept = recall('places')?.[concert];
  if (kept) setPlace(concert, { ...kept, isOver: true });
}
/** The latest token of a concert, whether its place is over or not. @param {string} concert @returns {string} */
export const latestToken = (concert) => recall('places')?.[concert]?.token ?? '';

/** @typedef {{ concert: string, name: string, venue: string, starts_at: string }} DateFacts */
/** The facts of a date, which the API shows to admitted buyers only. @param {string} performance @returns {DateFacts | null} */
export const dateFacts = (performance) => recall('dates')?.[performance] ?? null;
/** @param {string} performance @param {DateFacts} facts */
export function setDateFacts(performance, facts) {
  remember('dates', { ...recall('dates'), [performance]: facts });
}
