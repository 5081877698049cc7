// A turn in full: what it did and why, what was said and called, what changed, what stayed alive.

/** A text that may be cut, left out or unreadable, and what there is to say of the rest of it. */
function textElements(text, number, { prose = false, label = "text" } = {}) {
  if (text == null || text === "") return [];
  if (typeof text === "string") return [block(text, prose, label)];
  if ("out" in text) return [goneElement(`${text.out.toLocaleString("en")} ${text.unit} redacted`)];
  if ("bad" in text) return [el("p", { class: "unreadable" }, `cannot be read: ${text.bad}`)];
  return [block(text.x, prose, label), restElement(text, `crab show ${told.run}@${number} --full`)];
}

function block(text, prose, label) {
  const long = text.length > 1500 || text.split("\n").length > 20;
  const reach = long ? { tabindex: "0", role: "region", "aria-label": label } : {};
  return el("pre", { class: prose ? "text prose" : "text", dir: "auto", ...reach }, text);
}

function goneElement(what) {
  return el("span", { class: "gone" }, el("span", {}, what));
}

function restElement(text, command) {
  return el("p", { class: "rest" }, `… ${text.more.toLocaleString("en")} more ${text.unit}: `, el("code", {}, command));
}

function turnElement(number, heading) {
  const turn = turnInFull(number);
  const place = placeOf.get(number);
  const box = el("div", { class: "turn", id: `turn-${number}`, role: "region", "aria-labelledby": heading });
  box.append(el("h3", { id: heading }, `Turn ${number}`, place === 0 && number === 0 ? ": as the run found it" : ""));
  if (!turn) {
    box.append(el("p", { class: "quiet" }, "This part of the file has not been read yet."));
    return box;
  }
  box.append(aboutElement(turn, number));
  const columns = el("div", { class: "turn-cols" });
  const talk = (turn.calls ?? []).map((call) => callElement(call, number));
  if (talk.length) columns.append(el("div", {}, el("h4", {}, "What was said and done"), talk));
  const left = [filesElement(turn.files, number), aliveElement(turn.alive)].filter(Boolean);
  if (left.length) columns.append(el("div", {}, left));
  box.append(columns);
  if (turn.cut) {
    box.append(el("p", { class: "rest" }, "Told shorter, so that the file stays small. All of it: ",
      el("code", {}, `crab show ${told.run}@${number} --full`)));
  }
  return box;
}

function aboutElement(turn, number) {
  const facts = el("dl", { class: "facts" });
  for (const [word, value] of turn.facts) facts.append(el("dt", {}, word), el("dd", {}, value));
  const parts = [];
  if (turn.why?.length) {
    parts.push(el("h4", {}, "Why this verdict"), el("ul", { class: "why" }, turn.why.map((one) => el("li", {}, el("bdi", {}, one)))));
  }
  if (turn.bad?.length) {
    parts.push(el("ul", { class: "attention", "aria-label": "To be read" },
      turn.bad.map(([kind, text]) => el("li", {}, el("b", {}, kind), el("bdi", {}, text)))));
  }
  const at = `${told.run}@${number}`;
  const commands = [`crab show ${at}`, `crab diff ${at}`, `crab restore ${at} --dry-run`];
  parts.push(el("ul", { class: "commands", "aria-label": "Commands to copy" },
    commands.map((one) => el("li", {}, copyButton(one)))));
  return el("div", { class: "turn-cols" }, facts, el("div", { class: "about" }, parts));
}

function copyButton(command) {
  const button = el("button", { type: "button", "aria-label": `Copy: ${command}` }, command);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command);
      button.classList.add("copied");
      say("Copied");
    } catch {
      getSelection().selectAllChildren(button);
      say("Selected");
    }
  });
  return button;
}

function callElement(call, number) {
  if (call.k === "more") return el("p", { class: "rest" }, `… ${call.name} more calls`);
  if (call.k === "unreadable") return el("div", { class: "call" }, call.name && el("b", {}, call.name), textElements(call.out, number));
  return call.k === "model" ? modelElement(call, number) : toolElement(call, number);
}

function stateElement(call) {
  return call.state && el("span", { class: call.state === "raised" ? "tone-bad" : "tone-warning" },
    call.state === "raised" ? `✗ raised ${call.raised ?? ""}` : call.state === "no result" ? "✗ no result: it was cut off" : call.state);
}

function saidElement(who, elements) {
  return elements.length ? el("div", { class: "said" }, el("span", { class: "who" }, who), el("div", {}, elements)) : null;
}

