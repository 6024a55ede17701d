// Jobs: the newest ones, with progress and buttons. The feed announces changes; progress is asked for while a job runs.

import { call, connection } from './api.js';
import { byId, h, say, throttled } from './dom.js';
import { ago, count, seconds } from './format.js';
import { state } from './state.js';

const JOBS_MAX = 12;
const RUNNING_MS = 700;
const IDLE_MS = 10_000;
const BUTTONS = {
  pending: [['Cancel', 'cancel']],
  running: [['Cancel', 'cancel']],
  failed: [['Retry', 'retry'], ['Remove', 'drop']],
  dead: [['Retry', 'retry'], ['Remove', 'drop']],
  cancelled: [['Retry', 'retry'], ['Remove', 'drop']],
  completed: [['Remove', 'drop']],
};

const list = byId('job-list');
const rows = new Map(); // job id -> its element and what it shows
let timer = null;
let asked = 0;

export async function refresh() {
  clearTimeout(timer);
  const number = ++asked;
  let active = false;
  try {
    const { jobs } = await call('GET', `/v1/jobs?limit=${JOBS_MAX}`);
    if (number !== asked) return;
    active = jobs.some((job) => job.status === 'running' || job.status === 'pending');
    show(jobs);
  } catch (problem) {
    if (number !== asked) return;
    if (problem.status === 403) say(byId('jobs-status'), 'Not allowed');
  }
  timer = setTimeout(() => (document.hidden ? null : refresh()), active ? RUNNING_MS : IDLE_MS);
}

const soon = throttled(refresh, 250);

function show(jobs) {
  const running = jobs.filter((job) => job.status === 'running').length;
  const pending = jobs.filter((job) => job.status === 'pending').length;
  say(byId('jobs-status'), [running && `${running} running`, pending && `${pending} pending`].filter(Boolean).join(' · '));
  byId('jobs-empty').hidden = jobs.length > 0;
  const ids = new Set(jobs.map((job) => job.job_id));
  for (const [id, { element }] of rows) {
    if (!ids.has(id)) {
      element.remove();
      rows.delete(id);
    }
  }
  jobs.forEach((job, place) => {
    let row = rows.get(job.job_id);
    if (!row) {
      row = { element: h('li', { 'data-job': job.job_id }), text: '' };
      rows.set(job.job_id, row);
    }
    fill(row, job);
    if (list.children[place] !== row.element) list.insertBefore(row.element, list.children[place] ?? null);
  });
}

function fill(row, job) {
  const buttons = `${job.status}`;
  const progress = job.status === 'running' || job.status === 'pending' ? job.progress : null;
  if (row.buttons !== buttons) { // otherwise a button keeps the focus, and its state
    row.buttons = buttons;
    row.element.dataset.status = job.status;
    row.note = h('p', { class: 'note', dir: 'auto' });
    row.meter = h('progress', { max: '1', 'aria-label': `Progress of ${job.kind} ${job.job_id}` });
    row.element.replaceChildren(
      h('div', { class: 'line' },
        h('span', { class: 'badge' }, job.status),
        h('span', { class: 'kind' }, job.kind),
        h('span', { class: 'of' }, `#${job.job_id}${job.library ? ` · ${job.library}` : ''}`),
        h('span', { class: 'spacer' }),
        BUTTONS[job.status].map(([label, action]) =>
          h('button', { class: 'small', type: 'button', 'aria-label': `${label} job ${job.job_id}`, onclick: (event) => act(event.currentTarget, row, job.job_id, action) }, label))),
      row.meter, row.note);
  }
  row.meter.hidden = job.status !== 'running';
  if (progress?.total) row.meter.value = Math.min(1, progress.done / progress.total);
  else row.meter.removeAttribute('value');
  say(row.note, note(job, progress));
}

function note(job, progress) {
  if (progress) {
    const parts = [progress.total ? `${count(progress.done)} of ${count(progress.total)} ${progress.unit}` : `${count(progress.done)} ${progress.unit}`];
    if (progress.rate) parts.push(`${count(Math.round(progress.rate))}/s`);
    if (progress.left_s !== null) parts.push(`${seconds(progress.left_s)} left`);
    return parts.join(' · ');
  }
  const parts = [];
  if (job.error) parts.push(job.error.message);
  else if (job.result) parts.push(result(job.result));
  if (job.completed_at) parts.push(ago(job.completed_at));
  return parts.filter(Boolean).join(' · ');
}

/** The numbers of a result that are not 0, and its short texts. */
function result(map) {
  return Object.entries(map)
    .filter(([name, value]) => name !== 'seq' && (typeof value === 'number' ? value !== 0 : typeof value === 'string' && value.length < 60))
    .slice(0, 4)
    .map(([name, value]) => `${name.replaceAll('_', ' ')} ${typeof value === 'number' ? count(value) : value}`)
    .join(', ');
}

async function act(button, row, id, action) {
  button.disabled = true;
  try {
    if (action === 'drop') await call('DELETE', `/v1/jobs/${id}`);
    else await call('POST', `/v1/jobs/${id}/${action}`);
  } catch (problem) {
    say(row.note, problem.text);
    button.disabled = false;
    return;
  }
  refresh();
}

export function start() {
  state.addEventListener('changed', ({ detail }) => {
    if (detail.type.startsWith('job.')) soon();
  });
  connection.addEventListener('change', () => {
    if (connection.state === 'up') soon();
  });
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden) refresh();
  });
  refresh();
}
