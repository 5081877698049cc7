// The timeline: rows in chunks, of which only those near the window are in the document.

const CHUNK = 80;
const KEEP_ALL = 600; // so many rows stay in the document, for the browser's own search
const HEADS = [
  ["turn", "Turn"], ["verdict", "Verdict"], ["what", "First call"], ["bar", ""], ["held", "Held back"],
  ["files", "Files"], ["stored", "Stored"], ["tokens", "Tokens"], ["cost", "Cost"], ["check", "Checkpoint"],
];

const table = document.getElementById("table");
const opened = new Set(); // numbers of turns
const near = new IntersectionObserver(onScroll, { rootMargin: "1600px 0px" });
let shown = rows.map((row, place) => place);
let chunks = [];
let current = 0; // a place among `shown`
let body = null;

function milliseconds(amount) {
  if (amount < 1000) return `${Math.round(amount)} ms`;
  if (amount < 60000) return `${+(amount / 1000).toFixed(1)} s`;
  return `${+(amount / 60000).toFixed(1)} min`;
}

function drawTable() {
  const tokens = rows.some((row) => row.tk || row.usd);
  const heads = HEADS.map(([key, word]) => el("div", { class: `c-${key}`, role: "columnheader" }, key === "bar" ? scaleHead() : word));
  body = el("div", { role: "presentation" });
  table.replaceChildren(
    el("p", { class: "key", "aria-hidden": "true" },
      el("span", {}, sample("span-model"), "waiting for the model"),
      el("span", {}, sample("span-tool"), "a tool at work"),
      el("span", {}, sample("span-failed"), "failed"),
      el("span", {}, "‖ the loop was held back"),
      el("span", {}, "● durable  ○ inherited: nothing changed  ✗ unprotected")),
    el("div", { class: tokens ? "grid" : "grid no-tokens", role: "table", "aria-labelledby": "h-timeline", "aria-rowcount": shown.length + 1 },
      el("div", { role: "rowgroup" }, el("div", { class: "heads", role: "row", "aria-rowindex": 1 }, heads)), body));
  drawRows();
}

function sample(kind) {
  const thin = kind === "span-tool" ? [2, 6] : kind === "span-failed" ? [0, 10] : [1, 8];
  return drawn("svg", { viewBox: "0 0 22 10", "aria-hidden": "true" }, drawn("rect", { x: 1, y: thin[0], width: 20, height: thin[1], class: kind }));
}

function scaleHead() {
  const parts = [el("span", { class: "unseen" }, "Model and tools over time")];
  for (let at = 0; at <= told.scale * 0.86; at += told.step) {
    const mark = el("span", { "aria-hidden": "true" }, at ? milliseconds(at) : "0");
    mark.style.left = `${(at / told.scale) * 100}%`;
    parts.push(mark);
  }
  return parts;
}

function drawRows() {
  near.disconnect();
  chunks = [];
  table.querySelector("[role=table]").setAttribute("aria-rowcount", shown.length + 1);
  for (let at = 0; at < shown.length; at += CHUNK) {
    const box = el("div", { role: "rowgroup" });
    const chunk = { box, at, end: Math.min(at + CHUNK, shown.length), full: false };
    box.chunk = chunk;
    chunks.push(chunk);
  }
  body.replaceChildren(...chunks.map((chunk) => chunk.box));
  if (!shown.length) body.append(el("p", { class: "empty" }, "No turn is like that."));
  if (shown.length <= KEEP_ALL) chunks.forEach(fill);
  else {
    const height = estimate();
    for (const chunk of chunks) {
      chunk.box.style.height = `${height * (chunk.end - chunk.at)}px`;
      near.observe(chunk.box);
    }
    if (chunks.length) fill(chunks[0]);
  }
}

function estimate() {
  return matchMedia("(max-width: 56rem)").matches ? 61 : 32;
}

function onScroll(entries) {
  for (const entry of entries) {
    const chunk = entry.target.chunk;
    if (entry.isIntersecting) fill(chunk);
    else if (chunk.full && !chunk.box.contains(document.activeElement)) {
      const height = chunk.box.getBoundingClientRect().height;
      chunk.box.replaceChildren();
      chunk.box.style.height = `${height}px`;
      chunk.full = false;
    }
  }
}

function fill(chunk) {
  if (chunk.full) return;
  const made = [];
  for (let at = chunk.at; at < chunk.end; at += 1) made.push(...lines(at));
  chunk.box.replaceChildren(...made);
  chunk.box.style.height = "";
  chunk.full = true;
}

/** The row at a place among those shown, what stands behind it, and the turn if it is open. */
function lines(at) {
  const row = rows[shown[at]];
  const found = [rowElement(row, at)];
  if (opened.has(row.n)) found.push(turnLine(row.n));
  if (shown.length === rows.length) found.push(...(marksAfter.get(row.n) ?? []).map(markElement));
  return found;
}

function turnLine(number) {
  const cell = el("div", { role: "cell", "aria-colspan": HEADS.length }, turnElement(number, `h-turn-${number}`));
  return el("div", { role: "row", class: "turn-line", "data-turn": number }, cell);
}

function markElement(mark) {
  const to = mark.to == null ? "" : ` to turn ${mark.to}`;
  const cell = el("div", { class: `mark tone-${mark.sign[2]}`, role: "cell", "aria-colspan": HEADS.length },
    el("b", {}, `${mark.sign[0]} ${mark.sign[1]}${to}`), mark.text && el("bdi", {}, mark.text), el("span", { class: "quiet" }, mark.at));
  return el("div", { role: "row" }, cell);
}