function modelElement(call, number) {
  const took = [call.took, call.tokens && `${call.tokens} tokens`, call.usd].filter(Boolean).join(" · ");
  return el("div", { class: "call call-model" },
    el("p", { class: "call-head" }, el("b", {}, "model"), el("code", {}, call.name),
      el("span", { class: "took" }, took), stateElement(call)),
    call.more > 0 && el("p", { class: "rest" }, `${call.more} earlier messages: crab show ${told.run}@${number} --full`),
    (call.messages ?? []).map(([role, text]) => saidElement(role || "message", textElements(text, number, { prose: true, label: `message of ${role}` }))),
    saidElement("reply", textElements(call.out, number, { prose: true, label: "reply" })));
}

function toolElement(call, number) {
  const notes = [
    call.external && `external: ${call.external}. A restore cannot take it back.`,
    call.prior && call.prior !== "external" && `declared: ${call.prior}`,
    call.guess && `taken for: ${call.guess}`,
  ].filter(Boolean);
  return el("div", { class: "call call-tool" },
    el("p", { class: "call-head" }, el("b", {}, call.name), !call.args && el("code", {}, call.title),
      el("span", { class: "took" }, call.took), stateElement(call)),
    notes.map((note) => el("p", { class: "call-note" }, note)),
    saidElement("in", textElements(call.args, number, { label: `what ${call.name} was called with` })),
    saidElement(call.state === "raised" ? "said" : "out", textElements(call.out, number, { label: `output of ${call.name}` })));
}

function filesElement(files, number) {
  if (!files || (!files.items?.length && !files.why)) return null;
  const count = files.items?.length ?? 0;
  const title = files.why ? "What changed in the files" : `What changed: ${files.more ? "more than " : ""}${counted(count, "path")}`;
  const small = (files.items ?? []).reduce((sum, file) => sum + (file.patch?.length ?? 0), 0) < 6000;
  return el("div", {}, el("h4", {}, title), files.why && el("p", { class: "quiet" }, files.why),
    (files.items ?? []).map((file) => fileElement(file, number, small)),
    files.more && el("p", { class: "rest" }, "… and more: ", el("code", {}, `crab show ${told.run}@${number} --full`)));
}

/** The turn on whose state a turn began: what it changed is told against that. */
function baseOf(number) {
  return rows[placeOf.get(number)].b ?? Math.max(0, number - 1);
}

function fileElement(file, number, open) {
  const sign = { "+": "plus", "-": "minus", "~": "tilde" }[file.s];
  const word = { "+": "added", "-": "removed", "~": "changed" }[file.s];
  const head = [
    el("span", { class: `sign sign-${sign}`, title: word, "aria-label": word, role: "img" }, file.s === "-" ? "−" : file.s),
    el("code", {}, file.p),
    el("span", { class: "how" }, [file.how, file.size, file.note].filter(Boolean).join(" · ")),
  ];
  if (!file.patch) return el("div", { class: "file" }, el("div", { class: "file-head" }, head));
  const box = el("details", { class: "file" }, el("summary", {}, head));
  const fill = () => {
    if (box.childElementCount > 1) return;
    const cut = typeof file.patch !== "string";
    box.append(patchElement(cut ? file.patch.x : file.patch, `changes of ${file.p}`));
    if (cut) box.append(restElement(file.patch, `crab diff ${told.run}@${baseOf(number)} ${told.run}@${number}`));
  };
  box.addEventListener("toggle", () => box.open && fill());
  if (open) {
    fill();
    box.open = true;
  }
  return box;
}

function aliveElement(alive) {
  if (!alive?.length) return null;
  const held = (one) => [
    ...(one.held ?? []).map(([verb, items]) => el("div", {}, el("span", { class: "quiet" }, `${verb} `),
      items.flatMap((item, at) => [at ? ", " : "", el("code", {}, item)]))),
    one.left ? el("div", { class: "quiet" }, `${one.left} more files and connections are not listed`) : null,
  ].filter(Boolean);
  const line = (one, image) => el("tr", {},
    el("td", {}, one.pid ?? ""),
    el("td", { class: one.depth ? `deep deep-${Math.min(one.depth, 4)}` : "" },
      one.depth ? el("span", { class: "quiet" }, `└ below ${one.parent}: `) : null, el("code", {}, one.what)),
    el("td", {}, held(one)),
    el("td", {}, image));
  const tree = (one) => [
    line(one, [one.image ?? "", ...(one.why ?? []).map((text) => el("div", { class: "quiet" }, text))]),
    ...(one.below ?? []).map((other) => line(other, "")),
    one.more ? el("tr", {}, el("td", {}), el("td", { class: "deep deep-1 quiet", colspan: 3 }, `└ ${one.more} more below it`)) : null,
  ].filter(Boolean);
  return el("div", {}, el("h4", {}, "Alive after it"),
    el("table", { class: "alive" },
      el("thead", {}, el("tr", {}, ["pid", "command", "holds", "image"].map((word) => el("th", { scope: "col" }, word)))),
      el("tbody", {}, alive.flatMap(tree))));
}
