// Inside gr.HTML: `element`, `props` and `server` are in scope. Texts reach the page by textContent alone.

const root = element.querySelector("#shelf");
const list = root.querySelector(".cards");
const stage = () => document.querySelector("#stage");
const add = (parent, tag, className, text = "") => {
  const node = parent.appendChild(document.createElement(tag));
  node.className = className;
  node.textContent = text;
  return node;
};
const NAMES = { ar: "AR", diffusion: "diffusion", "self-speculation": "self-speculation" };

function draw(card) {
  const node = add(list, "button", "card");
  node.type = "button";
  node.title = [card.prompt, card.says.text, `Recorded: ${card.recorded}`].filter(Boolean).join("\n");
  const head = add(node, "span", "head");
  add(head, "b", "title", card.title);
  const says = add(head, "span", "says", card.says.short);
  if (card.says.tone) says.dataset.tone = card.says.tone;
  const most = Math.max(1, ...card.lanes.map((lane) => lane.forwards));
  const bars = add(node, "span", "bars");
  for (const lane of card.lanes) {
    const row = add(bars, "span", "row");
    row.dataset.of = lane.mode;
    const bar = add(row, "i", "");
    bar.style.width = `${(lane.forwards / most) * 100}%`;
    add(row, "span", "n", String(lane.forwards));
  }
  bars.setAttribute("role", "img");
  bars.setAttribute("aria-label", `forwards: ${card.lanes.map((lane) => `${NAMES[lane.mode]} ${lane.forwards}`).join(", ")}`);
  add(node, "span", "more", card.says.text);
  node.addEventListener("click", () => play(card, node));
  return node;
}

async function play(card, node) {
  try {
    stage().play(await server.played(card.name));
  } catch (error) {
    console.error(error);
    return;
  }
  mark(node);
  const box = stage().getBoundingClientRect();
  if (box.top > window.innerHeight / 2) stage().scrollIntoView({ block: "start" });
}

function mark(node) {
  for (const one of list.children) one.removeAttribute("aria-current");
  node?.setAttribute("aria-current", "true");
}

const cards = (props.cards || []).map(draw);
mark(cards[0]);
const recorded = new Set((props.cards || []).map((card) => card.recorded));
root.querySelector("header p").textContent = recorded.size === 1 ? [...recorded][0] : "";
root.querySelector(".tour").addEventListener("click", () => document.querySelector("#tour")?.begin());
// What is on the stage is no recording of this shelf any more once something else runs there.
const watchStage = () => {
  if (!stage()) return void requestAnimationFrame(watchStage);
  new MutationObserver(() => ["live", "idle"].includes(stage().dataset.state) && mark(null)).observe(stage(), { attributeFilter: ["data-state"] });
};
watchStage();
