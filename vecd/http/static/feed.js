// The feed as it happens: one EventSource, opened again from the last cursor after each loss, so no event is missing and
// none is shown twice. While the feed is paused or the page is hidden, no stream is open; nothing is buffered.

import { call, connection, Problem, setConnection, streamUrl } from './api.js';
import { arrowKeys, byId, h, say } from './dom.js';
import { clock, plural } from './format.js';
import { announce, state } from './state.js';

const ROWS_MAX = 300;
const RECENT = 100; // events before now, with which the feed begins
const RETRY_MS = [300, 10_000];
const TYPES = [
  'document.added', 'document.updated', 'document.deleted', 'chunk.added', 'chunk.deleted', 'index.rebuilt',
  'index.recall', 'job.submitted', 'job.started', 'job.completed', 'job.failed', 'job.cancelled', 'library.created',
  'library.renamed', 'library.deleted', 'library.embedded',
];

const list = byId('events');
const status = byId('feed-status');
const pause = byId('feed-pause');
let source = null;
let attempt = 0; // of opening: a newer one ends the older
let cursor = null;
let paused = false;
let retryMs = RETRY_MS[0];
let timer = null;
let waiting = []; // rows to be shown with the next frame
let behind = false; // whether events since `cursor` may still come that were logged before the stream opened

function setState(name, text) {
  status.dataset.state = name;
  say(status, text);
}

function close() {
  attempt += 1;
  clearTimeout(timer);
  source?.close();
  source = null;
}

/** Begins again, with the most recent events. */
function restart() {
  cursor = null;
  waiting = [];
  list.replaceChildren();
  byId('feed-empty').hidden = false;
  open();
}

async function open() {
  close();
  if (paused || document.hidden) return;
  const types = [...document.querySelectorAll('#feed-types input:checked')].map((each) => each.value);
  if (!types.length) return setState('paused', 'No types');
  const number = attempt;
  if (status.dataset.state !== 'reconnecting') setState('connecting', 'Connecting');
  try {
    cursor ??= await recent();
    const parameters = types.map((type) => ['type', type]);
    if (byId('feed-library').value) parameters.push(['library_id', byId('feed-library').value]);
    parameters.push(['from', cursor]);
    const url = await streamUrl('/v1/events/stream', parameters);
    if (number !== attempt) return;
    listen(new EventSource(url), number);
  } catch (problem) {
    if (number === attempt) lost(problem);
  }
}

/** A cursor some events before the head of the log. */
async function recent() {
  const { log, seq, oldest } = await call('GET', '/v1/status');
  return `${log}:${Math.max(seq - RECENT, Number(oldest.split(':')[1]), 0)}`;
}

function listen(opened, number) {
  source = opened;
  behind = true;
  opened.onopen = () => {
    retryMs = RETRY_MS[0];
    setState('live', 'Live');
    setConnection('up');
    setTimeout(() => { behind = false; }, 1000);
  };
  for (const type of TYPES) opened.addEventListener(type, (event) => take(type, event));
  opened.addEventListener('error', (event) => {
    if (number !== attempt) return;
    if (event.data !== undefined) return refused(JSON.parse(event.data));
    lost();
  });
}

function take(type, event) {
  cursor = event.lastEventId || cursor;
  const data = JSON.parse(event.data);
  waiting.push([type, data, event.lastEventId]);
  if (waiting.length === 1) requestAnimationFrame(render);
  if (waiting.length > ROWS_MAX) waiting.splice(0, waiting.length - ROWS_MAX);
  announce({ type, ...data });
}

/** The stream ended with an error that the gateway described. */
function refused(body) {
  const problem = new Problem(body);
  close();
  if (problem.code === 'compacted') {
    note(`Older events were trimmed: ${problem.message}`);
    cursor = problem.body.oldest ?? null;
    return open();
  }
  if (problem.code === 'foreign_cursor') {
    note('The log is another one: the store was recreated or restored.');
    return restart();
  }
  lost(problem);
}

/** The stream ended; opens it again after a pause. */
function lost(problem) {
  close();
  if (problem?.status === 401 || problem?.status === 403) return setState('stopped', problem.status === 401 ? 'Signed out' : 'Not allowed');
  setState('reconnecting', 'Reconnecting');
  timer = setTimeout(again, retryMs * (0.75 + Math.random() / 2));
  retryMs = Math.min(retryMs * 2, RETRY_MS[1]);
}

