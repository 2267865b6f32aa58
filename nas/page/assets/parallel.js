// Parallel coordinates: an axis a choice and an objective, a line a trial; dragging keeps some.
// On a narrow screen the axes lie one below the other.
function parallel(host, controls, best) {
  const axes = doc.axes.map((place) => {
    const choice = doc.choices[place];
    const absent = trials.picks.some((picks) => picks[place] < 0);
    const options = [...(absent ? ["–"] : []), ...choice.options.map(String)];
    return { name: choice.label, options, pick: (index) => trials.picks[index][place] + (absent ? 1 : 0) };
  });
  for (const aim of doc.objectives) {
    const known = trials.values[aim.metric].filter((value) => value !== null);
    const found = range(known);
    axes.push({ name: aim.metric, range: found, value: (index) => trials.values[aim.metric][index] });
  }
  // Where a trial is on an axis, 0 to 1. On options, lines are spread so that they can be told apart.
  const share = (axis, index) => {
    if (axis.options) {
      const spread = ((trials.number[index] * 0.6180339887) % 1) - 0.5;
      return (axis.pick(index) + 0.5 + 0.5 * spread) / axis.options.length;
    }
    const [low, high] = axis.range;
    return Math.min(1, Math.max(0, (axis.value(index) - low) / (high - low)));
  };
  const lines = trials.number.map((_, index) => index)
    .filter((index) => doc.objectives.every((aim) => trials.values[aim.metric][index] !== null));
  const first = doc.objectives[0];
  const sign = first.direction === "minimize" ? 1 : -1;
  const ranked = lines.slice().sort((a, b) => sign * (trials.values[first.metric][b] - trials.values[first.metric][a]));
  // The more lines there are, the fewer stand out.
  const power = Math.min(9, Math.max(2, ranked.length / 60));
  const good = new Map(ranked.map((index, place) => [index, ((place + 1) / ranked.length) ** power]));
  const brushes = new Map();
  let paths = new Map();
  const inside = (index) => [...brushes].every(([axis, [low, high]]) => {
    const at = share(axis, index);
    return at >= low && at <= high;
  });

  const said = el("span");
  const clear = el("button", { type: "button", hidden: "", onclick: () => { brushes.clear(); filter(); again(); } }, "Show all");
  controls.append(said, clear);

  function filter() {
    const set = brushes.size ? new Set(lines.filter(inside)) : null;
    for (const [index, path] of paths) path.classList.toggle("off", set !== null && !set.has(index));
    clear.hidden = set === null;
    said.textContent = set === null ? `${number(lines.length)} measured trials` : `${number(set.size)} of ${number(lines.length)} measured trials`;
    keep(set);
    table(set);
  }

  function table(set) {
    const some = ranked.filter((index) => set === null || set.has(index)).reverse().slice(0, 5);
    const head = el("tr", {}, el("th", {}, "best of these"), ...doc.objectives.map((aim) => el("th", { class: "n" }, aim.metric)), el("th", {}, "architecture"));
    const rows = some.map((index) => {
      const number_ = trials.number[index];
      const link = el("a", { href: `#network-${number_}`, class: "open", "data-trial": number_ }, `#${number_}`);
      return el("tr", {}, el("td", {}, link), ...doc.objectives.map((aim) => el("td", { class: "n" }, number(trials.values[aim.metric][index]))), el("td", {}, el("code", {}, architecture(index))));
    });
    best.replaceChildren(el("div", { class: "scroll front" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows))));
  }

  function draw(width) {
    const upright = width >= 700;
    const gap = upright ? 0 : 74;
    const height = upright ? 420 : 40 + gap * (axes.length - 1) + 44;
    const [from, to] = upright ? [40, height - 16] : [10, width - 10];
    const main = (place) => (upright
      ? 50 + (place * (width - 130)) / Math.max(1, axes.length - 1)
      : 26 + gap * place);
    const cross = (at) => (upright ? to - at * (to - from) : from + at * (to - from));
    const xy = (place, at) => (upright ? [main(place), cross(at)] : [cross(at), main(place)]);
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, style: `--faint-line:${lines.length > 300 ? 0.14 : 0.35}`, role: "img", "aria-label": "parallel coordinates of choices and objectives" });
    const ground = svg("g");
    const hot = svg("path", { class: "way hot", visibility: "hidden" });
    const course = (index) => axes.map((axis, place) => `${place ? "L" : "M"}${xy(place, share(axis, index)).map((v) => v.toFixed(1)).join(" ")}`).join("");
    paths = new Map();
    for (const index of ranked) {
      const path = svg("path", { class: "way", d: course(index), style: `--good:${good.get(index).toFixed(3)}` });
      paths.set(index, path);
      ground.append(path);
    }
    root.append(ground, hot);
    axes.forEach((axis, place) => root.append(...drawAxis(axis, place, { upright, main, cross, xy, from, to, width })));
    host.replaceChildren(root);
    const nearest = (px, py) => {
      const [along, over] = upright ? [px, py] : [py, px];
      let best_ = null;
      let least = 9;
      const place = axes.findIndex((_, k) => k + 1 < axes.length && along >= main(k) + 14 && along <= main(k + 1) - 14);
      if (place < 0) return null;
      const t = (along - main(place)) / (main(place + 1) - main(place));
      for (const index of lines) {
        if (kept.set && !kept.set.has(index)) continue;
        const at = cross(share(axes[place], index)) * (1 - t) + cross(share(axes[place + 1], index)) * t;
        if (Math.abs(at - over) < least) [least, best_] = [Math.abs(at - over), index];
      }
      return best_;
    };
    pointed(root, nearest, (index) => {
      hot.setAttribute("visibility", index === null ? "hidden" : "visible");
      if (index !== null) hot.setAttribute("d", course(index));
    });
    filter();
  }

  function drawAxis(axis, place, { upright, main, cross, xy, from, to, width }) {
    const at = main(place);
    const [x1, y1] = xy(place, 0);
    const [x2, y2] = xy(place, 1);
    const parts = [svg("line", { class: "rail", x1, y1, x2, y2 })];
    const band = upright ? { x: at - 16, y: from - 4, width: 32, height: to - from + 8 } : { x: from - 4, y: at - 14, width: to - from + 8, height: 28 };
    const catcher = svg("rect", { class: "catch", ...band, "data-axis": axis.name, style: `touch-action:${upright ? "pan-x" : "pan-y"}` });
    const shade = svg("rect", { class: "brush", visibility: "hidden", rx: 4 });
    const showBrush = () => {
      const brush = brushes.get(axis);
      shade.setAttribute("visibility", brush ? "visible" : "hidden");
      if (!brush) return;
      const [a, b] = brush.map(cross).sort((p, q) => p - q);
      filled(shade, upright ? { x: at - 9, y: a, width: 18, height: b - a } : { x: a, y: at - 9, width: b - a, height: 18 }, []);
    };
    // Options are taken whole.
    const snapped = (a, b) => {
      let [low, high] = [Math.min(a, b), Math.max(a, b)];
      if (axis.options) {
        const n = axis.options.length;
        low = Math.floor(Math.min(0.9999, low) * n) / n;
        high = (Math.floor(Math.min(0.9999, high) * n) + 1) / n;
      }
      return [Math.max(0, low), Math.min(1, high)];
    };
    const shareAt = (event) => {
      const box = host.getBoundingClientRect();
      const over = upright ? event.clientY - box.top : event.clientX - box.left;
      return Math.min(1, Math.max(0, upright ? (to - over) / (to - from) : (over - from) / (to - from)));
    };
    let start = null;
    let moved = false;
    catcher.addEventListener("pointerdown", (event) => {
      start = shareAt(event);
      moved = false;
      catcher.setPointerCapture(event.pointerId);
      hideTip();
    });
    catcher.addEventListener("pointermove", (event) => {
      if (start === null) return;
      const now = shareAt(event);
      moved = moved || Math.abs(now - start) * (to - from) > 5;
      if (!moved) return;
      brushes.set(axis, snapped(start, now));
      showBrush();
      filter();
    });
    const end = (event) => {
      if (start === null) return;
      if (!moved && event.type === "pointerup") {
        const held = brushes.get(axis);
        const wanted = axis.options ? snapped(start, start) : null;
        if (!wanted || (held && held[0] <= start && start <= held[1])) brushes.delete(axis);
        else brushes.set(axis, wanted);
      }
      start = null;
      showBrush();
      filter();
    };
    catcher.addEventListener("pointerup", end);
    catcher.addEventListener("pointercancel", end);
    catcher.addEventListener("click", (event) => event.stopPropagation());
    const last = place === axes.length - 1;
    const fit = (text, room, letter = 6.1) => (text.length * letter > room ? `${text.slice(0, Math.max(2, Math.floor(room / letter) - 1))}…` : text);
    const room = upright ? (width - 130) / Math.max(1, axes.length - 1) - 12 : to - from;
    // Long names take turns in two rows.
    const long = upright && axes.some((one) => one.name.length * 7.2 > room);
    const written = fit(axis.name, long ? 2 * room : room, 7.2);
    const half = (written.length * 7.2) / 2;
    const name = svg("text", upright
      ? { class: "axisname", x: Math.min(width - half, Math.max(half, at)), y: long && place % 2 ? 9 : 24, "text-anchor": "middle" }
      : { class: "axisname", x: from, y: at - 13 }, written, svg("title", {}, axis.name));
    const labels = axis.options
      ? axis.options.map((option, k) => [option, (k + 0.5) / axis.options.length])
      : axis.range.map((value, end) => [tickText(Number(value.toPrecision(3)), Number(value.toPrecision(3))), end]);
    const texts = labels.map(([text, where]) => {
      const [x, y] = xy(place, where);
      const wide = upright ? room - 8 : (to - from) / labels.length - 4;
      const anchor = upright ? "start" : axis.options ? "middle" : where ? "end" : "start";
      return svg("text", upright
        ? { class: "option", x: x + 8, y: y + 4, "text-anchor": anchor }
        : { class: "option", x, y: y + 22, "text-anchor": anchor }, fit(text, last && upright ? 72 : wide), svg("title", {}, text));
    });
    showBrush();
    return [...parts, ...texts, shade, name, catcher];
  }

  const again = responsive(host, draw);
}
