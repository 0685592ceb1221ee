// A lane's whole run in rows: AR's forwards, diffusion's denoising forwards, self-speculation's cycles. Rows are only
// ever appended; playing moves a mark over them. A row is a button that moves the cursor there.

const HISTORY = {
  ar: ["every forward", "probability"],
  diffusion: ["every denoising forward", "committed"],
  "self-speculation": ["every cycle", "new tokens"],
};
const ROW = 24; // px, as in stage.css
const ROWS = 5;

class History {
  constructor(root, mode) {
    this.mode = mode;
    const node = root.appendChild(make("div", "history"));
    const title = node.appendChild(make("h3"));
    title.append(make("span", "", HISTORY[mode][0]), make("span", "", HISTORY[mode][1]));
    this.list = node.appendChild(make("ol"));
    this.list.setAttribute("aria-label", `${root.getAttribute("aria-label")}: ${HISTORY[mode][0]}`);
    this.list.addEventListener("keydown", (event) => this.key(event));
    this.list.addEventListener("scroll", () => this.shade(Math.floor(this.list.scrollTop / ROW)), { passive: true });
    this.clear();
  }

  clear() {
    this.rows = [];
    this.taken = 0;
    this.block = new Map(); // diffusion: index → token of what the block under way holds
    this.current = -1;
    this.list.replaceChildren();
  }

  paint(log, lane, k) {
    for (; this.taken < lane.events.length; this.taken++) this.take(log, lane, lane.events[this.taken]);
    this.mark(this.find(lane, k));
  }

  take(log, lane, event) {
    if (this.mode === "ar") this.addToken(log, event);
    else if (this.mode === "diffusion") this.addDenoise(log, event);
    else if (event.phase === "verify") this.addCycle(log, lane, event);
  }

  addToken(log, event) {
    const position = event.positions[0];
    if (!position) return;
    const cells = this.add(event, String(event.forward), probability(position.confidence), `${forwardName(event)}: ${log.table.name(position.token)}`);
    cells.className = "h-token";
    cells.append(make("span", "", log.table.name(position.token)));
    cells.appendChild(make("u")).appendChild(make("i")).style.width = `${Math.min(1, position.confidence ?? 0) * 100}%`;
  }

  addDenoise(log, event) {
    for (const { index, token, state } of event.positions) if (KEPT.has(state)) this.block.set(index, token);
    if (event.phase !== "denoise") return;
    const count = event.positions.filter((p) => p.state === "committed").length;
    const label = `${forwardName(event)}, positions ${event.start} to ${event.start + event.length - 1}: ${count} committed`;
    const cells = this.add(event, String(event.forward), `+${count}`, label);
    const shown = new Map(event.positions.map((p) => [p.index, p]));
    const row = [];
    for (let index = event.start; index < event.start + event.length; index++) {
      const position = shown.get(index);
      const kind = position ? { committed: "now", masked: "wait" }[position.state] || position.state : "was";
      row.push([position?.token ?? this.block.get(index), kind]);
    }
    fillCells(cells, log, row);
  }

  addCycle(log, lane, event) {
    const drafted = lane.events[event.k - 1]?.phase === "draft" ? lane.events[event.k - 1].positions.length : 0;
    const cells = this.add(event, String(event.cycle), `+${event.gained}`, verifyTitle(event));
    const row = event.positions.map((p) => [p.token, p.state]);
    fillCells(cells, log, row, Math.max(drafted + 1, Number(log.head.request?.block_length) || 1));
  }

  add(event, number, figure, label) {
    const row = this.list.appendChild(make("li")).appendChild(make("button"));
    row.type = "button";
    row.dataset.k = event.k;
    row.dataset.when = "later";
    row.tabIndex = -1;
    if (!this.rows.length) (this.stop = row).tabIndex = 0;
    row.title = label;
    row.append(make("span", "n", number));
    const cells = row.appendChild(make("span", "cells"));
    row.append(make("b", "", figure));
    this.rows.push({ k: event.k, node: row });
    return cells;
  }

  /** The row that event k belongs to: a draft's is the cycle that verifies it. */
  find(lane, k) {
    let low = 0;
    let high = this.rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.rows[middle].k <= k) low = middle + 1;
      else high = middle;
    }
    return lane.events[k]?.phase === "draft" && low < this.rows.length ? low : low - 1;
  }

  mark(current) {
    if (current === this.current) return;
    this.rows[this.current]?.node.removeAttribute("aria-current");
    this.rows[current]?.node.setAttribute("aria-current", "step");
    this.current = current;
    if (!this.list.contains(document.activeElement)) this.rove(Math.max(0, current));
    const first = Math.max(0, current - (ROWS >> 1));
    this.list.scrollTop = first * ROW;
    this.shade(first);
  }

  /** Rows before, at and after the cursor look different; only those in view are touched. */
  shade(first) {
    for (let i = Math.max(0, first - ROWS); i < Math.min(this.rows.length, first + 2 * ROWS + 1); i++)
      setData(this.rows[i].node, "when", i < this.current ? "before" : i === this.current ? "now" : "later");
  }

  rove(to) {
    if (this.stop) this.stop.tabIndex = -1;
    this.stop = this.rows[to]?.node;
    if (this.stop) this.stop.tabIndex = 0;
  }

  key(event) {
    const step = { ArrowUp: -1, ArrowDown: 1, PageUp: -ROWS, PageDown: ROWS }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = this.rows.findIndex((row) => row.node === document.activeElement);
    const to = Math.max(0, Math.min(this.rows.length - 1, at + step));
    this.rove(to);
    this.rows[to].node.focus({ preventScroll: true });
    this.list.scrollTop = Math.max(0, to - (ROWS >> 1)) * ROW;
  }
}

function fillCells(cells, log, row, columns = row.length) {
  cells.style.setProperty("--n", columns);
  cells.dataset.dense = columns > 16 ? "yes" : "no";
  for (const [token, kind] of row) {
    const cell = cells.appendChild(make("span", "", token === undefined ? "" : log.table.short(token)));
    cell.dataset.kind = kind;
  }
}
