// A patch as lines: signs in the margin, and within a changed line what of it changed.

const LINE_KINDS = { "+": "added", "-": "removed", "@": "hunk", "\\": "note", "#": "note" };
const ALIKE_MOST = 400;

function patchElement(text, label) {
  const body = el("div", { class: "patch-body" });
  const lines = text.split("\n");
  for (let at = 0; at < lines.length;) {
    let removed = at;
    while (lines[removed]?.startsWith("-")) removed += 1;
    let added = removed;
    while (lines[added]?.startsWith("+")) added += 1;
    if (removed > at && removed - at === added - removed) {
      for (let one = at; one < removed; one += 1) body.append(changedLine(lines[one], lines[one + removed - at]));
      for (let one = removed; one < added; one += 1) body.append(changedLine(lines[one], lines[one - (removed - at)]));
      at = added;
    } else {
      const end = Math.max(added, at + 1);
      for (; at < end; at += 1) body.append(lineElement(lines[at]));
    }
  }
  return el("div", { class: "patch", tabindex: "0", role: "region", "aria-label": label }, body);
}

function lineElement(line, ...parts) {
  const kind = LINE_KINDS[line[0]] ?? "context";
  const whole = kind === "hunk" || line[0] === "#";
  return el("div", { class: `line line-${kind}` },
    el("span", { class: "gut" }, whole ? "" : line[0] ?? ""),
    el("span", { class: "txt" }, parts.length ? parts : whole ? line : line.slice(1)));
}

/** A line beside the one it stands for or that stands for it: what differs is marked. */
function changedLine(line, other) {
  const mine = [...line.slice(1)], theirs = [...other.slice(1)];
  if (mine.length > ALIKE_MOST || theirs.length > ALIKE_MOST) return lineElement(line);
  let start = 0;
  while (start < mine.length && mine[start] === theirs[start]) start += 1;
  let end = 0;
  const most = Math.min(mine.length, theirs.length) - start;
  while (end < most && mine[mine.length - 1 - end] === theirs[theirs.length - 1 - end]) end += 1;
  const alike = start + end;
  if (alike < 3 || alike * 3 < mine.length || start + end === mine.length) return lineElement(line);
  return lineElement(line, mine.slice(0, start).join(""),
    el("mark", {}, mine.slice(start, mine.length - end).join("")),
    end ? mine.slice(mine.length - end).join("") : "");
}
