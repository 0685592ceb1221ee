// Inside gr.HTML: `element`, `props`, `server` and `watch` are in scope.

const stage = mount(element.querySelector("#stage"), {
  resync: (run) => server.resync(run),
  formats: props.formats,
  make: (kind, trace) => server.make(`${kind}\n${trace}`), // one argument is all that a server function gets
  branch: ({ token, prefix }) => {
    const { head } = stage.log;
    const given = head.request?.answer_ids || []; // a branch of a branch begins with what that one was given
    const asked = { run: stage.log.run, checkpoint: head.checkpoint, request: head.request, answer_ids: [...given, ...prefix, token] };
    element.querySelector("#stage").branch = JSON.stringify(asked);
    stage.wait("Waiting for the model to branch…");
    document.querySelector("#branch").click();
  },
  light: (asked) => {
    element.querySelector("#stage").light = JSON.stringify(asked);
    document.querySelector("#light").click();
  },
  open: () => (document.querySelector("#open-trace input[type=file]") || document.querySelector("#open-trace"))?.click(),
});
let taken = null;
function take() {
  if (!props.value || props.value === taken) return;
  taken = props.value;
  try {
    stage.ingest(taken);
  } catch (error) {
    console.error(error);
    stage.fail("The page could not read what the server sent; reload it to go on.");
  }
}
document.addEventListener("click", (event) => {
  if (event.target.closest?.("#generate")) stage.wait("Waiting for the model…");
  if (event.target.closest?.("#stop")) stage.unwait();
});
const root = element.querySelector("#stage");
// Whether Stop has something to stop. On their row, since a rule with :has would be looked up at every token's change.
const tell = () => document.querySelector("#ask")?.toggleAttribute("data-running", root.dataset.state === "live" || "waiting" in root.dataset || root.dataset.light === "going");
new MutationObserver(tell).observe(root, { attributeFilter: ["data-state", "data-waiting", "data-light"] });
// Charts below the stage: drawn anew when a run or a search for its ceiling ends while they are open; a click on a point moves the cursor.
new MutationObserver(() => {
  const open = document.querySelector("#charts .js-plotly-plot");
  if (open && open.offsetParent && ["done", "replay"].includes(root.dataset.state) && root.dataset.light !== "going") document.querySelector("#redraw")?.click();
}).observe(root, { attributeFilter: ["data-state", "data-light"] });
document.addEventListener("mouseover", (event) => {
  const plot = event.target.closest?.("#charts .js-plotly-plot");
  if (!plot?.on || plot.linked) return;
  plot.linked = true;
  plot.on("plotly_click", ({ points }) => {
    const [mode, k] = points[0]?.customdata || [];
    if (Number.isInteger(k)) stage.seek(mode, k);
  });
});
watch("value", take);
take();
