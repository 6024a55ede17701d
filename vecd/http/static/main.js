// Starts the parts of the page; the connection's state, signing in, and the keyboard.

import { call, connection, setConnection, setKey, signedIn } from './api.js';
import { byId, openDialog, say } from './dom.js';
import * as feed from './feed.js';
import * as ingest from './ingest.js';
import * as jobs from './jobs.js';
import * as libraries from './libraries.js';
import * as search from './search.js';
import { state } from './state.js';
import { nextTheme } from './theme.js';

const LOOK_MS = 2000; // while the gateway or its daemon is away

// --- the connection ---

const STATES = {
  connecting: ['Connecting', ''],
  up: ['Connected', ''],
  down: ['Reconnecting', 'The gateway does not answer. Trying again; nothing is lost.'],
  no_daemon: ['No daemon', ''],
  unauthorized: ['Signed out', ''],
};
let looking = null;

function showConnection() {
  const [label, text] = STATES[connection.state];
  const badge = byId('connection');
  badge.dataset.state = connection.state;
  say(badge, label);
  const banner = byId('banner');
  say(banner, text || connection.detail);
  banner.hidden = !banner.textContent || connection.state === 'up';
  if (connection.state === 'unauthorized') askForKey();
  clearInterval(looking);
  if (connection.state === 'down' || connection.state === 'no_daemon') looking = setInterval(look, LOOK_MS);
}

/** Asks for something small; the answer sets the state of the connection. */
async function look() {
  await libraries.refresh();
}

// --- the key ---

function showKey() {
  byId('key-button').textContent = signedIn() ? 'Sign out' : 'Sign in';
}

function askForKey() {
  openDialog(byId('key-dialog'));
}

async function signIn(event) {
  event.preventDefault();
  const key = byId('key').value.trim();
  say(byId('key-error'), '');
  try {
    await call('GET', '/v1/libraries', { withKey: key });
  } catch (problem) {
    say(byId('key-error'), problem.text ?? problem.message);
    byId('key').select();
    return;
  }
  setKey(key);
  byId('key').value = '';
  byId('key-dialog').close();
  showKey();
  setConnection('up');
  refreshAll();
}

function signOut() {
  setKey(null);
  showKey();
  location.reload(); // nothing that the key showed remains
}

function refreshAll() {
  libraries.refresh();
  jobs.refresh();
  feed.reopen();
}

// --- the keyboard ---

const KEYS = {
  '/': () => {
    byId('query').focus();
    byId('query').select();
  },
  a: () => byId('add-text').focus(),
  l: () => byId('library').focus(),
  p: () => feed.togglePause(),
  t: () => nextTheme(),
  '?': () => openDialog(byId('help-dialog')),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
  const typing = event.target.closest?.('input:not([type=checkbox]), textarea, select');
  if (event.key === 'Escape' && (!typing || event.target.id !== 'query')) byId('query').focus();
  if (typing) return;
  const action = KEYS[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

connection.addEventListener('change', showConnection);
byId('key-button').addEventListener('click', () => (signedIn() ? signOut() : askForKey()));
byId('key-form').addEventListener('submit', signIn);
byId('help-button').addEventListener('click', () => openDialog(byId('help-dialog')));
document.addEventListener('keydown', onKey);
state.addEventListener('library', () => {
  document.title = state.library === null ? 'vec' : `${state.library} · vec`;
});
if (state.library !== null) document.title = `${state.library} · vec`;
showKey();

search.start();
ingest.start();
await libraries.start();
feed.start();
jobs.start();
