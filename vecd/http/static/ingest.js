// Adds documents: pasted text, or files of any length. Input is cut at line ends into parts that are streamed to
// /documents/stream one after the other, so a file is never in memory as a whole, progress is known, and a part whose
// answer was lost is sent again: writing the same document again changes nothing.

import { libraryPath, send } from './api.js';
import { byId, h, say } from './dom.js';
import { bytes, count } from './format.js';
import { refresh as refreshLibraries } from './libraries.js';
import { choose, state } from './state.js';

const PART_BYTES = 1 << 20;
const TEXT_BYTES_MAX = 4 << 20; // of a text that becomes one document
const ERRORS_MAX = 100;
const TRIES = 6;
const STATUSES = ['added', 'updated', 'unchanged', 'deleted', 'failed'];

const form = byId('add-form');
const text = byId('add-text');
const progress = byId('add-progress');
const errors = byId('add-errors');
let aborter = null;

const target = () => state.library ?? 'default';
const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** The parts of a blob of lines: bytes that end with a whole line, and the number of lines before them. */
async function* parts(blob) {
  let rest = new Uint8Array(0);
  let before = 0;
  const reader = blob.stream().getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (value?.length) {
      const joined = new Uint8Array(rest.length + value.length);
      joined.set(rest);
      joined.set(value, rest.length);
      rest = joined;
    }
    const end = done ? rest.length : rest.lastIndexOf(10) + 1;
    if (end && (done || end >= PART_BYTES)) {
      const body = rest.slice(0, end);
      yield { body, before };
      before += body.reduce((lines, byte) => lines + (byte === 10), 0);
      rest = rest.slice(end);
    }
    if (done) return;
  }
}

