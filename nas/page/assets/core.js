// The document, numbers, elements (made of text, never of HTML), and what is known of a trial.
const doc = JSON.parse(document.getElementById("document").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}
const el = (name, attributes = {}, ...children) =>
  filled(document.createElement(name), attributes, children);
const svg = (name, attributes = {}, ...children) =>
  filled(document.createElementNS(SVG, name), attributes, children);

function number(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e6 ? String(Number(value.toPrecision(4))) : value.toExponential(2);
}

// A tick of an axis: 1.2M rather than 1,200,000, and as many digits as its neighbour differs in.
function tickText(value, step) {
  const size = Math.abs(value);
  for (const [unit, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= unit && (unit > 1e3 || size >= 1e4 || step >= 1e3)) {
      return tickText(value / unit, step / unit) + letter;
    }
  }
  if (value === 0) return "0";
  if (step < 1e-4) return value.toExponential(1);
  let digits = 0;
  while (digits < 6 && Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) > 1e-6) digits += 1;
  return value.toFixed(digits);
}

function ticks(low, high, count) {
  const span = high - low || 1;
  const rough = span / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.75);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) {
    found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  }
  return { at: found, step };
}

const trials = doc.trials;
const indexOf = new Map((trials ? trials.number : []).map((number, index) => [number, index]));
const onFront = new Set(doc.front || []);
const STATUS = ["measured", "infeasible", "failed"];

function valueOf(index, name) {
  if (name === "finished trials") return trials.order[index];
  if (name === "seconds of work") return trials.elapsed[index];
  return trials.values[name][index];
}

function architecture(index) {
  if (trials.text) return trials.text[index];
  return doc.choices
    .map((choice, place) => [choice, trials.picks[index][place]])
    .filter(([, pick]) => pick >= 0)
    .map(([choice, pick]) => `${choice.label}=${choice.options[pick]}`)
    .join(" ");
}

// Which trials the choices' brushes leave: null for all. Whoever draws trials listens.
const kept = { set: null, listeners: [] };
function keep(set) {
  kept.set = set;
  for (const listener of kept.listeners) listener(set);
}
