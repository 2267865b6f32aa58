// What stands in the page is drawn; light and dark.
for (const button of document.querySelectorAll("button.copy")) button.hidden = false;

const theme = byId("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
let scheme = dark.matches ? "dark" : "light";
function showScheme() {
  document.documentElement.style.colorScheme = scheme;
  theme.textContent = scheme === "dark" ? "Light" : "Dark";
}
theme.hidden = false;
theme.addEventListener("click", () => {
  scheme = scheme === "dark" ? "light" : "dark";
  showScheme();
});
dark.addEventListener("change", () => {
  scheme = dark.matches ? "dark" : "light";
  showScheme();
});
showScheme();

if (doc.kind === "run") {
  if (trials.number.length) {
    frontPlot(byId("front-plot"), byId("front-controls"));
    progress(byId("progress-controls"));
    if (byId("choices-plot")) parallel(byId("choices-plot"), byId("choices-controls"), byId("choices-best"));
    if (byId("latency-plot")) latencyPlot(byId("latency-plot"));
  }
} else {
  sweep();
}
document.documentElement.dataset.ready = "yes";
