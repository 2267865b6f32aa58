// What is shown of a trial beside the pointer. A tap shows it, a second one opens the trial.
const tip = el("div", { id: "tip", role: "status", hidden: "" });
document.body.append(tip);

function showTip(content, x, y) {
  tip.replaceChildren(...content);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const right = x + 18 + box.width < innerWidth - 8;
  const left = right ? x + 18 : Math.max(12, Math.min(x - 18 - box.width, innerWidth - box.width - 12));
  let top = Math.min(y + 14, innerHeight - box.height - 12);
  // On a narrow screen it covers what was tapped unless it goes above.
  if (!right && y > top && y < top + box.height) top = y - box.height - 18;
  tip.style.left = `${Math.max(12, left)}px`;
  tip.style.top = `${Math.max(8, top)}px`;
}
function hideTip() {
  tip.hidden = true;
}
addEventListener("scroll", hideTip, { passive: true });
addEventListener("keydown", (event) => event.key === "Escape" && hideTip());

function trialTip(index, hint = "Click to open") {
  const number_ = trials.number[index];
  const state = trials.status[index] === 0
    ? (onFront.has(number_) ? "on the front" : trials.within[index] ? "" : "breaks a limit")
    : STATUS[trials.status[index]];
  const values = el("dl");
  for (const name of doc.metrics.slice(0, 6)) {
    const value = trials.values[name][index];
    if (value !== null) values.append(el("dt", {}, name), el("dd", {}, number(value)));
  }
  const content = [
    el("p", {}, el("b", {}, `#${number_}`), state ? ` ${state}` : ""),
    values,
  ];
  if (trials.why[index]) content.push(el("p", {}, trials.why[index]));
  content.push(el("p", { class: "arch" }, architecture(index)));
  const drawing = document.querySelector(`#network-${number_} .drawing`);
  if (drawing) content.push(drawing.cloneNode(true));
  content.push(el("p", { class: "hint" }, hint));
  return content;
}

// Makes the trials in a plot answer to pointers: `nearest(x, y)` gives an index, or null.
function pointed(surface, nearest, mark) {
  let shown = null;
  const at = (event) => {
    const box = surface.getBoundingClientRect();
    return nearest(event.clientX - box.left, event.clientY - box.top);
  };
  const show = (index, event, hint) => {
    shown = index;
    mark(index);
    if (index === null) hideTip();
    else showTip(trialTip(index, hint), event.clientX, event.clientY);
    surface.style.cursor = index === null ? "" : "pointer";
  };
  surface.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "touch") show(at(event), event);
  });
  surface.addEventListener("pointerleave", (event) => {
    if (event.pointerType !== "touch") show(null, event);
  });
  surface.addEventListener("click", (event) => {
    const index = at(event);
    if (index === null) return show(null, event);
    const touch = event.pointerType === "touch";
    if (touch && index !== shown) return show(index, event, "Tap again to open");
    show(null, event);
    openTrial(trials.number[index]);
  });
}
