// Single keys are commands while nobody types; they can be turned off in the help.

const THEMES = ["system", "light", "dark"];

function nextTheme() {
  const root = document.documentElement;
  const theme = THEMES[(THEMES.indexOf(root.dataset.theme ?? "system") + 1) % THEMES.length];
  if (theme === "system") delete root.dataset.theme;
  else root.dataset.theme = theme;
  document.getElementById("theme").textContent = `Theme: ${theme}`;
}

function needsAttention(place) {
  return (rows[place].fl ?? []).some((flag) => flag === "unprotected" || flag === "failed" || flag === "torn" || flag === "noted");
}

function nextAttention(step) {
  for (let at = current + step; at >= 0 && at < shown.length; at += step) {
    if (needsAttention(shown[at])) return moveTo(at);
  }
  say("No more turns that need attention");
}

function closeAll() {
  for (const number of [...opened]) toggle(number, false);
}

const KEYS = {
  j: () => moveTo(inTimeline() ? current + 1 : current),
  k: () => moveTo(inTimeline() ? current - 1 : current),
  g: () => moveTo(0),
  G: () => moveTo(shown.length - 1),
  n: () => nextAttention(1),
  p: () => nextAttention(-1),
  x: closeAll,
  t: nextTheme,
  "/": () => document.getElementById("filter").focus(),
  "?": () => document.getElementById("help").showModal(),
};

function inTimeline() {
  return table.contains(document.activeElement);
}

function onKey(event) {
  const help = document.getElementById("help");
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (typing) {
    if (event.key === "Escape" && event.target.id === "filter") moveTo(current);
    return;
  }
  if (event.target.closest?.(".row button") && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    event.preventDefault();
    return moveTo(current + (event.key === "ArrowDown" ? 1 : -1));
  }
  if (!document.getElementById("keys-on").checked) return;
  if (event.key === "Enter" && !event.target.closest?.("a, button, summary") && shown.length) {
    event.preventDefault();
    moveTo(current);
    return visitCurrent();
  }
  const act = KEYS[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
}
