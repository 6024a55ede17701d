// Elements made from data. Data becomes text nodes and attribute values, never markup.

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** An element: `h('a', {class: 'x', href: '/'}, 'text', child)`. Listeners are `onclick`-style functions. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Sets the text of an element, if it differs: a live region announces changes only. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Moves the focus among the children of a list with the arrow keys. */
export function arrowKeys(list, { onTop = () => {} } = {}) {
  list.addEventListener('keydown', (event) => {
    if (event.target.closest('button, a, input, select') || !['ArrowDown', 'ArrowUp', 'Home', 'End'].includes(event.key)) return;
    event.preventDefault();
    const current = event.target.closest('li');
    if (event.key === 'ArrowUp' && current && !current.previousElementSibling) return onTop();
    const target = {
      ArrowDown: current ? current.nextElementSibling : list.firstElementChild,
      ArrowUp: current ? current.previousElementSibling : list.lastElementChild,
      Home: list.firstElementChild,
      End: list.lastElementChild,
    }[event.key];
    target?.focus();
  });
}

/** A function that calls `action` once, `ms` after the last call. */
export function debounced(action, ms) {
  let timer;
  const later = (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...args), ms);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}

/** A function that calls `action` soon, but not more often than every `ms`. */
export function throttled(action, ms) {
  let timer = null;
  let last = -Infinity;
  return () => {
    if (timer !== null) return;
    timer = setTimeout(() => {
      timer = null;
      last = performance.now();
      action();
    }, Math.max(0, last + ms - performance.now()));
  };
}

/** Opens a dialog; its buttons with `data-close` close it. */
export function openDialog(dialog) {
  if (dialog.open) return;
  dialog.querySelectorAll('[data-close]').forEach((button) => { button.onclick = () => dialog.close(); });
  dialog.showModal();
}
