// One tooltip for every token: what it is, how sure the model was, what else it could have been, when it was decided.

const STATE_WORDS = {
  masked: "still masked: the model's current guess",
  committed: "committed by the sampler",
  drafted: "drafted, not verified yet",
  accepted: "draft accepted by the AR pass",
  rejected: "draft rejected by the AR pass",
  corrected: "the AR pass's own token, in place of a rejected draft",
  bonus: "the AR pass's bonus token after a full acceptance",
  seed: "seed: the causal forward's own next token",
  discarded: "discarded: after EOS, beyond the limit or behind a rejected draft",
};

class Tooltip {
  constructor(root, getLog) {
    this.root = root;
    this.node = root.querySelector(".tip");
    this.getLog = getLog;
    const lanes = root.querySelector(".lanes");
    lanes.addEventListener("pointerover", (event) => this.show(event.target.closest?.(".text .t")));
    lanes.addEventListener("pointerleave", () => this.hide());
    lanes.addEventListener("focusin", (event) => this.show(event.target.closest?.(".text .t")));
    lanes.addEventListener("focusout", () => this.hide());
    lanes.addEventListener("scroll", () => this.hide(), true);
  }

  hide() {
    this.node.hidden = true;
    this.owner?.removeAttribute("aria-describedby");
    this.owner = null;
  }

  /** Drawn again after every paint, since the token under the pointer may have changed. */
  refresh() {
    if (!this.owner) return;
    if (this.owner.isConnected && this.owner.dataset.index !== undefined) this.show(this.owner);
    else this.hide();
  }

  show(owner) {
    const log = this.getLog();
    if (!owner || !owner.cell || !log) {
      this.hide();
      return;
    }
    if (owner === this.owner && owner.cell === this.cell) return;
    if (owner !== this.owner) this.owner?.removeAttribute("aria-describedby");
    this.owner = owner;
    this.cell = owner.cell;
    this.fill(log, owner.cell);
    owner.setAttribute("aria-describedby", this.node.id);
    this.node.hidden = false;
    this.put(owner);
  }

  fill(log, cell) {
    const table = log.table;
    const head = make("div", "tip-head");
    head.append(make("b", "", table.name(cell.token)), make("span", "", `token ${cell.index} · id ${cell.token}`));
    const facts = make("dl");
    const fact = (name, value) => facts.append(make("dt", "", name), make("dd", "", value));
    fact("state", STATE_WORDS[cell.state] || cell.state);
    fact(cell.state === "masked" || cell.state === "drafted" ? "as of" : "decided in", `${forwardName(cell)}, ${PHASES[cell.phase] || cell.phase}`);
    if (cell.confidence != null) fact("confidence", cell.confidence.toFixed(3));
    if (cell.score != null) fact("score", cell.score.toFixed(3));
    if (cell.verifier != null) fact("verifier's token", table.name(cell.verifier));
    this.node.replaceChildren(head, facts);
    if (!cell.top?.length) return;
    const list = this.node.appendChild(make("div", "bars"));
    for (const [token, p] of cell.top) {
      const row = list.appendChild(make("div", token === cell.token ? "chosen" : ""));
      row.append(make("span", "", table.name(token)));
      row.appendChild(make("u")).appendChild(make("i")).style.width = `${Math.min(1, p) * 100}%`;
      row.append(make("span", "", probability(p)));
    }
  }

  put(owner) {
    const frame = this.root.getBoundingClientRect();
    const rects = owner.getClientRects();
    const token = rects.length ? rects[0] : owner.getBoundingClientRect();
    const box = this.node.getBoundingClientRect();
    const left = Math.max(8, Math.min(token.left - frame.left, frame.width - box.width - 8));
    const below = token.bottom + box.height + 10 < window.innerHeight || token.top < box.height + 10;
    const top = below ? token.bottom - frame.top + 8 : token.top - frame.top - box.height - 8;
    this.node.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  }
}
