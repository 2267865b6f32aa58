// Curves of a sweep with their bands: steps, since a search keeps what it has until it finds better.
function bands(host, curves, over, up) {
  let alone = null;
  const ends = (one) => (one.half.length ? one.half : one.mean.map(() => 0));
  const draw = (width) => {
    const last = Math.max(...curves.flatMap((one) => one.x));
    // The steep beginning, and bands of two seeds, would leave no room for what is to be compared.
    const later = curves.flatMap((one) => one.mean.filter((_, i) => (one.x[i + 1] ?? last) >= last * 0.05));
    const [least, most] = [Math.min(...later), Math.max(...later)];
    const spare = (most - least || Math.abs(most) || 1) * 0.25;
    const low = Math.min(...curves.flatMap((one) => one.mean.map((v, i) => v - ends(one)[i])));
    const high = Math.max(...curves.flatMap((one) => one.mean.map((v, i) => v + ends(one)[i])));
    const limits = [Math.max(low, least - spare), Math.min(high, most + spare)];
    if (limits[0] === limits[1]) limits[1] += spare;
    const { root, sx, sy, inner } = frame(host, width, {
      height: 300, label: `${up} over ${over}`, x: { range: [0, last], label: over }, y: { range: limits, label: up },
    });
    const clipped = (value) => Math.min(inner.bottom, Math.max(inner.top, sy(value)));
    const stairs = (xs, ys) => xs.map((x, i) => (i ? `H${sx(x).toFixed(1)}V${ys[i].toFixed(1)}` : `${sx(x).toFixed(1)} ${ys[i].toFixed(1)}`)).join("");
    const back = (xs, ys) => {
      let path = "";
      for (let i = xs.length - 1; i >= 0; i -= 1) path += `${i === xs.length - 1 ? `L${sx(xs[i]).toFixed(1)} ${ys[i].toFixed(1)}` : `V${ys[i].toFixed(1)}`}${i ? `H${sx(xs[i]).toFixed(1)}` : `H${sx(xs[0]).toFixed(1)}`}`;
      return path;
    };
    curves.forEach((one, place) => {
      const away = alone !== null && alone !== place ? " away" : "";
      if (one.half.length) {
        const top = one.mean.map((v, i) => clipped(v + one.half[i]));
        const bottom = one.mean.map((v, i) => clipped(v - one.half[i]));
        // Down the right side, and back along the lower stairs.
        root.append(svg("path", { class: `band c${place % 8}${away}`, d: `M${stairs(one.x, top)}${back(one.x, bottom)}Z` }));
      }
    });
    curves.forEach((one, place) => {
      const away = alone !== null && alone !== place ? " away" : "";
      root.append(svg("path", { class: `curve c${place % 8}${away}`, d: `M${stairs(one.x, one.mean.map(clipped))}`, "data-name": one.name }));
    });
    pointedAt(root, curves, sx, sy, over, up);
  };
  const again = responsive(host, draw);
  return (place) => {
    alone = place;
    again();
  };
}

// The values of all curves where the pointer is.
function pointedAt(root, curves, sx, sy, over, up) {
  const rule = svg("line", { class: "axis", visibility: "hidden" });
  root.append(rule);
  const show = (event) => {
    const box = root.getBoundingClientRect();
    const [first, last] = [sx(0), sx(Math.max(...curves.flatMap((one) => one.x)))];
    const px = Math.min(last, Math.max(first, event.clientX - box.left));
    const at = ((px - first) / (last - first)) * Math.max(...curves.flatMap((one) => one.x));
    const list = el("dl");
    curves.forEach((one) => {
      let place = -1;
      while (place + 1 < one.x.length && one.x[place + 1] <= at) place += 1;
      if (place < 0) return;
      const half = one.half.length ? ` ± ${number(Number(one.half[place].toPrecision(2)))}` : "";
      list.append(el("dt", {}, one.name), el("dd", {}, number(one.mean[place]) + half));
    });
    filled(rule, { x1: px, x2: px, y1: 14, y2: box.height - 44, visibility: "visible" }, []);
    showTip([el("p", {}, el("b", {}, up), ` at ${number(Math.round(at))} ${over}`), list], event.clientX, event.clientY);
  };
  root.addEventListener("pointermove", show);
  root.addEventListener("pointerdown", show);
  root.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "touch") return;
    hideTip();
    rule.setAttribute("visibility", "hidden");
  });
}

function sweep() {
  doc.panels.forEach((panel, place) => {
    if (!panel.trials.length) return;
    const show = [
      bands(byId(`panel-${place}-trials`), panel.trials, "finished trials", doc.height),
      bands(byId(`panel-${place}-seconds`), panel.seconds, "seconds of work", doc.height),
    ];
    for (const item of document.querySelectorAll(`li[data-panel="${place}"]`)) {
      const only = Number(item.dataset.curve);
      item.addEventListener("pointerenter", () => show.forEach((one) => one(only)));
      item.addEventListener("pointerleave", () => show.forEach((one) => one(null)));
    }
  });
}
