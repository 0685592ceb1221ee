// The pinned token: what every forward made of its position, what else it could have been, what the other lanes put
// there, and where a branch could begin. A click or Enter on a token pins it, Escape lets it go.

const DRAG = 4; // px; less is a click

class Inspector {
  /** hooks.branch({mode, index, token, prefix}) regenerates from a token on; without it there are no such buttons. */
  constructor(root, hooks, seek, onPin) {
    this.root = root;
    this.hooks = hooks;
    this.seek = seek;
    this.onPin = onPin;
    this.pinned = null;
    this.node = make("section", "pin");
    this.node.hidden = true;
    this.node.tabIndex = -1;
    this.node.setAttribute("aria-label", "Pinned token");
    root.querySelector(".lanes").after(this.node);
    let pressed = { at: [0, 0], selected: "" };
    const selected = () => (document.getSelection().isCollapsed ? "" : String(document.getSelection()));
    root.querySelector(".lanes").addEventListener("pointerdown", (event) => {
      pressed = { at: [event.clientX, event.clientY], selected: selected() };
    });
    root.querySelector(".lanes").addEventListener("click", (event) => {
      // A drag selects text, and so does a second click: neither is meant for the token.
      const moved = event.detail && Math.hypot(event.clientX - pressed.at[0], event.clientY - pressed.at[1]) > DRAG;
      const selects = selected() && selected() !== pressed.selected;
      if (!moved && !selects) this.take(event.target.closest?.(".text .t"));
    });
    root.addEventListener("keydown", (event) => {
      const token = event.target.closest?.(".text .t");
      if (event.key === "Enter" && token) this.take(token);
      else if (event.key === "Escape" && this.pinned) this.unpin();
      else return;
      event.preventDefault();
    });
  }

  take(token) {
    if (!token?.cell) return;
    const mode = token.closest("[data-lane]").dataset.lane;
    const index = token.cell.index;
    if (this.pinned?.mode === mode && this.pinned.index === index) this.unpin();
    else this.pin(mode, index);
  }

  pin(mode, index) {
    this.pinned = { mode, index };
    this.drawn = null;
    this.fresh = true;
    setData(this.root, "pinned", `${mode}/${index}`);
    this.onPin();
  }

  unpin() {
    if (!this.pinned) return;
    const { mode, index } = this.pinned;
    const inside = this.node.contains(document.activeElement);
    this.pinned = null;
    this.node.hidden = true;
    this.node.replaceChildren();
    setData(this.root, "pinned", null);
    this.marked?.removeAttribute("data-pin");
    if (inside) this.root.querySelector(`[data-lane="${mode}"] .t[data-index="${index}"]`)?.focus({ preventScroll: true });
  }

  paint(log, cursorOf) {
    if (!this.pinned) return;
    const { mode, index } = this.pinned;
    const lane = log.lanes.get(mode);
    if (!lane) {
      this.unpin();
      return;
    }
    const key = [log.ended, ...Array.from(log.lanes.values(), (one) => Math.min(one.events.length, one.prefix > index ? 0 : Infinity))].join("/");
    if (key !== this.drawn) this.draw(log, lane, index);
    this.drawn = key;
    const k = cursorOf(lane);
    let now = null;
    for (const row of this.node.querySelectorAll(".pin-rows [data-k]")) {
      if (Number(row.dataset.k) <= k) now = row;
      row.removeAttribute("aria-current");
    }
    now?.setAttribute("aria-current", "step");
    const token = this.root.querySelector(`[data-lane="${mode}"] .t[data-index="${index}"]:not([data-state="rejected"])`);
    if (token !== this.marked) this.marked?.removeAttribute("data-pin");
    token?.setAttribute("data-pin", "");
    this.marked = token;
    // The panel stays at the lower edge of the window; the token that it is about must not lie behind it.
    if (this.fresh && token) window.scrollBy(0, Math.max(0, token.getBoundingClientRect().bottom + 24 - this.node.getBoundingClientRect().top));
    this.fresh = false;
  }

  draw(log, lane, index) {
    const { node } = this;
    const steps = stepsOf(lane, index);
    const last = lane.tip.cells[index];
    node.hidden = false;
    setData(node, "mode", lane.mode);
    setData(node, "index", index);
    const head = make("div", "pin-head");
    head.append(make("h3", "", last ? log.table.name(last.token) : "…"));
    head.append(make("span", "", [`token ${index}`, this.name(lane.mode), last ? `id ${last.token}` : ""].filter(Boolean).join(" · ")));
    const close = head.appendChild(make("button", "save", "Close"));
    close.type = "button";
    close.title = "Unpin (Esc)";
    close.addEventListener("click", () => this.unpin());
    const parts = make("div", "pin-parts");
    parts.append(this.forwards(log, lane, steps), this.alternatives(log, lane, index, steps), this.others(log, lane, index));
    const scroll = node.querySelector(".pin-rows")?.scrollTop || 0;
    node.replaceChildren(head, parts);
    node.querySelector(".pin-rows").scrollTop = scroll;
  }

  name(mode) {
    return this.root.querySelector(`[data-lane="${mode}"]`).getAttribute("aria-label");
  }

  forwards(log, lane, steps) {
    const part = make("div", "pin-history");
    part.append(make("h4", "", "Forward by forward"));
    const list = part.appendChild(make("ol", "pin-rows"));
    for (const position of steps) {
      const row = list.appendChild(make("li")).appendChild(make("button"));
      row.type = "button";
      row.dataset.k = position.k;
      row.dataset.state = position.state;
      row.append(make("span", "n", forwardName(position)), make("span", "what", log.table.name(position.token)));
      row.appendChild(make("u")).appendChild(make("i")).style.width = `${Math.min(1, position.confidence ?? 0) * 100}%`;
      row.append(make("span", "p", position.confidence == null ? "–" : position.confidence.toFixed(3)), make("span", "why", ruleOf(log, lane, position)));
      row.addEventListener("click", () => this.seek(lane.mode, position.k));
    }
    return part;
  }