/** Sends a part; calls `answered` with each line of the answer. */
async function post(path, body, signal, answered) {
  const response = await send('POST', path, { body, type: 'application/x-ndjson', signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = '';
  for (;;) {
    const { done, value } = await reader.read();
    const lines = (held + (value ?? '')).split('\n');
    held = lines.pop();
    for (const line of lines) if (line) answered(JSON.parse(line));
    if (done) return;
  }
}

async function postWithRetries(path, part, signal, answered) {
  for (let attempt = 1; ; attempt += 1) {
    const seen = [];
    try {
      await post(path, part.body, signal, (line) => seen.push(line));
      const last = seen.at(-1);
      if (last?.status !== 'summary') throw new TypeError('the answer is incomplete');
      seen.forEach(answered);
      return;
    } catch (error) {
      const temporary = error instanceof TypeError || error.status === 0 || error.status === 503 || error.status === 429;
      if (error.name === 'AbortError' || !temporary || attempt === TRIES) throw error;
      say(byId('add-status'), `Connection lost; sending again (${attempt} of ${TRIES - 1})`);
      await sleep(300 * 2 ** attempt);
      if (signal.aborted) throw new DOMException('stopped', 'AbortError');
    }
  }
}

/** Makes the input NDJSON. Returns a blob. */
async function asLines(blob, name, format) {
  if (format === 'auto') format = await detect(blob, name);
  if (format === 'ndjson') return blob;
  if (format !== 'lines' && blob.size > TEXT_BYTES_MAX) {
    throw new Error(`${name || 'The text'} has ${bytes(blob.size)}; a text can have ${bytes(TEXT_BYTES_MAX)}. Choose “a document per line”, or send NDJSON.`);
  }
  const content = await blob.text();
  const whole = format === 'whole';
  const pieces = whole ? [content] : content.split(format === 'lines' ? /\r?\n/ : /\r?\n(?:[ \t]*\r?\n)+/);
  const documents = pieces.filter((piece) => piece.trim()).map((piece) =>
    JSON.stringify({ ...(whole && name ? { id: name.slice(0, 150), title: name.slice(0, 500) } : {}), text: piece.trim() }));
  return new Blob([documents.join('\n'), documents.length ? '\n' : '']);
}

async function detect(blob, name) {
  if (/\.(ndjson|jsonl)$/i.test(name)) return 'ndjson';
  const [first] = (await blob.slice(0, 1 << 16).text()).trimStart().split('\n', 1);
  return first.startsWith('{') ? 'ndjson' : name ? 'whole' : 'paragraphs';
}

async function add(inputs) {
  if (aborter) return;
  aborter = new AbortController();
  const { signal } = aborter;
  const library = target();
  const path = `${libraryPath(library, 'documents', 'stream')}?results=failed`;
  const totals = Object.fromEntries(STATUSES.map((status) => [status, 0]));
  const total = inputs.reduce((sum, input) => sum + input.blob.size, 0);
  let sent = 0;
  let ended = null;
  errors.replaceChildren();
  setBusy(true);
  say(byId('add-status'), `Adding ${bytes(total)} to ${library}`);
  try {
    for (const { blob, name } of inputs) {
      const lines = await asLines(blob, name, byId('add-format').value);
      for await (const part of parts(lines)) {
        await postWithRetries(path, part, signal, (line) => {
          if (line.status === 'failed') showError(name, part.before + line.line, line.error);
          if (line.status !== 'summary') return;
          for (const status of STATUSES) totals[status] += line[status] ?? 0;
          if (line.error) throw Object.assign(new Error(line.error.message), { code: line.error.code });
        });
        sent += part.body.length * (blob.size / Math.max(1, lines.size));
        progress.value = total ? Math.min(1, sent / total) : 1;
        say(byId('add-status'), `${counted(totals)} (${bytes(sent)} of ${bytes(total)})`);
      }
    }
  } catch (error) {
    ended = error.name === 'AbortError' ? 'Stopped' : error.text ?? error.message;
  }
  aborter = null;
  setBusy(false);
  const outcome = `${counted(totals)} in ${library}`;
  say(byId('add-status'), ended ? `${ended} (${outcome})` : `Done: ${outcome}`);
  byId('add-status').dataset.kind = ended ? 'error' : totals.failed ? 'warning' : 'good';
  if (!ended && !totals.failed) text.value = '';
  await refreshLibraries();
  if (state.libraries?.some((each) => each.name === library)) choose(library);
}

const counted = (totals) =>
  STATUSES.filter((status) => totals[status]).map((status) => `${count(totals[status])} ${status}`).join(', ') || 'nothing to add';

function setBusy(busy) {
  byId('add-status').dataset.kind = '';
  byId('add-button').disabled = busy;
  byId('add-stop').hidden = !busy;
  progress.hidden = !busy;
  progress.value = 0;
}

function showError(name, line, error) {
  if (errors.children.length === ERRORS_MAX) errors.append(h('li', { class: 'dim' }, 'More lines were rejected.'));
  if (errors.children.length >= ERRORS_MAX) return;
  errors.append(h('li', {}, h('b', {}, `${name ? `${name}, ` : ''}line ${count(line)}`), ` ${error.message}${error.hint ? `; ${error.hint}` : ''}`));
}

const files = (list) => [...list].map((file) => ({ blob: file, name: file.name }));

function acceptDrops() {
  const cover = byId('drop');
  let inside = 0;
  const carries = (event) => event.dataTransfer?.types.includes('Files') || event.dataTransfer?.types.includes('text/plain');
  const show = (on) => {
    inside = on ? inside : 0;
    cover.hidden = !on;
    byId('drop-target').textContent = target();
  };
  addEventListener('dragenter', (event) => {
    if (!carries(event)) return;
    inside += 1;
    show(true);
  });
  addEventListener('dragleave', () => {
    inside -= 1;
    if (inside <= 0) show(false);
  });
  addEventListener('dragover', (event) => {
    if (carries(event)) event.preventDefault();
  });
  addEventListener('drop', (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    show(false);
    const dropped = event.dataTransfer.files;
    if (dropped.length) add(files(dropped));
    else text.value = event.dataTransfer.getData('text/plain');
  });
}

export function start() {
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (text.value.trim()) add([{ blob: new Blob([text.value]), name: '' }]);
    else text.focus();
  });
  text.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  byId('add-files').addEventListener('change', ({ target: input }) => {
    if (input.files.length) add(files(input.files));
    input.value = '';
  });
  byId('add-stop').addEventListener('click', () => aborter?.abort());
  const label = () => say(byId('add-target'), `to ${target()}`);
  state.addEventListener('library', label);
  state.addEventListener('libraries', label);
  acceptDrops();
}

