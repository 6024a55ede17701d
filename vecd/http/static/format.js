// Numbers, sizes and times for people.

const number = new Intl.NumberFormat('en');

export const count = (value) => number.format(value);

/** `1 document`, `2 documents`. */
export const plural = (value, noun) => `${count(value)} ${noun}${value === 1 ? '' : 's'}`;

export function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

export function seconds(value) {
  if (value < 10 && !Number.isInteger(value)) return `${value.toFixed(1)} s`;
  if (value < 120) return `${Math.round(value)} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  return `${Math.round(value / 3600)} h`;
}

/** A score, with as many decimals as tell hits apart. */
export const score = (value) => (Math.abs(value) >= 10 ? value.toFixed(2) : value.toFixed(3));

const two = (value) => String(value).padStart(2, '0');

/** The local time of day. */
export function clock(rfc3339) {
  const time = new Date(rfc3339);
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

export function ago(rfc3339) {
  const age = (Date.now() - new Date(rfc3339)) / 1000;
  return age < 5 ? 'now' : `${seconds(Math.round(age))} ago`;
}
