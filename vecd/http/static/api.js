// The public HTTP interface: requests, errors, the key of this tab, and whether the gateway and its daemon answer.
//
// The key is kept in sessionStorage and sent in a header. For EventSource, which cannot send one, it is exchanged for a
// ticket: a URL never contains a key.

/** An error that the gateway answered (RFC 9457), or `unreachable`. */
export class Problem extends Error {
  constructor(body) {
    super(body.detail ?? 'An error without a description');
    this.code = body.code ?? 'internal';
    this.status = body.status ?? 0;
    this.hint = body.hint ?? '';
    this.body = body;
  }

  /** What happened and what to do, as one text. */
  get text() {
    const message = this.message.charAt(0).toUpperCase() + this.message.slice(1);
    return this.hint ? `${message.replace(/\.$/, '')}; ${this.hint}.`.replace(/\.\.$/, '.') : message;
  }
}

/** The state of the connection: `up`, `down` (no gateway), `no_daemon`, `unauthorized`, `forbidden`. */
export const connection = new EventTarget();
connection.state = 'connecting';
connection.detail = '';

export function setConnection(state, detail = '') {
  if (connection.state === state && connection.detail === detail) return;
  connection.state = state;
  connection.detail = detail;
  connection.dispatchEvent(new Event('change'));
}

let key = null;
try {
  key = sessionStorage.getItem('vec.key');
} catch {
  // storage is disabled: the key lasts as long as the page
}

export const signedIn = () => key !== null;

/** Uses this key from now on; null: none. */
export function setKey(value) {
  key = value;
  try {
    if (value === null) sessionStorage.removeItem('vec.key');
    else sessionStorage.setItem('vec.key', value);
  } catch {
    // as above
  }
}

const DAEMON_GONE = new Set(['no_daemon', 'daemon_failed', 'connection_lost', 'shutting_down', 'stalled']);

/** Sends a request; returns the response, or throws a Problem, or an AbortError. `withKey` replaces the tab's key. */
export async function send(method, path, { json, body, type, signal, withKey } = {}) {
  const headers = {};
  const secret = withKey ?? key;
  if (secret !== null) headers.Authorization = `Bearer ${secret}`;
  if (json !== undefined) {
    body = JSON.stringify(json);
    type = 'application/json';
  }
  if (type) headers['Content-Type'] = type;
  let response;
  try {
    response = await fetch(path, { method, headers, body, signal, cache: 'no-store', credentials: 'omit' });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    setConnection('down');
    throw new Problem({ code: 'unreachable', detail: 'The gateway does not answer.' });
  }
  const current = secret === key; // the answer to an older key says nothing about this one
  if (response.ok) {
    if (current) setConnection('up');
    return response;
  }
  const problem = new Problem({ status: response.status, detail: response.statusText, ...(await readJson(response)) });
  if (response.status === 401) {
    if (current) setConnection('unauthorized', problem.text);
  } else if (DAEMON_GONE.has(problem.code)) {
    setConnection('no_daemon', problem.text);
  } else if (current) {
    setConnection('up');
  }
  throw problem;
}

async function readJson(response) {
  try {
    return await response.json();
  } catch {
    return {};
  }
}

/** Sends a request; returns the JSON of the answer. */
export async function call(method, path, options) {
  return (await send(method, path, options)).json();
}

/** The path of a library, with encoded parts below it. */
export const libraryPath = (name, ...parts) =>
  ['/v1/libraries', encodeURIComponent(name), ...parts.map(encodeURIComponent)].join('/');

/** The URL of a stream of this origin, with a ticket if this tab has a key. */
export async function streamUrl(path, parameters) {
  const query = new URLSearchParams(parameters);
  if (key !== null) query.set('ticket', (await call('POST', '/v1/tickets')).ticket);
  return `${path}?${query}`;
}
