// Everything is put together here, and begins.

const filterBox = document.getElementById("filter");

function rememberPlace(number) {
  try {
    history.replaceState(null, "", `#turn-${number}`);
  } catch {
    // a page without an address of its own (a preview in a mail) has no place to remember
  }
}

function visit(number) {
  if (!goTo(number)) {
    filterBox.value = "";
    applyFilter();
    goTo(number);
  }
  rememberPlace(number);
}

function visitCurrent() {
  const number = rows[shown[current]].n;
  toggle(number);
  if (opened.has(number)) rememberPlace(number);
}

function applyFilter() {
  const text = filterBox.value.trim();
  const told_ = document.getElementById("filter-said");
  drawChips();
  search(text, (places, share, missed) => {
    const same = places.length === shown.length && places.every((place, at) => place === shown[at]);
    if (!same) {
      shown = places;
      current = 0;
      drawRows();
    }
    const found = text ? `${counted(places.length, "turn")} of ${rows.length.toLocaleString("en")}` : "";
    const words = missed ? `${found}; ${counted(missed, "turn")} may have changed paths that are not in this file` : found;
    told_.textContent = share < 1 ? `${words}, looking … ${Math.floor(share * 100)} %` : words;
    if (share === 1 && text) say(words);
  });
}

const CHIPS = [
  ["verdict:files", "F files"], ["verdict:processes", "P processes"], ["verdict:external", "X external"],
  ["unprotected", "✗ unprotected"], ["failed", "✗ failed"], ["labelled", "labelled"], ["noted", "! noted"],
];

function drawChips() {
  const group = document.getElementById("chips");
  const words = wordsOf(filterBox.value);
  const kept = group.querySelectorAll("button");
  if (kept.length) {
    for (const button of kept) button.setAttribute("aria-pressed", String(words.includes(button.dataset.word)));
    return;
  }
  for (const [word, title] of CHIPS) {
    const count = rows.filter((row) => fits(row, parseFilter(word))).length;
    if (!count) continue;
    const button = el("button", { type: "button", "aria-pressed": "false", "data-word": word },
      title, el("span", { class: "count" }, count.toLocaleString("en")));
    button.addEventListener("click", () => {
      const now = wordsOf(filterBox.value);
      const next = now.includes(word) ? now.filter((one) => one !== word) : [...now, word];
      filterBox.value = next.map((one) => (/\s/.test(one) ? `"${one}"` : one)).join(" ");
      applyFilter();
    });
    group.append(button);
  }
}

function followAddress() {
  const found = /^#turn-(\d{1,9})$/.exec(location.hash);
  if (found && placeOf.has(Number(found[1]))) visit(Number(found[1]));
}

function onClick(event) {
  const link = event.target.closest("a[href^='#turn-']");
  if (link) {
    event.preventDefault();
    return visit(Number(link.hash.slice("#turn-".length)));
  }
  const row = event.target.closest(".row");
  if (!row || (getSelection().type === "Range" && getSelection().containsNode(row, true))) return;
  moveTo(Number(row.dataset.at));
  visitCurrent();
}

function start() {
  for (const id of ["tools", "filter-form"]) document.getElementById(id).hidden = false;
  drawTable();
  drawChips();
  startLanes();
  let pause = 0;
  filterBox.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(applyFilter, 120);
  });
  document.getElementById("filter-form").addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(pause);
    applyFilter();
    moveTo(0);
  });
  document.getElementById("theme").addEventListener("click", nextTheme);
  document.getElementById("help-open").addEventListener("click", KEYS["?"]);
  document.addEventListener("click", onClick);
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", followAddress);
  addEventListener("beforeprint", () => shown.length <= 3000 && chunks.forEach(fill));
  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", () => {
      for (const number of opened) toggle(number, true);
      if (filterBox.value) applyFilter();
      followAddress();
    });
  } else followAddress();
}

start();
