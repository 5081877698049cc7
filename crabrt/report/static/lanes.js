// The lanes above the timeline: what is under the pointer, and a way from there to the turn.

function startLanes() {
  const lanes = document.querySelector(".lanes");
  if (!lanes) return;
  const { first, last, said } = told.columns;
  const readout = document.querySelector(".readout");
  const titles = { model: "model", tools: "tools", exposed: "held back", files: "", bytes: "" };
  const plots = [...lanes.querySelectorAll(".lane-plot")];
  const cursors = plots.map((plot) => {
    const cursor = el("div", { class: "cursor", hidden: true });
    plot.append(cursor);
    return cursor;
  });
  lanes.classList.add("lanes-live");
  const columnAt = (event) => {
    const box = plots[0].getBoundingClientRect();
    return Math.max(0, Math.min(first.length - 1, Math.floor(((event.clientX - box.left) / box.width) * first.length)));
  };
  lanes.addEventListener("pointermove", (event) => {
    const inside = event.target.closest(".lane-plot");
    cursors.forEach((cursor) => { cursor.hidden = !inside; });
    if (!inside) return void (readout.textContent = "");
    const at = columnAt(event);
    cursors.forEach((cursor) => { cursor.style.left = `${((at + 0.5) / first.length) * 100}%`; });
    const turns = first[at] === last[at] ? `turn ${first[at]}` : `turns ${first[at]} to ${last[at]}`;
    const words = Object.entries(said).map(([key, values]) => values[at] && `${titles[key]} ${values[at]}`.trim());
    readout.textContent = [turns, ...words.filter(Boolean)].join(" · ");
  });
  lanes.addEventListener("pointerleave", () => {
    cursors.forEach((cursor) => { cursor.hidden = true; });
    readout.textContent = "";
  });
  lanes.addEventListener("click", (event) => {
    if (event.target.closest(".lane-plot")) visit(first[columnAt(event)]);
  });
}