  alternatives(log, lane, index, steps) {
    const part = make("div", "pin-top");
    const said = steps.filter((p) => p.top?.length);
    const position = said.findLast((p) => KEPT.has(p.state)) || said[said.length - 1];
    part.append(make("h4", "", position ? `Alternatives, ${forwardName(position)}` : "Alternatives"));
    if (!position) {
      part.append(make("p", "", "None were recorded."));
      return part;
    }
    const list = part.appendChild(make("div", "bars"));
    const can = this.hooks.branch && lane.prefix >= index;
    for (const [token, p] of position.top) {
      const row = list.appendChild(make("div", token === position.token ? "chosen" : ""));
      row.append(make("span", "", log.table.name(token)));
      row.appendChild(make("u")).appendChild(make("i")).style.width = `${Math.min(1, p) * 100}%`;
      row.append(make("span", "", probability(p)));
      if (!can) continue;
      if (token === position.token) {
        row.append(make("em", "", "taken"));
        continue;
      }
      const button = row.appendChild(make("button", "save", "branch here"));
      button.type = "button";
      button.disabled = !log.ended;
      button.setAttribute("aria-label", `Branch here with ${log.table.name(token)}`);
      const prefix = lane.tip.cells.slice(0, index).map((cell) => cell.token);
      button.addEventListener("click", () => this.hooks.branch({ mode: lane.mode, index, token, prefix }));
    }
    setData(list, "branch", can ? "yes" : null);
    return part;
  }

  others(log, lane, index) {
    const part = make("div", "pin-others");
    part.append(make("h4", "", `Token ${index} in the other lanes`));
    const mine = lane.tip.cells[index];
    const facts = part.appendChild(make("dl"));
    for (const [mode, other] of log.lanes) {
      if (mode === lane.mode) continue;
      const cell = other.tip.cells[index];
      const kept = isKept(cell);
      const term = facts.appendChild(make("dt", "", mode === "ar" ? "AR" : this.name(mode)));
      term.dataset.of = mode;
      const fact = facts.appendChild(make("dd"));
      fact.dataset.of = mode;
      if (kept) fact.append(make("b", "", log.table.name(cell.token)), make("span", "", ` ${probability(cell.confidence)}, ${forwardName(cell)}`));
      else fact.append(make("span", "", other.finish ? "its answer is shorter" : "not there yet"));
      if (kept && isKept(mine)) fact.append(make("em", "", cell.token === mine.token ? " = the same" : " ≠ another"));
    }
    if (!facts.childElementCount) facts.replaceWith(make("p", "", "This run has one lane only."));
    const first = log.compare(lane.mode)?.first;
    if (first != null && first < index) part.append(make("p", "", `The texts already differ from token ${first} on.`));
    return part;
  }
}

/** Every position that a lane's forwards left at an index, in their order. */
function stepsOf(lane, index) {
  return lane.events.flatMap((event) => event.positions.filter((position) => position.index === index));
}

/** Why a forward left a position as it did, by the settings of the run. */
function ruleOf(log, lane, position) {
  const request = log.head.request || {};
  const { state, confidence } = position;
  if (state === "committed" && lane.mode === "ar") return request.temperature > 0 ? `drawn at temperature ${request.temperature}` : "the most probable next token";
  if (state === "committed") return commitRule(request, position);
  if (state === "masked") return waitRule(request);
  if (state === "rejected") return position.verifier == null ? "rejected by the AR pass" : `rejected: the AR pass says ${log.table.name(position.verifier)}`;
  if (state === "discarded" && lane.mode === "self-speculation") return lane.answer[position.index] === position.token && position.index < lane.prefix ? "cut behind a mismatch, but right after all" : "cut: behind a mismatch or the end";
  return RULES[state] || state;
}

const RULES = {
  drafted: "drafted by the bidirectional forward",
  accepted: "accepted: the AR pass says the same",
  corrected: "the AR pass's own token, in place of the draft",
  bonus: "the AR pass's bonus after a full acceptance",
  seed: "the causal forward's own next token",
  discarded: "cut: after EOS or beyond the limit",
};

function commitRule(request, { confidence, score }) {
  const sampler = request.sampler || "confidence";
  const leftmost = request.order === "leftmost";
  if (sampler === "fixed") return `committed: among the ${leftmost ? "first" : "best"} of ${plural(request.steps || 0, "step")} per block`;
  if (sampler === "entropy") return `committed: entropies sum to ≤ ${request.entropy_bound}`;
  const [name, judged] = sampler === "trained" ? ["score", score] : ["confidence", confidence];
  if (request.threshold == null || judged == null) return "committed by the sampler";
  const limit = Number(request.threshold).toFixed(2);
  const always = leftmost ? "the leftmost masked position" : "the most confident of its forward";
  return judged >= request.threshold ? `committed: ${name} ≥ ${limit}` : `committed: ${always}`;
}

function waitRule(request) {
  const sampler = request.sampler || "confidence";
  const name = { confidence: "confidence", trained: "score" }[sampler];
  if (request.order === "leftmost") return "waits: something left of it is masked or unsure";
  if (name && request.threshold != null) return `waits: ${name} < ${Number(request.threshold).toFixed(2)}`;
  if (sampler === "entropy") return "waits: beyond the entropy bound";
  return sampler === "fixed" ? "waits: others were surer" : "waits";
}
