// Inside gr.HTML: `element` and `props` are in scope. One explanation at a time, below the field that it is about: while
// the pointer is on the field's name, or the keyboard in the field. Escape hides it.

const tip = element.querySelector("#word");
const unfold = element.querySelector(".unfold");
let owner = null;

/** The field that a node belongs to, and what there is to say of it. */
function fieldOf(node) {
  const mode = node.closest?.("#modes label");
  if (mode) return [mode, props.words[mode.querySelector("input")?.name]];
  const block = node.closest?.("#options .block[id], #extras .block[id]");
  return block ? [block, props.words[block.id]] : [null, ""];
}

function show([field, text]) {
  if (!field || !text) return hide();
  if (field === owner) return;
  hide();
  owner = field;
  tip.textContent = text;
  tip.hidden = false;
  for (const input of field.querySelectorAll("input")) input.setAttribute("aria-describedby", tip.id);
  const box = field.getBoundingClientRect();
  const around = tip.offsetParent.getBoundingClientRect();
  const left = Math.max(0, Math.min(box.left - around.left, around.width - tip.offsetWidth));
  tip.style.transform = `translate(${Math.round(left)}px, ${Math.round(box.bottom - around.top + 6)}px)`;
}

function hide() {
  for (const input of owner?.querySelectorAll("input") || []) input.removeAttribute("aria-describedby");
  owner = null;
  tip.hidden = true;
}

const named = (event) => event.target.closest?.('[data-testid="block-info"], #modes label, #extras .checkbox-container');
document.addEventListener("pointerover", (event) => {
  if (event.pointerType === "touch" || tip.contains(event.target)) return;
  if (named(event)) show(fieldOf(event.target));
  else if (owner && !owner.contains(document.activeElement)) hide();
});
document.addEventListener("focusin", (event) => show(fieldOf(event.target)));
document.addEventListener("focusout", hide);
document.addEventListener("keydown", (event) => event.key === "Escape" && hide(), true);
document.addEventListener("input", hide, true);

/** Where there is little room the settings are folded; those that a link has changed are not. */
function fold(open) {
  document.querySelector("#watch")?.toggleAttribute("data-unfolded", open);
  unfold.setAttribute("aria-expanded", String(open));
}
unfold.addEventListener("click", () => fold(unfold.getAttribute("aria-expanded") !== "true"));
const linked = Array.from(new URLSearchParams(location.search).keys()).some((key) => !key.startsWith("__") && !["prompt", "picture"].includes(key));
if (linked) fold(true);
