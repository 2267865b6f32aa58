// A trial opened over the page: its network where that is drawn, else what is known of it.
const opened = el("dialog", { "aria-label": "trial" });
document.body.append(opened);
opened.addEventListener("click", (event) => event.target === opened && opened.close());

function commandLine(line, what) {
  return el("div", { class: "command" }, el("p", {}, what), el("div", { class: "line" },
    el("code", {}, line), el("button", { type: "button", class: "copy" }, "Copy")));
}

function openTrial(number_) {
  hideTip();
  const index = indexOf.get(Number(number_));
  const drawn = byId(`network-${number_}`);
  const inside = el("div", { class: "inside" });
  if (drawn) {
    for (const child of drawn.children) {
      if (child.tagName !== "SUMMARY") inside.append(child.cloneNode(true));
    }
  } else if (index !== undefined) {
    inside.append(...described(index));
  }
  const state = index === undefined ? "" : onFront.has(Number(number_)) ? ", on the front" : `, ${STATUS[trials.status[index]]}`;
  opened.replaceChildren(el("div", { class: "bar-top" },
    el("h2", {}, `Trial ${number_}`, el("small", {}, state)),
    el("button", { type: "button", class: "close", onclick: () => opened.close() }, "Close")), inside);
  if (!opened.open) opened.showModal();
  opened.scrollTop = 0;
}

function described(index) {
  const facts = el("dl", { class: "facts" });
  const add = (name, value) => facts.append(el("div", {}, el("dt", {}, name), el("dd", {}, value)));
  for (const name of doc.metrics) {
    const value = trials.values[name][index];
    if (value !== null) add(name, number(value));
  }
  add("seconds", number(trials.seconds[index]));
  if (trials.epochs[index]) add("epochs", number(trials.epochs[index]));
  if (trials.parent[index] !== null) add("made from trial", String(trials.parent[index]));
  const parts = [facts];
  if (trials.why[index]) parts.push(el("p", { class: "note" }, trials.why[index]));
  parts.push(el("p", { class: "arch" }, el("code", {}, architecture(index))));
  const number_ = trials.number[index];
  const folder = /^[\w@%+=:,./-]+$/.test(doc.folder) ? doc.folder : `'${doc.folder.replaceAll("'", `'"'"'`)}'`;
  const commands = el("div", { class: "commands" });
  if (doc.ways.built && doc.ways.trains && trials.status[index] === 0) {
    commands.append(commandLine(`nas retrain ${folder} --trial ${number_} --epochs 40`, "Train it fully, export it"));
  }
  parts.push(commands);
  if (trials.picks) {
    const rows = doc.choices.map((choice, place) => [choice, trials.picks[index][place]])
      .filter(([, pick]) => pick >= 0)
      .map(([choice, pick]) => el("tr", {}, el("td", {}, choice.label), el("td", {}, String(choice.options[pick]))));
    parts.push(el("div", { class: "scroll" }, el("table", {},
      el("thead", {}, el("tr", {}, el("th", {}, "choice"), el("th", {}, "option"))), el("tbody", {}, ...rows))));
  }
  return parts;
}

document.addEventListener("click", async (event) => {
  const link = event.target.closest("a.open");
  if (link) {
    event.preventDefault();
    openTrial(link.dataset.trial);
    return;
  }
  const button = event.target.closest("button.copy");
  if (!button) return;
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    // A file has no clipboard in some browsers: the text is marked instead.
    getSelection().selectAllChildren(code);
    button.textContent = "Marked";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});
