// Search while one types. Each answer is for the text in the box: one that a newer question has overtaken is dropped.
// When the feed says that the library changed, the answer is renewed in place.

import { call, connection, libraryPath } from './api.js';
import { arrowKeys, byId, debounced, h, say, throttled } from './dom.js';
import { count, plural, score } from './format.js';
import { excerpt, marked, matcher } from './highlight.js';
import { current, state } from './state.js';

const DEBOUNCE_MS = 60;
const RENEW_MS = 1000;
const EXCERPT_CHARS = 360;
const VALUE_CHARS = 60;
const METADATA_MAX = 6;

const query = byId('query');
const where = byId('where');
const hits = byId('hits');
const status = byId('search-status');
let asked = 0; // the number of the newest question
let aborter = null;
let shown = ''; // what the list of hits shows, as text, so that an equal answer changes nothing
let opened = new Set(); // chunks whose whole text is shown

async function search({ renewal = false } = {}) {
  later.cancel();
  const number = ++asked;
  aborter?.abort();
  const text = query.value.trim();
  if (!renewal) opened = new Set();
  if (state.library === null || !text) return showIdle();
  aborter = new AbortController();
  const body = { query: text, k: Number(byId('k').value), mode: byId('mode').value, explain: true, group_by: 'document' };
  if (where.value.trim()) body.where = [where.value.trim()];
  const began = performance.now();
  status.classList.add('busy');
  try {
    const answer = await call('POST', libraryPath(state.library, 'search'), { json: body, signal: aborter.signal });
    if (number !== asked) return;
    where.removeAttribute('aria-invalid');
    show(text, answer, performance.now() - began);
  } catch (problem) {
    if (number !== asked || problem.name === 'AbortError') return;
    if (problem.code === 'invalid_filter') where.setAttribute('aria-invalid', 'true');
    if (problem.status === 0 || problem.status === 401 || problem.status === 503) return; // the banner says it
    clear();
    showStatus(problem.text, 'error');
  } finally {
    if (number === asked) status.classList.remove('busy');
  }
}

const later = debounced(search, DEBOUNCE_MS);

function showStatus(text, kind = '') {
  say(status, text);
  status.dataset.kind = kind;
}

function clear() {
  hits.replaceChildren();
  shown = '';
}

function showIdle() {
  clear();
  status.classList.remove('busy');
  const library = current();
  if (state.libraries === null) return showStatus('');
  if (!state.libraries.length) return showStatus('There is no library yet. Add documents, and the library “default” is created.');
  if (!library) return showStatus('');
  if (!library.documents) return showStatus(`${library.name} is empty. Add documents, and search them at once.`);
  showStatus(`${plural(library.documents, 'document')} in ${library.name}. Type to search.`);
}

function show(text, answer, ms) {
  const { hits: found, explain = {}, warnings = [] } = answer;
  const how = [
    plural(found.length, 'hit'),
    explain.mode,
    explain.exact ? 'exact' : explain.recall && `recall ${explain.recall.toFixed(3)}`,
    `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`,
  ];
  showStatus([how.filter(Boolean).join(' · '), ...warnings].join('. '), warnings.length ? 'warning' : '');
  const now = JSON.stringify([text, found]);
  if (now === shown) return;
  shown = now;
  const focused = document.activeElement?.closest?.('#hits > li')?.dataset.document;
  const find = matcher(text);
  const top = Math.max(...found.map((hit) => hit.score), 0);
  hits.replaceChildren(...found.map((hit) => row(hit, find, top)));
  if (focused !== undefined) [...hits.children].find((each) => each.dataset.document === focused)?.focus();
}

function row(hit, find, top) {
  const full = hit.text ?? '';
  const part = excerpt(full, find, EXCERPT_CHARS);
  const body = h('p', { class: 'text', dir: 'auto' });
  const toggle = part.whole ? null : h('button', { class: 'link', type: 'button', onclick: () => flip() });
  const fill = () => {
    const open = opened.has(hit.chunk_id);
    body.replaceChildren(...marked(open ? full : part.text, find));
    if (toggle) {
      toggle.textContent = open ? 'Show less' : 'Show all';
      toggle.setAttribute('aria-expanded', String(open));
    }
  };
  const flip = () => {
    if (!opened.delete(hit.chunk_id)) opened.add(hit.chunk_id);
    fill();
  };
  fill();
  const share = top > 0 ? Math.max(0, hit.score / top) : 0;
  const title = hit.title ?? hit.document_id;
  return h('li', { tabindex: '-1', 'data-document': hit.document_id, onkeydown: (event) => {
    if (event.key === 'Enter' && event.target === event.currentTarget && toggle) flip();
  } },
  h('div', { class: 'score', title: placings(hit) },
    h('span', { class: 'number' }, score(hit.score)),
    h('meter', { min: '0', max: '1', value: share.toFixed(3), 'aria-hidden': 'true' })),
  h('div', { class: 'hit' },
    h('h3', { dir: 'auto' }, h('span', { class: 'visually-hidden' }, `${hit.rank}. `), marked(title, find)),
    full ? body : h('p', { class: 'text none' }, 'Vector without a text'),
    toggle,
    h('p', { class: 'facts' },
      hit.title === null ? null : h('span', { class: 'id' }, hit.document_id),
      metadata(hit.metadata), h('span', { class: 'found' }, placings(hit)))));
}

/** Where each ranking placed the hit. */
function placings({ explain = {} }) {
  return [['vector', explain.vector], ['text', explain.text]]
    .filter(([, place]) => place)
    .map(([name, place]) => `${name} #${count(place.rank)} (${score(place.score)})`)
    .join(' · ');
}

function metadata(map) {
  const entries = Object.entries(map ?? {});
  const made = entries.slice(0, METADATA_MAX).map(([name, value]) => {
    const text = typeof value === 'string' ? value : JSON.stringify(value);
    const short = text.length > VALUE_CHARS ? `${text.slice(0, VALUE_CHARS)}…` : text;
    return h('span', { class: 'fact', dir: 'auto' }, h('b', {}, name.slice(0, VALUE_CHARS)), ` ${short}`);
  });
  if (entries.length > METADATA_MAX) made.push(h('span', { class: 'fact' }, `+${entries.length - METADATA_MAX}`));
  return made;
}

export function start() {
  query.addEventListener('input', () => later());
  where.addEventListener('input', () => later());
  byId('mode').addEventListener('change', () => search());
  byId('k').addEventListener('change', () => search());
  byId('search-form').addEventListener('submit', (event) => {
    event.preventDefault();
    search();
  });
  byId('search-form').addEventListener('keydown', (event) => {
    if (event.key === 'ArrowDown' && event.target.matches('input') && hits.firstElementChild) {
      event.preventDefault();
      hits.firstElementChild.focus();
    }
  });
  arrowKeys(hits, { onTop: () => query.focus() });
  state.addEventListener('library', () => search());
  state.addEventListener('libraries', () => {
    if (!query.value.trim()) showIdle();
  });
  const renew = throttled(() => search({ renewal: true }), RENEW_MS);
  state.addEventListener('changed', ({ detail }) => {
    if (detail.library_id === state.library && query.value.trim()) renew();
  });
  connection.addEventListener('change', () => {
    if (connection.state === 'up' && query.value.trim()) renew();
  });
}
