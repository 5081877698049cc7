// Which turns are wanted: the words of `crab tui`'s filter, and a search through the turns in full.

const FILTER_KEYS = ["verdict", "tool", "path", "label", "is", "text"];
const FILTER_FLAGS = ["unprotected", "failed", "labelled", "pinned", "torn", "thinned", "noted"];
const SLICE_MS = 12;

/** Words apart; quotes keep words together. */
function wordsOf(text) {
  const found = text.match(/(?:[^\s"]|"[^"]*"?)+/g) ?? [];
  return found.map((word) => word.replaceAll('"', ""));
}

/** What somebody typed: {verdict: [...], tool: [...], ..., text: "..."}, in small letters. */
function parseFilter(text) {
  const wanted = Object.fromEntries(FILTER_KEYS.map((key) => [key, []]));
  for (const word of wordsOf(text.toLowerCase())) {
    const colon = word.indexOf(":");
    const key = word.slice(0, Math.max(0, colon));
    if (FILTER_KEYS.includes(key) && word.length > colon + 1) wanted[key].push(word.slice(colon + 1));
    else if (FILTER_FLAGS.includes(word)) wanted.is.push(word);
    else wanted.text.push(word);
  }
  wanted.text = wanted.text.join(" ");
  return wanted;
}

/** Whether a row has all that is wanted, but for text and paths. */
function fits(row, wanted) {
  const verdict = told.signs[row.v][1].split("+");
  return wanted.verdict.every((one) => verdict.includes(one))
    && wanted.tool.every((one) => (row.tl ?? []).some((tool) => tool.toLowerCase().includes(one)))
    && wanted.label.every((one) => (row.l ?? []).some((label) => label.toLowerCase().includes(one)))
    && wanted.is.every((one) => (row.fl ?? []).includes(one));
}

function inRow(row, text) {
  return [...strings([row.w, row.l, row.p, row.e])].some((one) => one.toLowerCase().includes(text));
}

function hasPaths(turn, row, wanted) {
  const changed = (turn.files?.items ?? []).map((file) => file.p);
  const paths = [...changed, ...(row.p ?? [])].map((path) => path.toLowerCase());
  return wanted.path.every((one) => paths.some((path) => path.includes(one)));
}

function hasText(turn, row, wanted) {
  if (!wanted.text || inRow(row, wanted.text)) return true;
  const { facts, ...rest } = turn;
  for (const one of strings(rest)) if (one.toLowerCase().includes(wanted.text)) return true;
  return false;
}

/** Whether a turn may have changed paths that are not in this file. */
function lacksPaths(turn, row) {
  if (["unknown", "cut off"].includes(told.signs[row.v][1])) return true;
  const files = turn.files ?? { more: row.f };
  return Boolean(files.more || files.why);
}

let searching = 0;

/**
 * Places of the rows that are wanted, told as they are found: `show(places, share, missed)`; share 1: done;
 * missed: how many more turns may have changed the paths that are wanted.
 */
function search(text, show) {
  const mine = ++searching;
  const wanted = parseFilter(text);
  const possible = rows.map((row, place) => place).filter((place) => fits(rows[place], wanted));
  if (!wanted.text && !wanted.path.length) return show(possible, 1, 0);
  const candidates = new Set(possible);
  const found = new Set(possible.filter((place) => !wanted.path.length && inRow(rows[place], wanted.text)));
  const ahead = [...blocks()].filter((block) => possible.some(
    (place) => Number(block.dataset.first) <= rows[place].n && rows[place].n <= Number(block.dataset.last)));
  let done = 0, missed = 0;
  const look = (turn) => {
    const place = placeOf.get(turn.n), row = rows[place];
    if (!candidates.has(place) || found.has(place) || !hasText(turn, row, wanted)) return;
    if (hasPaths(turn, row, wanted)) found.add(place);
    else if (lacksPaths(turn, row)) missed += 1;
  };
  const step = () => {
    if (mine !== searching) return;
    const until = performance.now() + SLICE_MS;
    while (done < ahead.length && performance.now() < until) {
      JSON.parse(ahead[done].textContent).forEach(look);
      done += 1;
    }
    show([...found].sort((a, b) => a - b), ahead.length ? done / ahead.length : 1, missed);
    if (done < ahead.length) setTimeout(step);
  };
  step();
}
