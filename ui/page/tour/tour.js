// Inside gr.HTML: `element` and `props` are in scope. A panel at the lower edge that takes nobody's page away: what it
// tells of is outlined, everything stays usable, Escape ends it.

const STORE = "nemodiff-tour";
const STEPS = [
  {
    of: "#stage .lanes",
    title: "One model, three lanes",
    text: "The same weights answer the same prompt three times. Autoregressive writes 1 token per forward, a forward being one pass through the model. Block diffusion guesses a whole block and commits what it is sure of. Self-speculation drafts like diffusion and lets AR verify: AR's text, in fewer forwards.",
  },
  {
    of: "#stage .legend",
    title: "What the colours say",
    text: "Yellow is new in this forward, dotted is a guess. Green underlines a draft that was accepted, blue what the verifier wrote itself; what is struck out was rejected. Point at any token, or press it, to see what else it could have been.",
  },
  {
    of: "#stage .bar",
    title: "Two clocks",
    text: "Forwards counts passes through the model, Seconds is measured model time: a lane that needs fewer forwards is not always as much faster. Drag along the lines, or step with the arrow keys; space plays.",
  },
  {
    of: "#ask",
    title: "Now you",
    text: "Press a recorded run to play it, or write a prompt and press Generate: the model really runs. Every setting says what it does when you point at its name.",
  },
];

const root = element.querySelector("#tour");
const part = (name) => root.querySelector(name);
let step = 0;
let before = null; // where the keyboard was
let place = 0; // where the page was

const target = () => document.querySelector(STEPS[step].of);

function show() {
  const { title, text } = STEPS[step];
  part(".at").textContent = `Step ${step + 1} of ${STEPS.length}`;
  part("#tour-title").textContent = title;
  part("#tour-text").textContent = text;
  part(".back").disabled = step === 0;
  part(".next").textContent = step === STEPS.length - 1 ? "Done" : "Next";
  for (const one of document.querySelectorAll("[data-toured]")) one.removeAttribute("data-toured");
  const node = target();
  node?.setAttribute("data-toured", "");
  root.dataset.step = String(step + 1);
  if (!node) return;
  // In view above the panel, at its top where it is taller than that.
  const box = node.getBoundingClientRect();
  const room = window.innerHeight - root.offsetHeight - 24;
  if (box.top < 0 || box.top > room || (box.bottom > room && box.height < room)) window.scrollBy({ top: box.top - Math.max(12, (room - box.height) / 2), behavior: "instant" });
}

function begin() {
  before = document.activeElement;
  place = window.scrollY;
  step = 0;
  root.hidden = false;
  document.body.style.paddingBottom = `${root.offsetHeight + 32}px`; // what is lowest can be seen above the panel
  show();
  root.focus({ preventScroll: true });
}

function end() {
  if (root.hidden) return;
  const inside = root.contains(document.activeElement);
  root.hidden = true;
  document.body.style.paddingBottom = "";
  for (const one of document.querySelectorAll("[data-toured]")) one.removeAttribute("data-toured");
  window.scrollTo({ top: place, behavior: "instant" });
  if (inside && before?.isConnected) before.focus({ preventScroll: true });
  try {
    localStorage.setItem(STORE, "seen");
  } catch {
    // it comes again, then
  }
}

function seen() {
  try {
    return localStorage.getItem(STORE) !== null;
  } catch {
    return false;
  }
}

part(".skip").addEventListener("click", end);
part(".back").addEventListener("click", () => {
  step = Math.max(0, step - 1);
  show();
});
part(".next").addEventListener("click", () => {
  if (step === STEPS.length - 1) return end();
  step += 1;
  show();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || root.hidden) return;
  event.preventDefault();
  event.stopPropagation();
  end();
}, true);
root.begin = begin;
// Once there is something to tell of.
const wait = () => {
  if (seen() || !root.isConnected) return;
  if (["replay", "done", "idle"].includes(document.querySelector("#stage")?.dataset.state)) begin();
  else requestAnimationFrame(wait);
};
if (props.begins) wait();
