// Axes, scales, and drawing anew when the width changes.
function range(values, needed = []) {
  // Three quartile ranges around the middle half, and what is needed: one network that learnt
  // nothing would otherwise squeeze all others into a line.
  const sorted = values.slice().sort((a, b) => a - b);
  if (!sorted.length) return [0, 1];
  const quantile = (share) => sorted[Math.round(share * (sorted.length - 1))];
  const reach = 3 * (quantile(0.75) - quantile(0.25));
  const inside = reach > 0
    ? sorted.filter((v) => v >= quantile(0.25) - reach && v <= quantile(0.75) + reach)
    : sorted;
  const low = Math.min(inside[0], ...needed);
  const high = Math.max(inside[inside.length - 1], ...needed);
  return low === high ? [low - (Math.abs(low) * 0.1 || 1), high + (Math.abs(high) * 0.1 || 1)] : [low, high];
}

// A linear or logarithmic scale over a range that is a little wider than the values.
function scale([low, high], from, to, log) {
  const f = log ? Math.log10 : (v) => v;
  const margin = 0.05 * (f(high) - f(low));
  const a = f(low) - margin;
  const b = f(high) + margin;
  const place = (value) => from + ((f(value) - a) / (b - a)) * (to - from);
  place.has = (value) => (log ? value > 0 : true) && f(value) >= a && f(value) <= b;
  place.ticks = (count) => {
    if (!log) return ticks(a, b, count);
    const at = [];
    for (let power = Math.floor(a); power <= Math.ceil(b); power += 1) {
      for (const factor of b - a > 2.5 ? [1] : [1, 2, 5]) at.push(factor * 10 ** power);
    }
    return { at: at.filter((v) => place.has(v)), step: 0 };
  };
  return place;
}

const isLog = ([low, high]) => low > 0 && high / low > 30;

// A frame with axes: gives the SVG, the scales, and the groups to draw into.
function frame(host, width, { x, y, height, label }) {
  const left = 58;
  const bottom = 44;
  const inner = { left, right: width - 14, top: 14, bottom: height - bottom };
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label });
  const sx = scale(x.range, inner.left, inner.right, x.log);
  const sy = scale(y.range, inner.bottom, inner.top, y.log);
  const tx = sx.ticks(Math.max(2, Math.floor((inner.right - left) / 110)));
  const ty = sy.ticks(5);
  const written = (value, step) => (step ? tickText(value, step) : tickText(value, value));
  for (const value of tx.at) {
    root.append(
      svg("line", { class: "grid", x1: sx(value), x2: sx(value), y1: inner.top, y2: inner.bottom }),
      svg("text", { x: sx(value), y: inner.bottom + 17, "text-anchor": "middle" }, written(value, tx.step)),
    );
  }
  for (const value of ty.at) {
    root.append(
      svg("line", { class: "grid", x1: inner.left, x2: inner.right, y1: sy(value), y2: sy(value) }),
      svg("text", { x: inner.left - 8, y: sy(value) + 4, "text-anchor": "end" }, written(value, ty.step)),
    );
  }
  root.append(
    svg("line", { class: "axis", x1: inner.left, x2: inner.right, y1: inner.bottom, y2: inner.bottom }),
    svg("text", { class: "label", x: inner.right, y: inner.bottom + 37, "text-anchor": "end" }, x.label),
    svg("text", { class: "label", x: 4, y: 8 }, y.label),
  );
  host.replaceChildren(root);
  return { root, sx, sy, inner };
}

// Draws now, and again whenever the width is another one.
function responsive(host, draw) {
  let last = 0;
  const again = () => {
    const width = Math.floor(host.clientWidth);
    if (width > 0 && width !== last) draw((last = width));
  };
  new ResizeObserver(again).observe(host);
  again();
  return () => {
    last = 0;
    again();
  };
}

function chooser(title, options, chosen, changed) {
  const select = el("select", { onchange: () => changed(select.value) });
  for (const option of options) {
    select.append(el("option", option === chosen ? { selected: "" } : {}, option));
  }
  return el("label", {}, title, select);
}
