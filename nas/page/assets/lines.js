// Curves over trials or over time: the best so far, and the bands of a sweep's seeds.
function steps(points, sx, sy) {
  return points.map(([x, y], place) => (place
    ? `H${sx(x).toFixed(1)}V${sy(y).toFixed(1)}`
    : `M${sx(x).toFixed(1)} ${sy(y).toFixed(1)}`)).join("");
}

function progressPlot(host, over, chosen) {
  const place = over === "finished trials" ? 0 : 1;
  const draw = (width) => {
    const curve = chosen();
    const points = [];
    if (doc.metrics.includes(curve.name)) {
      for (let index = 0; index < trials.number.length; index += 1) {
        const value = trials.values[curve.name][index];
        if (value !== null) points.push({ index, x: valueOf(index, over), y: value });
      }
    }
    const ends = curve.steps.map((step) => step[place]);
    const yRange = range(points.length ? points.map((p) => p.y) : curve.steps.map((s) => s[2]), curve.steps.map((s) => s[2]));
    const { root, sx, sy } = frame(host, width, {
      height: 260, label: `${curve.name} over ${over}`,
      x: { range: [0, Math.max(...ends)], label: over }, y: { range: yRange, label: curve.name },
    });
    const shown = points.filter((point) => sy.has(point.y));
    for (const point of shown) {
      root.append(svg("circle", { class: `pt${trials.within[point.index] ? "" : " out"}`, cx: sx(point.x).toFixed(1), cy: sy(point.y).toFixed(1), r: points.length > 400 ? 1.8 : 2.8 }));
    }
    root.append(svg("path", { class: "best", d: steps(curve.steps.map((s) => [s[place], s[2]]), sx, sy) }));
    const ring = svg("circle", { class: "ring", r: 8, visibility: "hidden" });
    root.append(ring);
    const marks = shown.length ? shown : curve.steps.filter((s) => indexOf.has(s[3])).map((s) => ({ index: indexOf.get(s[3]), x: s[place], y: s[2] }));
    const at = new Map(marks.map((mark) => [mark.index, mark]));
    pointed(root, (px, py) => {
      let best = null;
      let least = 22 ** 2;
      for (const mark of marks) {
        const distance = (sx(mark.x) - px) ** 2 + (sy(mark.y) - py) ** 2;
        if (distance < least) [least, best] = [distance, mark];
      }
      return best === null ? null : best.index;
    }, (index) => {
      ring.setAttribute("visibility", index === null ? "hidden" : "visible");
      if (index !== null) filled(ring, { cx: sx(at.get(index).x), cy: sy(at.get(index).y) }, []);
    });
  };
  return responsive(host, draw);
}

function progress(controls) {
  let curve = doc.progress[0];
  if (!curve) return;
  const remark = el("span", {}, curve.note);
  const plots = [
    progressPlot(byId("progress-trials"), "finished trials", () => curve),
    progressPlot(byId("progress-time"), "seconds of work", () => curve),
  ];
  controls.append(chooser("of", doc.progress.map((one) => one.name), curve.name, (name) => {
    curve = doc.progress.find((one) => one.name === name);
    remark.textContent = curve.note;
    for (const again of plots) again();
  }), remark);
}