function rowElement(row, at) {
  const verdict = told.signs[row.v], check = told.signs[row.c];
  const open = opened.has(row.n);
  const words = [`Turn ${row.n}`, verdict[1], row.w?.join(" "), check[1]].filter(Boolean).join(", ");
  const button = el("button", {
    type: "button", "aria-expanded": String(open), "aria-controls": `turn-${row.n}`, "aria-label": words,
    tabindex: at === current ? "0" : "-1",
  }, String(row.n));
  const cell = (key, extra, ...children) => el("div", { class: `c-${key} ${extra}`.trim(), role: "cell" }, children);
  return el("div", { class: open ? "row open" : "row", role: "row", "aria-rowindex": at + 2, "data-at": at, "data-turn": row.n },
    cell("turn", "", button), cell("verdict", "", signElement(verdict)), whatCell(row, cell), cell("bar", "", barElement(row)),
    cell("held", row.xx ? "long" : "", row.x), cell("files", "", filesCell(row)), cell("stored", "", row.s),
    cell("tokens", "", row.tk), cell("cost", "", row.usd), cell("check", "", signElement(check)));
}

function whatCell(row, cell) {
  const flags = (row.fl ?? []).filter((flag) => flag === "failed" || flag === "pinned" || flag === "noted");
  const words = { failed: "✗ failed", pinned: "⚑ pinned", noted: "! note" };
  return cell("what", "",
    (row.l ?? []).map((label) => el("span", { class: "label" }, label)),
    flags.map((flag) => el("span", { class: `flag tone-${flag === "failed" ? "bad" : "warning"}` }, words[flag])),
    row.e && !told.signs[row.v][1].includes("external")
      && el("span", { class: "flag tone-external", title: row.e.join(", ") },
        row.e.every((one) => one.endsWith("?")) ? "? likely external" : "X external"),
    row.b != null && el("span", { class: "flag tone-warning" }, `↶ from turn ${row.b}`),
    row.w ? [el("b", {}, row.w[0]), el("code", {}, row.w[1])] : el("span", { class: "quiet" }, row.n === 0 ? "as the run found it" : row.m ? "no tool" : ""),
    row.k > 0 && el("span", { class: "more" }, `+${row.k}`));
}

function filesCell(row) {
  const [added, changed, removed] = row.f ?? [0, 0, 0];
  return [
    added > 0 && el("span", { class: "plus" }, `+${added}`),
    changed > 0 && el("span", {}, `~${changed}`),
    removed > 0 && el("span", { class: "minus" }, `−${removed}`),
  ];
}

/** The calls of a turn on the common scale: a model hollow and tall, a tool solid and thin. */
function barElement(row) {
  const width = 1000, spans = row.sp ?? [], x = (ms) => (ms / told.scale) * width;
  const picture = drawn("svg", { viewBox: `0 0 ${width} 14`, preserveAspectRatio: "none", role: "img", "aria-label": [row.m && `model ${row.m}`, row.t && `tools ${row.t}`].filter(Boolean).join(", ") || "no calls" });
  for (let at = told.step; at <= told.scale; at += told.step) picture.append(drawn("line", { x1: x(at), x2: x(at), y1: 0, y2: 14, class: "tick" }));
  let beyond = false;
  for (let at = 0; at < spans.length; at += 3) {
    const [kind, start, length] = spans.slice(at, at + 3);
    const left = Math.min(x(start), width - 4), right = Math.min(x(start + length), width);
    beyond ||= x(start + length) > width * 1.001;
    const model = kind & 1, failed = kind & 2, open = kind & 4;
    const [y, height] = failed ? [1, 12] : model ? [3, 8] : [4.5, 5];
    picture.append(drawn("rect", { x: left, y, width: Math.max(right - left, 3), height, class: open ? "span-open" : failed ? "span-failed" : model ? "span-model" : "span-tool" }));
  }
  if (beyond) picture.append(drawn("path", { d: `M${width - 40} 14l12 -14h10l-12 14z`, class: "torn-end" }));
  return picture;
}

// -- opening, moving ------------------------------------------------------------------------

function rowOf(number) {
  return body.querySelector(`.row[data-turn="${number}"]`);
}

function chunkAt(at) {
  return chunks[Math.floor(at / CHUNK)];
}

function toggle(number, open = !opened.has(number)) {
  if (open) opened.add(number);
  else opened.delete(number);
  const row = rowOf(number);
  if (!row) return;
  row.classList.toggle("open", open);
  row.querySelector("button").setAttribute("aria-expanded", String(open));
  body.querySelector(`.turn-line[data-turn="${number}"]`)?.remove();
  if (open) row.after(turnLine(number));
}

/** Make the row at a place among those shown the current one, and bring it into view. */
function moveTo(at, { focus = true } = {}) {
  if (!shown.length) return;
  const before = body.querySelector(`.row[data-at="${current}"] button`);
  current = Math.max(0, Math.min(at, shown.length - 1));
  fill(chunkAt(current));
  if (before) before.tabIndex = -1;
  const button = body.querySelector(`.row[data-at="${current}"] button`);
  button.tabIndex = 0;
  button.closest(".row").scrollIntoView({ block: "nearest" });
  if (focus) button.focus({ preventScroll: true });
}

/** Open a turn and go there; false if it is not shown. */
function goTo(number) {
  const at = shown.indexOf(placeOf.get(number));
  if (at < 0) return false;
  moveTo(at);
  toggle(number, true);
  rowOf(number).scrollIntoView({ block: "start" });
  return true;
}
