// The run's data: rows at once, turns in full when somebody asks for one.

const told = JSON.parse(document.getElementById("rows").textContent);
const rows = told.rows;
const placeOf = new Map(rows.map((row, place) => [row.n, place]));
const marksAfter = Map.groupBy
  ? Map.groupBy(told.marks, (mark) => mark.after)
  : told.marks.reduce((map, mark) => map.set(mark.after, [...(map.get(mark.after) ?? []), mark]), new Map());

/** The elements that hold turns in full, as far as the file has been read. */
function blocks() {
  return document.querySelectorAll("script.turns");
}

const decoded = new Map();
const BLOCKS_KEPT = 4;

/** The turns of a block. The last few blocks stay decoded. */
function turnsOf(block) {
  let turns = decoded.get(block);
  if (!turns) {
    turns = JSON.parse(block.textContent);
    decoded.set(block, turns);
    if (decoded.size > BLOCKS_KEPT) decoded.delete(decoded.keys().next().value);
  }
  return turns;
}

/** A turn in full; null while the file has not been read that far. */
function turnInFull(number) {
  for (const block of blocks()) {
    if (Number(block.dataset.first) <= number && number <= Number(block.dataset.last)) {
      return turnsOf(block).find((turn) => turn.n === number) ?? null;
    }
  }
  return null;
}

/** All strings in a value, with those of its parts. */
function* strings(value) {
  if (typeof value === "string") yield value;
  else if (value && typeof value === "object") {
    for (const part of Object.values(value)) yield* strings(part);
  }
}
