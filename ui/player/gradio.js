// Inside gr.HTML: `element`, `props`, `server` and `watch` are in scope.

const root = element.querySelector("#stage");
const connection = new Connection();
const stage = mount(root, {
  resync: (run) => connection.ask(run),
  ended: (ticket, how) => asking?.ended(ticket, how),
  formats: props.formats,
  make: (kind, trace) => connection.file(kind, trace),
  branch: ({ token, prefix }) => {
    const { head } = stage.log;
    const given = head.request?.answer_ids || []; // a branch of a branch begins with what that one was given
    const asked = { run: stage.log.run, checkpoint: head.checkpoint, request: head.request, answer_ids: [...given, ...prefix, token] };
    const text = asking.branch(JSON.stringify(asked));
    if (text) trigger("branch", text);
  },
  light: (asked) => trigger("light", asking.light(JSON.stringify(asked))),
  askOn: ({ system, messages, run }) => {
    root.goesOn = [JSON.stringify(run ? { run, messages } : messages), system, ""];
    trigger("ask_on");
    if (run) document.querySelector("#picture")?.empty?.(); // it stays in the turn that brought it
    const field = document.querySelector("#prompt textarea");
    field?.focus();
    field?.scrollIntoView({ block: "nearest" });
  },
  stop: () => document.querySelector("#stop")?.click(),
  open: () => document.querySelector("#open-trace")?.click(),
});
let taken = null;
let asking = null;
function take() {
  if (!props.value || props.value === taken) return;
  taken = props.value;
  asking?.hear();
  try {
    stage.ingest(taken);
  } catch (error) {
    console.error(error);
    stage.fail("The page could not read what the server sent; reload it to go on.");
  }
}
// Whether Stop has something to stop. On their row, since a rule with :has would be looked up at every token's change.
const tell = () => document.querySelector("#ask")?.toggleAttribute("data-running", ["live", "lost"].includes(root.dataset.state) || "waiting" in root.dataset || root.dataset.light === "going");
new MutationObserver(tell).observe(root, { attributeFilter: ["data-state", "data-waiting", "data-light"] });
// Charts below the stage: drawn anew when a run or a search for its ceiling ends while they are open; a click on a point moves the cursor.
new MutationObserver(() => {
  const open = document.querySelector("#charts .js-plotly-plot");
  if (open && open.offsetParent && ["done", "replay"].includes(root.dataset.state) && root.dataset.light !== "going") trigger("draw", root.trace());
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
// A press that would do nothing looks like it: a page has one run at a time, and one sweep. Not `disabled`, which would
// take the keyboard's place away.
const going = () => root.dataset.state === "live" || "waiting" in root.dataset;
new MutationObserver(() => {
  const generate = document.querySelector("#generate");
  if (!generate) return; // the page is still being built
  setAttribute(generate, "aria-disabled", going() ? "true" : null);
  setAttribute(generate, "title", going() ? "A run goes on: wait for its end, or press Stop" : null);
}).observe(root, { attributeFilter: ["data-state", "data-waiting"] });
const rest = (event) => {
  event.preventDefault();
  event.stopImmediatePropagation();
};
const pressed = (event) => {
  if (going() && event.target.closest?.("#generate")) rest(event);
  if (event.target.closest?.("#sweep-start") && document.querySelector("#sweep-status .sweep-going")) rest(event);
};
const entered = (event) => going() && event.key === "Enter" && !event.shiftKey && !event.isComposing && event.target.closest?.("#prompt") && rest(event);
document.addEventListener("click", pressed, true);
document.addEventListener("keydown", entered, true);
// A trace that is dropped on the stage opens as a chosen one does; a file that misses the stage must not replace the page.
const traceInput = () => {
  const input = document.querySelector("#open-trace")?.previousElementSibling; // as Gradio lays out its button
  return input?.matches("input[type=file]") ? input : null;
};
const carriesFiles = (event) => Array.from(event.dataTransfer?.types || []).includes("Files");
document.addEventListener("dragover", (event) => {
  if (event.defaultPrevented || !carriesFiles(event)) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = root.contains(event.target) ? "copy" : "none";
  root.toggleAttribute("data-over", root.contains(event.target));
});
root.addEventListener("dragleave", () => root.removeAttribute("data-over"));
root.addEventListener("drop", async (event) => {
  root.removeAttribute("data-over");
  const [file] = event.dataTransfer?.files || [];
  if (!file) return;
  event.preventDefault();
  if (tooLarge(file)) return;
  try {
    stage.ingest(await server.opened((await upload(file)).path));
  } catch (error) {
    console.error(error);
    stage.fail("The file could not be sent: check the connection and try again.");
  }
});
function tooLarge(file) {
  if (file.size > props.limit) stage.fail(`The trace is larger than ${props.limit / 2 ** 20} MB; load a shorter run.`);
  return file.size > props.limit;
}
document.addEventListener(
  "change",
  (event) => {
    const [file] = (event.target === traceInput() && event.target.files) || [];
    if (!file || !tooLarge(file)) return;
    event.stopImmediatePropagation();
    event.target.value = "";
  },
  true,
);
/** Copy a link to what the fields hold; values: theirs, in the order of the page. */
async function link(values) {
  try {
    const picture = (await document.querySelector("#picture")?.path) || "";
    const { query, error } = JSON.parse(await server.linked([...values, picture]));
    if (error) stage.fail(error);
    else copyLink(query);
  } catch (error) {
    console.error(error);
    stage.fail("The link could not be made: check the connection and try again.");
  }
}
watch("value", take);
take();
asking = new Asking(stage, root, connection, props.server_id, (names) => trigger("halt", names));
// What the page's own events call.
Object.assign(root, { asks: () => asking.send(), ready: () => asking.ready(), link, trigger, failed: () => asking.failed(), play: (text) => stage.ingest(text) });
// Where the answers lie below the window, a run that was asked for comes into view: on a phone the whole stage.
const ENOUGH = 160; // px of an answer that are enough to follow it
document.addEventListener("click", (event) => {
  if (!event.target.closest?.("#generate")) return;
  const below = root.querySelector(".lane:not([hidden]) .text").getBoundingClientRect().top - (window.innerHeight - ENOUGH);
  if (below > 0 && window.matchMedia("(max-width: 900px)").matches) root.scrollIntoView({ block: "start" });
  else if (below > 0) window.scrollBy({ top: below, behavior: "instant" });
});
