// A lane's whole run in rows: AR's forwards, diffusion's denoising forwards, self-speculation's cycles. Rows are only
// ever appended; playing moves a mark over them. A row is a button that moves the cursor there. Of a long run's
// hundreds of rows only those in view are in the page.

const HISTORY = {
  ar: ["every forward", "probability"],
  diffusion: ["every denoising forward", "committed"],
  "self-speculation": ["every cycle", "new tokens"],
};
const ROW = window.matchMedia("(pointer: coarse), (max-width: 520px)").matches ? 40 : 24; // px
const ROWS = 5;
const WIDE = 128; // places of a block; a trace from a file may say anything

class History {
  constructor(root, mode) {
    this.mode = mode;
    const node = root.appendChild(make("div", "history"));
    const title = node.appendChild(make("h3"));
    title.append(make("span", "", HISTORY[mode][0]), make("span", "", HISTORY[mode][1]));
    this.list = node.appendChild(make("ol"));
    this.list.style.setProperty("--row", `${ROW}px`);
    this.list.setAttribute("aria-label", `${root.getAttribute("aria-label")}: ${HISTORY[mode][0]}`);
    this.list.addEventListener("keydown", (event) => this.key(event));
    this.list.addEventListener("scroll", () => this.scrolled(Math.floor(this.list.scrollTop / ROW)), { passive: true });
    this.clear();
  }

  clear() {
    this.rows = []; // {k, number, figure, label, fill(cells), node once it was in view}
    this.shown = new Set();
    this.taken = 0;
    this.current = -1;
    this.first = 0;
    this.stop = 0; // the row that Tab reaches
    this.list.replaceChildren();
  }

  paint(log, lane, k) {
    const before = this.rows.length;
    for (; this.taken < lane.events.length; this.taken++) this.take(log, lane, lane.events[this.taken]);
    const grown = this.rows.length !== before;
    if (grown) this.list.style.setProperty("--rows", this.rows.length);
    const current = this.find(lane, k);
    if (current === this.current && !grown) return;
    this.moved ||= current !== this.current;
    if (current !== this.current) this.first = Math.max(0, Math.min(this.rows.length - ROWS, current - (ROWS >> 1)));
    this.current = current;
    if (!this.list.contains(document.activeElement)) this.stop = Math.max(0, current);
    this.show(this.first);
  }

  /** Bring the marked row into view: after all lanes were drawn, since it needs their layout. */
  settle() {
    if (this.moved) this.list.scrollTop = this.first * ROW;
    this.moved = false;
  }

  take(log, lane, event) {
    if (this.mode === "ar") this.addToken(log, event);
    else if (this.mode === "diffusion") this.addDenoise(log, lane, event);
    else if (event.phase === "verify") this.addCycle(log, lane, event);
  }

  addToken(log, event) {
    const position = event.positions[0];
    if (!position) return;
    this.add(event, event.forward, probability(position.confidence), `${forwardName(event)}: ${log.table.name(position.token)}`, (cells) => {
      cells.className = "h-token";
      cells.append(make("span", "", log.table.name(position.token)));
      cells.appendChild(make("u")).appendChild(make("i")).style.width = `${Math.min(1, position.confidence ?? 0) * 100}%`;
    });
  }

  addDenoise(log, lane, event) {
    if (event.phase !== "denoise") return;
    const count = event.positions.filter((p) => p.state === "committed").length;
    const label = `${forwardName(event)}, positions ${event.start} to ${event.start + event.length - 1}: ${count} committed`;
    this.add(event, event.forward, `+${count}`, label, (cells) => fillCells(cells, log, blockRow(lane, event)));
  }

  addCycle(log, lane, event) {
    const before = lane.events[event.k - 1];
    const drafted = before?.positions.filter((p) => p.state === "drafted").length || 0;
    const row = () => event.positions.filter((p) => p.state !== "drafted").map((p) => [p.token, p.state]);
    const columns = Math.max(drafted + 1, Number(log.head.request?.block_length) || 1);
    this.add(event, event.cycle, `+${event.gained}`, verifyTitle(event), (cells) => fillCells(cells, log, row().slice(0, WIDE), columns));
  }

  add({ k }, number, figure, label, fill) {
    this.rows.push({ k, number: String(number), figure, label, fill, node: null });
  }

  build(index) {
    const row = this.rows[index];
    row.node = make("li");
    row.node.style.top = `${index * ROW}px`;
    row.node.setAttribute("aria-posinset", index + 1);
    const button = row.node.appendChild(make("button"));
    button.type = "button";
    button.dataset.k = row.k;
    button.title = row.label;
    button.append(make("span", "n", row.number));
    row.fill(button.appendChild(make("span", "cells")));
    button.append(make("b", "", row.figure));
    return row.node;
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

  /** A reader scrolls: more rows around, so that none is missing before the next call. */
  scrolled(first) {
    if (first !== this.first) this.show(first, ROWS);
  }

  /** Put the rows from `first` on into the page, with some around them, and the one that Tab reaches. */
  show(first, around = 1) {
    this.first = first;
    const wanted = new Set([this.stop]);
    for (let i = Math.max(0, first - around); i < first + ROWS + around; i++) wanted.add(i);
    for (const index of this.shown) if (!wanted.has(index)) this.rows[index].node.remove();
    this.shown = new Set(Array.from(wanted).filter((index) => index < this.rows.length).sort((a, b) => a - b));
    let next = this.list.firstChild;
    for (const index of this.shown) {
      const node = this.rows[index].node || this.build(index);
      if (node === next) next = next.nextSibling;
      else this.list.insertBefore(node, next);
      this.look(node, index);
    }
  }

  look(node, index) {
    const button = node.firstChild;
    setData(button, "when", index < this.current ? "before" : index === this.current ? "now" : "later");
    setAttribute(node, "aria-setsize", this.rows.length);
    setAttribute(button, "aria-current", index === this.current ? "step" : null);
    setAttribute(button, "tabindex", index === this.stop ? 0 : -1);
  }

  key(event) {
    const step = { ArrowUp: -1, ArrowDown: 1, PageUp: -ROWS, PageDown: ROWS }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = this.rows.findIndex((row) => row.node?.contains(document.activeElement));
    const to = Math.max(0, Math.min(this.rows.length - 1, at + step));
    this.stop = to;
    this.show(Math.max(0, to - (ROWS >> 1)));
    this.list.scrollTop = this.first * ROW;
    this.rows[to].node.firstChild.focus({ preventScroll: true });
  }
}

/** [token, what the forward made of it] of every place of its block; made when it comes into view. */
function blockRow(lane, event) {
  const { cells } = lane.at(event.k);
  const shown = new Map(event.positions.map((p) => [p.index, p]));
  const row = [];
  for (let index = event.start; index < event.start + Math.min(event.length, WIDE); index++) {
    const position = shown.get(index);
    const kind = position ? { committed: "now", masked: "wait" }[position.state] || position.state : "was";
    row.push([position?.token ?? (isKept(cells[index]) ? cells[index].token : undefined), kind]);
  }
  return row;
}

function fillCells(cells, log, row, columns = row.length) {
  cells.style.setProperty("--n", columns);
  cells.dataset.dense = columns > 16 ? "yes" : "no";
  for (const [token, kind] of row) {
    const cell = cells.appendChild(make("span", "", token === undefined ? "" : log.table.short(token)));
    cell.dataset.kind = kind;
  }
}