async function again() {
  // EventSource does not say why it ended. The status does, and whether the log is still the same.
  const number = attempt;
  try {
    const { log, seq } = await call('GET', '/v1/status');
    if (number !== attempt) return;
    const [of, at] = (cursor ?? '').split(/[:@]/);
    if (cursor !== null && (of !== log || Number(at) > seq)) {
      note('The log is another one: the store was recreated or restored.');
      return restart();
    }
    open();
  } catch (problem) {
    if (number === attempt) lost(problem);
  }
}

function note(text) {
  list.prepend(h('li', { class: 'note' }, text));
}

function render() {
  const rows = waiting.map(([type, data, at]) => row(type, data, at)).reverse();
  waiting = [];
  if (!rows.length) return;
  const scrolled = list.scrollTop > 4 ? list.scrollHeight : null;
  list.prepend(...rows);
  while (list.children.length > ROWS_MAX) list.lastElementChild.remove();
  if (scrolled !== null) list.scrollTop += list.scrollHeight - scrolled; // what one reads stays where it is
  byId('feed-empty').hidden = true;
}

function row(type, data, at) {
  const made = h('li', { tabindex: '-1', class: behind ? '' : 'fresh', 'data-type': type, 'data-seq': data.seq },
    h('time', { datetime: data.at, title: data.at }, clock(data.at)),
    h('span', { class: 'type' }, type),
    h('span', { class: 'what', dir: 'auto' }, summary(type, data)),
    h('span', { class: 'of' }, data.library_id ?? ''));
  const flip = () => {
    const details = made.querySelector('pre');
    if (details) details.remove();
    else made.append(h('pre', {}, JSON.stringify({ cursor: at, ...data }, null, 1)));
  };
  made.addEventListener('click', (event) => {
    if (!event.target.closest('pre')) flip();
  });
  made.addEventListener('keydown', (event) => {
    if (event.key === 'Enter') flip();
  });
  return made;
}

function summary(type, data) {
  const [noun] = type.split('.');
  if (noun === 'document') return data.title ?? data.document_id ?? '';
  if (noun === 'chunk') return data.chunk_id ?? '';
  if (noun === 'job') return `${data.kind} ${data.job_id}${data.error ? `: ${data.error.message}` : ''}`;
  if (type === 'index.rebuilt') return `${data.kind}, ${plural(data.vectors, 'vector')}, ${data.reason}`;
  if (type === 'index.recall') return data.met === null ? `promise ${data.promise}` : `${data.met ? 'meets' : 'misses'} ${data.promise}${data.mean ? ` (mean ${data.mean.toFixed(3)})` : ''}`;
  if (type === 'library.created') return `${data.index ?? ''} ${data.embedder ?? ''}`.trim();
  if (type === 'library.embedded') return `${plural(data.chunks, 'chunk')}, ${data.embedder}`;
  if (type === 'library.renamed') return `from ${data.former ?? ''}`;
  if (type === 'library.deleted') return plural(data.documents ?? 0, 'document');
  return '';
}

/** Pauses the feed, or resumes it from its cursor. */
export function togglePause() {
  paused = !paused;
  pause.setAttribute('aria-pressed', String(paused));
  pause.textContent = paused ? 'Resume' : 'Pause';
  if (paused) {
    close();
    setState('paused', 'Paused');
  } else {
    open();
  }
}

/** Opens the feed, now that there is a key, or another one. */
export function reopen() {
  restart();
}

export function start() {
  pause.addEventListener('click', togglePause);
  byId('feed-types').addEventListener('change', restart);
  byId('feed-library').addEventListener('change', restart);
  arrowKeys(list);
  document.addEventListener('visibilitychange', () => {
    // A browser opens about six connections to a server: a hidden tab does without.
    if (document.hidden) close();
    else if (source === null) open();
  });
  addEventListener('pagehide', close);
  connection.addEventListener('change', () => {
    if (connection.state === 'up' && source === null && status.dataset.state === 'reconnecting') {
      clearTimeout(timer);
      retryMs = RETRY_MS[0];
      open();
    }
  });
  state.addEventListener('libraries', () => {
    const select = byId('feed-library');
    const names = state.libraries.map((each) => each.name);
    const options = [...select.options].slice(1).map((each) => each.value);
    if (names.join('\n') === options.join('\n')) return;
    const chosen = select.value;
    if (chosen && !names.includes(chosen)) names.push(chosen); // the events of a deleted library are still in the log
    select.replaceChildren(h('option', { value: '' }, 'All libraries'), ...names.map((name) => h('option', { value: name }, name)));
    select.value = chosen;
  });
  open();
}
