// Builds elements. Text is always a text node: nothing that the API sends is read as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Properties that begin with "on" are listeners, true and false set or leave out an attribute. */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...nodes(children));
  return element;
}

function nodes(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Puts other children into an element. What had the focus keeps it, if it is there again. */
export function replace(element, ...children) {
  const active = document.activeElement;
  const key = element.contains(active) ? focusKey(active) : null;
  element.replaceChildren(...nodes(children));
  if (key) [...element.querySelectorAll("a, button, input, select, summary")].find((one) => focusKey(one) === key)?.focus();
}

function focusKey(element) {
  return element.getAttribute("data-key") ?? element.getAttribute("href") ?? element.getAttribute("name");
}

/** Reads a message to those who cannot see the page change. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

/** A button. */
export function button(text, onclick, properties = {}) {
  return h("button", { type: "button", onclick, ...properties }, text);
}

/** A link to a page of the console. */
export function link(path, text, properties = {}) {
  return h("a", { href: `#/${path}`, ...properties }, text);
}

/** JSON as indented text, in a region that can be scrolled with the keyboard. */
export function json(value, label) {
  return h("pre", { tabindex: "0", role: "region", "aria-label": label }, JSON.stringify(value, null, 2));
}
