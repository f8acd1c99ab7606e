// What the components look like. A page sets the colours by the custom properties `--box-…`, which pass into a component.

/** @param {string} css */
export function sheet(css) {
  const made = new CSSStyleSheet();
  made.replaceSync(css);
  return made;
}

export const common = sheet(`
  :host { display: block; color: var(--box-text, #1d1a16); }
  :host([hidden]) { display: none; }
  .hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
`);
