// Builds elements. Text always becomes text nodes, never markup.

/** @typedef {Node | string | number | null | undefined | false} Child */
/** @typedef {(Child | Children)[]} Children */

/**
 * An element, with classes after dots (`button.primary`), properties and attributes, and children.
 * A name that begins with `on` is a listener; one that the element knows is a property; any other is an attribute.
 * @param {string} what @param {Record<string, any>} [given] @param {Children} children
 * @returns {any}
 */
export function h(what, given = {}, ...children) {
  const [tag, ...classes] = what.split('.');
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(' ');
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name in element && !name.startsWith('aria')) /** @type {any} */ (element)[name] = value;
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  put(element, ...children);
  return element;
}

/** Appends children. @param {ParentNode} parent @param {Children} children */
export function put(parent, ...children) {
  for (const child of /** @type {Child[]} */ (/** @type {any[]} */ (children).flat(Infinity))) {
    if (child !== null && child !== undefined && child !== false) parent.append(/** @type {any} */ (child));
  }
}

/** Replaces what is inside. @param {Element} parent @param {Children} children */
export function fill(parent, ...children) {
  parent.replaceChildren();
  put(parent, ...children);
}

/** A drawing from trusted numbers and colours. @param {string} tag @param {Record<string, string | number>} given @param {Node[]} children */
export function svg(tag, given = {}, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(given)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** Calls `work` now and then again after the pause that it returns, until the signal ends it or it returns null.
 * A page that is shown again after a sleep looks at once.
 * @param {AbortSignal} signal @param {() => Promise<number | null>} work milliseconds until the next call */
export function repeat(signal, work) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  let isRunning = false;
  const run = async () => {
    if (isRunning || signal.aborted) return;
    isRunning = true;
    clearTimeout(timer);
    const pause = await work();
    isRunning = false;
    if (pause !== null && !signal.aborted) timer = setTimeout(run, pause);
    if (pause === null) stop();
  };
  const wake = () => { if (!document.hidden) run(); };
  const stop = () => {
    clearTimeout(timer);
    document.removeEventListener('visibilitychange', wake);
    window.removeEventListener('online', wake);
  };
  document.addEventListener('visibilitychange', wake);
  window.addEventListener('online', wake);
  signal.addEventListener('abort', stop);
  run();
}
