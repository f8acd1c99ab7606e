// A question that must be answered before something is lost.

import { h } from './dom.js';

/** @param {string} question @param {string} yes @param {string} no @returns {Promise<boolean>} */
export function ask(question, yes, no) {
  return new Promise((answered) => {
    const dialog = h(
      'dialog', { 'aria-labelledby': 'question' },
      h('p', { id: 'question' }, question),
      h('form.actions', { method: 'dialog' }, h('button.danger', { value: 'yes' }, yes), h('button', { value: 'no', autofocus: true }, no)),
    );
    dialog.addEventListener('close', () => {
      dialog.remove();
      answered(dialog.returnValue === 'yes');
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
