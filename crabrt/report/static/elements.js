// Making elements. Text is only ever set as text: no markup is read from a string anywhere.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children (elements, texts; null, false and "" are left out). */
function el(name, attributes, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same, of a drawing. */
function drawn(name, attributes, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  for (const child of children.flat(Infinity)) {
    if (child instanceof Node) element.append(child);
    else if (child != null && child !== false && child !== "") element.append(String(child));
  }
  return element;
}

/** Shape and word of a sign, in its tone. */
function signElement([shape, word, tone]) {
  return el("span", { class: `sign tone-${tone}` },
    shape && [el("span", { class: "shape", "aria-hidden": "true" }, shape), " "],
    el("span", { class: "word" }, word));
}

/** Tell a screen reader. */
function say(text) {
  document.getElementById("said").textContent = text;
}

function counted(number, word) {
  return `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
}
