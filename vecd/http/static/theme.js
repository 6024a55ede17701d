// The colour theme: the system's, or the one that the user chose, which this browser keeps.

const THEMES = ['system', 'light', 'dark'];

function chosen() {
  try {
    const stored = localStorage.getItem('vec.theme');
    return THEMES.includes(stored) ? stored : 'system';
  } catch {
    return 'system'; // storage is disabled
  }
}

function apply(theme) {
  if (theme === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const button = document.getElementById('theme-button');
  button.setAttribute('aria-label', `Theme: ${theme}`);
  button.title = `Theme: ${theme}`;
}

/** Switches to the next theme. */
export function nextTheme() {
  const theme = THEMES[(THEMES.indexOf(chosen()) + 1) % THEMES.length];
  try {
    localStorage.setItem('vec.theme', theme);
  } catch {
    // storage is disabled: the theme lasts as long as the page
  }
  apply(theme);
}

apply(chosen());
document.getElementById('theme-button').addEventListener('click', nextTheme);
