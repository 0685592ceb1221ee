// Inside gr.HTML: `element`, `props`, `server` and `watch` are in scope. Names come from files: textContent only.

const root = element.querySelector("#checkpoint");
const [chip, sheet] = [root.querySelector(".chip"), root.querySelector(".sheet")];
const [list, step] = [root.querySelector(".offers"), root.querySelector(".step")];
const wrong = root.querySelector(".error");
let state = {};
let offers = [];
let picked = null;
let [built, arriving] = [false, false];

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

function gigabytes(bytes) {
  return bytes < 1e8 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

function title(name) {
  return offers.find((offer) => offer.name === name)?.title || name.split("/").pop();
}

function say({ what, name, done, total, note }) {
  if (what === "load") return `Loading ${title(name)}… ${note || ""}`.trim();
  if (what === "wait") return `${title(name)} loads when the run in progress has ended; Stop ends it now.`;
  return total ? `Fetching ${title(name)}: ${gigabytes(done)} of ${gigabytes(total)}` : `Fetching ${title(name)}…`;
}

function paint() {
  const { running, problem } = state;
  chip.querySelector(".name").textContent = running ? running.checkpoint : "no model loaded";
  const at = running ? ` · ${running.device} · ${running.dtype}` : ": recorded runs only";
  const share = state.step?.total ? ` ${Math.floor((100 * state.step.done) / state.step.total)} %` : "…";
  chip.querySelector(".where").textContent = state.step ? ` · ${state.step.what === "fetch" ? "fetching" : "loading"}${share}` : at;
  const facts = running
    ? { device: running.device, weights: running.dtype, attention: running.attention }
    : { model: problem || "No model is loaded, so only recorded runs can be played." };
  root.querySelector(".facts").replaceChildren(
    ...Object.entries(facts).flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]),
  );
  wrong.hidden = !state.error;
  wrong.textContent = state.error || "";
  step.hidden = !state.step;
  if (state.step) {
    step.querySelector("p").textContent = say(state.step);
    const bar = step.querySelector("progress");
    bar.hidden = !state.step.total;
    [bar.max, bar.value] = [state.step.total || 1, state.step.done || 0];
    step.querySelector(".cancel").hidden = state.step.what === "load";
  }
  root.dataset.state = state.step ? state.step.what : state.error ? "error" : running ? "running" : "none";
  list.hidden = !state.choose;
  list.replaceChildren(...(state.choose ? offers.map(row) : []));
}

function row(offer) {
  const item = make("li", offer.running ? "running" : offer.off ? "off" : "");
  const button = make("button");
  button.type = "button";
  button.disabled = Boolean(offer.off || offer.running || state.step);
  button.append(make("b", "", offer.title), make("span", "", note(offer)));
  button.setAttribute("aria-expanded", String(offer.name === picked));
  button.addEventListener("click", () => {
    picked = offer.name === picked ? null : offer.name;
    paint();
    list.querySelector('[aria-expanded="true"]')?.focus();
  });
  item.append(button);
  if (offer.name === picked && !state.step) item.append(confirm(offer));
  return item;
}

function note(offer) {
  if (offer.running) return "runs now";
  if (offer.off) return `Off: ${offer.off.replace(/\.$/, "")}.`;
  return offer.size || "on this machine";
}

// Before anything is fetched or replaced: how much comes, whose licence it has, what goes.
function confirm(offer) {
  const box = make("div", "confirm");
  const text = make("p");
  if (offer.fetch) text.append(`Fetches ${offer.fetch}. `);
  if (offer.licence) {
    const link = make("a", "", offer.licence);
    [link.href, link.target, link.rel] = [offer.card, "_blank", "noopener noreferrer"];
    text.append("Licence: ", link, ". ");
  }
  text.append(state.running ? `Takes the place of ${state.running.checkpoint}, for everybody on this page.` : "");
  const go = make("button", "go", offer.fetch ? "Fetch and load" : "Load");
  go.type = "button";
  go.addEventListener("click", () => {
    picked = null;
    root.choose(offer.name);
    chip.focus();
  });
  box.append(text, go);
  return box;
}

function take(next) {
  const done = state.step && !next.step;
  const switched = done && !state.step.first && next.running?.checkpoint !== state.running?.checkpoint;
  state = next;
  if (state.error) show(true);
  else if (switched) show(false); // after Cancel the list stays for another choice
  paint();
  if (done) refresh();
  // The page has opened before its model was there: ask to be told. What the page was built with may be of long ago.
  if (next.step?.first && built && !arriving) {
    arriving = true;
    trigger("arrive", null);
  }
}

async function refresh() {
  if (!state.choose) return;
  const answer = JSON.parse(await server.offers(""));
  offers = answer.offers || [];
  if (answer.error) state = { ...state, error: answer.error };
  paint();
}

function show(open) {
  sheet.hidden = !open;
  chip.setAttribute("aria-expanded", String(open));
}

chip.addEventListener("click", () => {
  show(sheet.hidden);
  picked = null;
  if (!sheet.hidden) refresh();
});
step.querySelector(".cancel").addEventListener("click", () => trigger("cancel", null));
document.addEventListener("click", (event) => {
  if (event.isTrusted && event.target.isConnected && !root.contains(event.target)) show(false);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || sheet.hidden) return;
  show(false);
  chip.focus();
});

/** Fetch and load a checkpoint, of which the header tells. */
root.choose = (name) => {
  trigger("choose", name);
  take({ ...state, error: "", step: { what: "fetch", name, done: 0, total: 0 } });
};

/** Gradio says that a fetch or a load failed. */
root.failed = () => {
  if (state.step) take({ ...state, step: null, error: "The checkpoint could not be loaded: the server is busy or the connection was lost. Try again in a moment." });
};

function read() {
  if (props.value) take(JSON.parse(props.value));
}
watch("value", read);
read();
built = true;
