// Marks the words of a query in a text. An approximation of the daemon's full-text search: case and diacritics are
// ignored, word endings are compared loosely, and scripts without spaces are compared by pairs of characters.

import { h } from './dom.js';

const TOKEN = /[\p{L}\p{N}\p{M}'’]+|\p{Extended_Pictographic}/gu;
const UNSPACED = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]/u;
const ENDINGS = /(?:ations?|ings?|edly|ed|ies|es|ers?|ly|s)$/;

// Marked only where the query has no other words: they are in every text.
const COMMON = new Set('a an and are as at be by for from in is it of on or that the this to was with'.split(' '));

const fold = (word) =>
  word.normalize('NFKD').replace(/\p{M}+/gu, '').toLowerCase().replaceAll('ß', 'ss').replace(/['’]s?$/, '');

function stem(word) {
  if (/\p{N}/u.test(word)) return word;
  const short = word.replace(ENDINGS, '');
  return (short.length >= 3 ? short : word).replace(/[ey]$/, '').replace(/(.)\1$/, '$1');
}

/** A function that says which parts of a text a query names: `find(text)` returns [start, end) pairs, in order. */
export function matcher(query) {
  const stems = new Set();
  const prefixes = [];
  const pairs = new Set();
  const tokens = [...query.matchAll(TOKEN)];
  const rare = tokens.filter(({ 0: token }) => !COMMON.has(token.toLowerCase()));
  for (const { 0: token, index } of rare.length ? rare : tokens) {
    const word = fold(token);
    if (UNSPACED.test(token)) addPairs(token, pairs);
    else if (query[index + token.length] === '*') prefixes.push(word);
    else if (word) stems.add(stem(word));
    else stems.add(token);
  }
  return (text) => {
    const found = [];
    for (const { 0: token, index } of text.matchAll(TOKEN)) {
      if (UNSPACED.test(token)) found.push(...findPairs(token, index, pairs));
      else {
        const word = fold(token);
        if (stems.has(word ? stem(word) : token) || (word && prefixes.some((prefix) => word.startsWith(prefix)))) {
          found.push([index, index + token.length]);
        }
      }
    }
    return found;
  };
}

function addPairs(token, pairs) {
  const letters = [...token];
  if (letters.length === 1) pairs.add(token);
  for (let at = 0; at + 1 < letters.length; at += 1) pairs.add(letters[at] + letters[at + 1]);
}

function findPairs(token, offset, pairs) {
  const found = [];
  const letters = [...token];
  let at = offset;
  letters.forEach((letter, number) => {
    const pair = letter + (letters[number + 1] ?? '');
    const length = pairs.has(pair) && letters[number + 1] ? pair.length : pairs.has(letter) ? letter.length : 0;
    if (length) {
      const last = found.at(-1);
      if (last && last[1] >= at) last[1] = at + length;
      else found.push([at, at + length]);
    }
    at += letter.length;
  });
  return found;
}

/** The text as nodes, with the matches in <mark>. */
export function marked(text, find) {
  const nodes = [];
  let at = 0;
  for (const [start, end] of find(text)) {
    if (start > at) nodes.push(text.slice(at, start));
    nodes.push(h('mark', {}, text.slice(start, end)));
    at = end;
  }
  if (at < text.length) nodes.push(text.slice(at));
  return nodes;
}

/** The part of a text of up to about `chars` characters that has the most matches; true if it is all of it. */
export function excerpt(text, find, chars) {
  if (text.length <= chars) return { text, whole: true };
  const starts = find(text).map(([start]) => start);
  let best = 0;
  let most = 0;
  starts.forEach((start, number) => {
    let inside = number;
    while (inside < starts.length && starts[inside] < start + chars * 0.7) inside += 1;
    if (inside - number > most) {
      most = inside - number;
      best = start;
    }
  });
  let from = Math.max(0, Math.min(best - Math.round(chars * 0.15), text.length - chars));
  if (from > 0) {
    const space = text.slice(from, from + 40).search(/\s/);
    if (space >= 0) from += space + 1;
  }
  let to = Math.min(text.length, from + chars);
  const unpaired = (at) => /[\udc00-\udfff]/.test(text[at] ?? '');
  if (unpaired(from)) from += 1;
  if (unpaired(to)) to -= 1;
  return { text: `${from > 0 ? '… ' : ''}${text.slice(from, to).trim()}${to < text.length ? ' …' : ''}`, whole: false };
}
