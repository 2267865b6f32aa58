// Trials as points: two metrics against one another, the front, and predicted against measured.
function scatter(host, read) {
  let circles = [];
  const dim = (set) => {
    for (const [index, circle] of circles) circle.classList.toggle("dim", set !== null && !set.has(index));
  };
  const draw = (width) => {
    const { points, x, y, stairs, limits, diagonal, label } = read();
    const height = Math.round(Math.max(270, Math.min(430, width * 0.55)));
    const made = frame(host, width, { x, y, height, label });
    const { root, sx, sy, inner } = made;
    for (const [axis, value] of limits || []) {
      if (axis === "x" && sx.has(value)) {
        root.append(svg("line", { class: "limit", x1: sx(value), x2: sx(value), y1: inner.top, y2: inner.bottom }));
      }
      if (axis === "y" && sy.has(value)) {
        root.append(svg("line", { class: "limit", x1: inner.left, x2: inner.right, y1: sy(value), y2: sy(value) }));
      }
    }
    if (diagonal) {
      root.append(svg("line", { class: "diagonal", x1: inner.left, y1: inner.bottom, x2: inner.right, y2: inner.top }));
    }
    if (stairs) {
      root.append(svg("path", { class: "stairs", d: stairs(sx, sy) }));
    }
    const ring = svg("circle", { class: "ring", r: 9, visibility: "hidden" });
    circles = [];
    // The front last: it lies on top.
    const shown = points.filter((point) => sx.has(point.x) && sy.has(point.y));
    for (const point of shown.sort((a, b) => Number(a.front) - Number(b.front))) {
      const number_ = trials.number[point.index];
      const circle = svg("circle", {
        class: `pt${point.front ? " front" : ""}${point.within ? "" : " out"}`,
        cx: sx(point.x).toFixed(1), cy: sy(point.y).toFixed(1),
        r: point.front ? 6 : points.length > 400 ? 2.6 : 3.8, "data-trial": number_,
      });
      if (point.front) {
        filled(circle, {
          tabindex: 0, role: "button", "aria-label": `trial ${number_}`,
          onfocus: () => {
            const box = circle.getBoundingClientRect();
            if (circle.matches(":focus-visible")) showTip(trialTip(point.index, "Enter to open"), box.right, box.bottom);
          },
          onblur: hideTip,
          onkeydown: (event) => event.key === "Enter" && openTrial(number_),
        }, []);
      }
      circles.push([point.index, circle]);
      root.append(circle);
    }
    root.append(ring);
    dim(kept.set);
    const nearest = (px, py) => {
      let best = null;
      let least = 26 ** 2;
      for (const point of shown) {
        if (kept.set && !kept.set.has(point.index)) continue;
        // A front's points are the ones that are looked for.
        const distance = (sx(point.x) - px) ** 2 + (sy(point.y) - py) ** 2 - (point.front ? 16 : 0);
        if (distance < least) [least, best] = [distance, point];
      }
      return best === null ? null : best.index;
    };
    const places = new Map(shown.map((point) => [point.index, point]));
    pointed(root, nearest, (index) => {
      ring.setAttribute("visibility", index === null ? "hidden" : "visible");
      if (index === null) return;
      ring.setAttribute("cx", sx(places.get(index).x));
      ring.setAttribute("cy", sy(places.get(index).y));
    });
    const outside = points.length - shown.length;
    if (outside) host.append(el("p", { class: "small" }, `${outside} of ${points.length} trials lie outside the picture.`));
  };
  kept.listeners.push(dim);
  return responsive(host, draw);
}

function frontPlot(host, controls) {
  const aims = new Map(doc.objectives.map((one) => [one.metric, one]));
  const names = [...doc.metrics, "finished trials"];
  const [first, second] = doc.objectives;
  let [x, y] = [doc.metrics[1] || "finished trials", first.metric];
  if (second) [x, y] = [second.metric, first.metric];
  // A cost goes across, as people draw it.
  if (second && first.direction === "minimize" && second.direction === "maximize") [x, y] = [y, x];
  const read = () => {
    const points = [];
    for (let index = 0; index < trials.number.length; index += 1) {
      const [px, py] = [valueOf(index, x), valueOf(index, y)];
      if (px === null || py === null) continue;
      points.push({ index, x: px, y: py, front: onFront.has(trials.number[index]), within: trials.within[index] });
    }
    const front = points.filter((point) => point.front).sort((a, b) => a.x - b.x || a.y - b.y);
    const limits = [["x", x], ["y", y]]
      .filter(([, name]) => aims.has(name) && aims.get(name).limit !== null)
      .map(([axis, name]) => [axis, aims.get(name).limit]);
    const ranges = [x, y].map((name, place) => {
      const of = (point) => (place ? point.y : point.x);
      return range(points.map(of), front.map(of));
    });
    // Steps, because between two of its members the front promises no more than one of them.
    const both = doc.objectives.length === 2 && aims.has(x) && aims.has(y) && x !== y;
    const cheaper = both && aims.get(x).direction === "minimize";
    const stairs = both && front.length > 1 && ((sx, sy) => front.map((point, place) => {
      const [px, py] = [sx(point.x).toFixed(1), sy(point.y).toFixed(1)];
      if (!place) return `M${px} ${py}`;
      return cheaper ? `H${px}V${py}` : `V${py}H${px}`;
    }).join(""));
    const arrow = (name) => (aims.has(name) ? (aims.get(name).direction === "minimize" ? " (lower is better)" : " (higher is better)") : "");
    return {
      points, stairs, limits, label: `${y} against ${x} of ${points.length} trials`,
      x: { range: ranges[0], log: isLog(ranges[0]), label: x + arrow(x) + (isLog(ranges[0]) ? ", log" : "") },
      y: { range: ranges[1], log: isLog(ranges[1]), label: y + arrow(y) + (isLog(ranges[1]) ? ", log" : "") },
    };
  };
  const again = scatter(host, read);
  controls.append(
    chooser("across", names, x, (name) => { x = name; again(); }),
    chooser("up", names, y, (name) => { y = name; again(); }),
  );
}

function latencyPlot(host) {
  const rows = doc.latency.rows.filter((row) => indexOf.has(row.number));
  const all = rows.flatMap((row) => [row.predicted, row.measured]);
  const both = [Math.min(...all), Math.max(...all)];
  scatter(host, () => ({
    points: rows.map((row) => ({
      index: indexOf.get(row.number), x: row.measured, y: row.predicted, within: true,
      front: onFront.has(row.number),
    })),
    diagonal: true, label: "predicted against measured latency",
    x: { range: both, label: "measured, ms" }, y: { range: both, label: "predicted, ms (dashed: equal)" },
  }));
}
