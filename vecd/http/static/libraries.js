// Libraries: the chooser, and for each its index, size, memory and measured recall.

import { call, connection, libraryPath } from './api.js';
import { byId, h, openDialog, say, throttled } from './dom.js';
import { bytes, count } from './format.js';
import { choose, setLibraries, state } from './state.js';

const POLL_MS = 10_000;

const list = byId('library-list');
const select = byId('library');
let timer = null;
let asked = 0;
let shown = '';
const probes = new Map(); // library -> the text of its measurement

export async function refresh() {
  clearTimeout(timer);
  const number = ++asked;
  try {
    const { libraries } = await call('GET', '/v1/libraries');
    if (number !== asked) return;
    setLibraries(libraries);
    show();
  } catch {
    // the banner says it
  }
  if (number === asked) timer = setTimeout(() => (document.hidden ? null : refresh()), POLL_MS);
}

const soon = throttled(refresh, 700);

function show() {
  const now = JSON.stringify([state.libraries, state.library, [...probes]]);
  if (now === shown) return;
  shown = now;
  const names = state.libraries.map((each) => each.name);
  if ([...select.options].map((each) => each.value).join('\n') !== (names.join('\n') || '')) {
    select.replaceChildren(...(names.length ? names.map((name) => h('option', { value: name }, name)) : [h('option', { value: '' }, 'No library')]));
  }
  select.disabled = !names.length;
  if (state.library !== null) select.value = state.library;
  const focused = document.activeElement?.dataset?.focus;
  list.replaceChildren(names.length ? table() : h('p', { class: 'empty' }, 'No libraries.'));
  if (focused) list.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
}

function table() {
  return h('table', {},
    h('thead', {}, h('tr', {},
      ...[['Library', ''], ['Index', ''], ['Documents', 'num'], ['Chunks', 'num wide'], ['Memory', 'num'], ['Recall', 'num'], ['', '']].map(([title, kind]) =>
        h('th', { scope: 'col', class: kind }, title || h('span', { class: 'visually-hidden' }, 'Measure'))))),
    h('tbody', {}, state.libraries.map(row)));
}

function row(library) {
  const { name, memory, recall } = library;
  const building = memory.maintenance ?? (memory.state === 'loading' ? 'loading' : null);
  const measured = recallOf(library);
  return h('tr', { 'aria-current': name === state.library ? 'true' : null },
    h('th', { scope: 'row' },
      h('button', { class: 'link name', type: 'button', 'data-focus': `name ${name}`, title: `Search ${name}`, onclick: () => choose(name) }, name)),
    h('td', {}, h('span', { class: 'kind', title: parameters(library) }, library.index),
      building ? h('span', { class: 'busy-note' }, ` ${building}`) : null,
      memory.state === 'failed' ? h('span', { class: 'bad' }, ' failed') : null),
    h('td', { class: 'num' }, count(library.documents)),
    h('td', { class: 'num wide' }, count(library.chunks)),
    h('td', { class: 'num' }, memory.memory_bytes === undefined ? h('span', { class: 'dim', title: 'The index is loaded by the first search' }, 'unloaded') : bytes(memory.memory_bytes + (memory.text?.memory_bytes ?? 0))),
    h('td', { class: `num ${recall.met === false ? 'bad' : ''}`, title: `Promise: ${recall.promise}` }, measured),
    h('td', { class: 'num' }, h('button', { class: 'small', type: 'button', 'data-focus': `measure ${name}`, 'aria-label': `Measure the recall of ${name}`, onclick: (event) => measure(event.currentTarget, name) }, 'Measure')));
}

const parameters = (library) =>
  [`${library.metric}, ${library.dimension ?? '?'} dimensions`, library.embedder, ...Object.entries(library.parameters ?? {}).map(([name, value]) => `${name} ${value}`)].filter(Boolean).join(', ');

function recallOf({ name, recall }) {
  const own = recall.own?.mean;
  const text = probes.get(name) ?? (own === undefined || own === null ? (recall.met ? 'exact' : '–') : own.toFixed(3));
  return recall.met === false ? `${text} < ${recall.promise}` : text;
}

/** Measures the recall with synthetic queries: the weakest of their types. */
async function measure(button, name) {
  button.disabled = true;
  try {
    const { recall } = await call('GET', libraryPath(name));
    const means = Object.values(recall.probe ?? {}).map((each) => each?.mean).filter((mean) => typeof mean === 'number');
    if (means.length) probes.set(name, Math.min(...means).toFixed(3));
    else if (recall.own?.mean === undefined) probes.set(name, 'exact');
  } catch {
    // the banner says it
  }
  button.disabled = false;
  await refresh();
}

async function create(event) {
  event.preventDefault();
  const json = { name: byId('library-name').value.trim() };
  for (const field of ['index', 'embedder']) {
    const { value } = byId(`library-${field}`);
    if (value) json[field] = value;
  }
  say(byId('library-error'), '');
  try {
    await call('POST', '/v1/libraries', { json });
  } catch (problem) {
    say(byId('library-error'), problem.text);
    return;
  }
  byId('library-dialog').close();
  event.target.reset();
  await refresh();
  choose(json.name);
}

export function start() {
  select.addEventListener('change', () => choose(select.value));
  state.addEventListener('library', () => {
    if (state.libraries) show();
  });
  state.addEventListener('changed', ({ detail }) => {
    if (!detail.type.startsWith('job.')) soon();
    probes.delete(detail.library_id);
  });
  connection.addEventListener('change', () => {
    if (connection.state === 'up') soon();
  });
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden) refresh();
  });
  byId('new-library').addEventListener('click', () => openDialog(byId('library-dialog')));
  byId('library-form').addEventListener('submit', create);
  return refresh();
}
