// What the parts of the page share: the libraries, the chosen one, and the news that something changed.

/** Events: `libraries` (the list changed), `library` (another was chosen), `changed` (the feed had an event: its detail). */
export const state = new EventTarget();
state.libraries = null; // null until the first answer
state.library = null;

try {
  state.library = sessionStorage.getItem('vec.library');
} catch {
  // storage is disabled
}

const tell = (type, detail) => state.dispatchEvent(new CustomEvent(type, { detail }));

export function setLibraries(libraries) {
  state.libraries = libraries;
  const names = libraries.map((each) => each.name);
  if (!names.includes(state.library)) choose(names.includes('default') ? 'default' : names[0] ?? null);
  tell('libraries');
}

/** Chooses the library that is searched and written. */
export function choose(name) {
  if (name === state.library) return;
  state.library = name;
  try {
    if (name !== null) sessionStorage.setItem('vec.library', name);
  } catch {
    // storage is disabled
  }
  tell('library');
}

/** The chosen library, as the gateway describes it; undefined if there is none. */
export const current = () => state.libraries?.find((each) => each.name === state.library);

export const announce = (event) => tell('changed', event);
