// The attention of the forward in view, a matrix per lane: rows of the forward, and what each of them sees: the prefix
// cache (one column) and the forward's own positions. Below: which keys and values stay in the cache.

const SIZE = 14; // px, one square
const CACHE = 46; // px, the cache's column
const MOST = 288; // rows: a quadratic cycle of 16 has 272. A trace from a file may say anything.

class AttentionView {
  constructor(root, schedule) {
    this.root = root;
    this.node = root.querySelector(".attention");
    this.grid = this.node.querySelector(".matrices");
    this.parts = new Map();
    for (const lane of root.querySelectorAll("[data-lane]")) {
      const part = this.grid.appendChild(make("figure", "matrix"));
      part.dataset.of = lane.dataset.lane;
      const drawing = part.appendChild(make("div", "drawing"));
      drawing.setAttribute("aria-hidden", "true");
      const caption = part.appendChild(make("figcaption"));
      this.parts.set(lane.dataset.lane, { part, drawing, caption, name: lane.getAttribute("aria-label"), key: "" });
    }
    this.node.addEventListener("toggle", schedule);
  }

  paint(log, cursorOf, hides) {
    if (!this.node.open) return;
    for (const [mode, one] of this.parts) {
      const lane = log.lanes.get(mode);
      one.part.hidden = !lane || hides(mode);
      if (one.part.hidden) continue;
      const event = lane.events[cursorOf(lane)];
      const shape = event ? attentionOf(log, event) : null;
      const key = shape ? `${event.k}/${event.phase}/${shape.kept}/${shape.labels.join("\u0000")}` : "none";
      if (key === one.key) continue;
      one.key = key;
      setData(one.part, "phase", event?.phase);
      setData(one.part, "kept", shape?.kept);
      one.drawing.replaceChildren(...(shape ? [drawMatrix(shape)] : []));
      one.caption.replaceChildren(make("b", "", shape ? `${one.name}, ${PHASES[event.phase] || event.phase}: ` : `${one.name}: `), document.createTextNode(shape ? shape.words : "waiting for the first forward"));
    }
  }
}

/** Rows of a forward, their names, what each sees (only those before it, or a rule), how many rows' keys and values stay. */
function attentionOf(log, event) {
  if (isTree(log, event)) return treeRows(log, event);
  if (event.raw.groups?.length) return groupsOf(log, event);
  const block = Math.min(MOST, Number(log.head.request?.block_length) || event.length || 1);
  const first = event.positions[0]?.index ?? event.start;
  const name = (position) => log.table.short(position.token);
  const many = (n) => plural(n, "row");
  if (event.phase === "prefill") {
    const labels = ["prompt", "", "", "…", "", "last"];
    return { labels, causal: true, kept: labels.length, cache: null, words: "each prompt token sees itself and those before it. All are written and kept." };
  }
  if (event.phase === "decode") return { labels: [`token ${first - 1}`], causal: true, kept: 1, cache: first - 1, words: "one row sees the cache and itself. It is written and kept." };
  if (event.phase === "refresh") {
    const labels = Array.from({ length: block }, (_, i) => String(first - block + i));
    return { labels, causal: true, kept: block, cache: first - block, words: `the finished block once more, causally: each row sees itself and those before it. All ${many(block)} are written and kept.` };
  }
  if (event.phase === "verify") {
    const drafts = event.positions.filter((p) => p.index >= first && p.state !== "corrected" && p.state !== "bonus");
    const accepted = event.positions.filter((p) => p.state === "accepted").length;
    const labels = ["newest", ...drafts.slice(0, MOST).map(name)];
    const kept = Math.min(labels.length, accepted + 1);
    return { labels, causal: true, kept, cache: first - 1, words: `each drafted row sees the cache, itself and those before it. All ${labels.length} are written; ${kept} ${kept === 1 ? "is" : "are"} kept: the newest token and ${plural(accepted, "accepted draft")}.` };
  }
  const start = event.phase === "draft" ? first - 1 : event.start;
  const seen = new Map(event.positions.map((p) => [p.index, p]));
  const labels = Array.from({ length: Math.min(MOST, event.length) }, (_, i) => (event.phase === "draft" ? (i ? "mask" : "newest") : seen.get(start + i) ? "mask" : String(start + i)));
  return { labels, causal: false, kept: 0, cache: start, words: `all ${many(labels.length)} see the cache and each other, both ways. Written for this forward only: nothing is kept.` };
}

/** A quadratic cycle: tokens causally, then a group behind each, which sees the tokens up to its own and itself. */
function groupsOf(log, event) {
  const tokens = event.raw.groups.length;
  const own = Math.max(1, Math.min(Math.round((event.raw.rows - tokens) / tokens), Math.floor(MOST / tokens)));
  const again = Boolean(event.raw.again);
  const drafts = event.positions.filter((p) => p.index > event.start && p.index < event.start + tokens && ["accepted", "rejected", "discarded"].includes(p.state));
  const names = Array.from({ length: tokens }, (_, i) => (i ? (drafts[i - 1] ? log.table.short(drafts[i - 1].token) : "…") : "newest"));
  const labels = names.concat(names.flatMap(() => Array.from({ length: own }, (_, i) => (again && !i ? "again" : "mask"))));
  const groupAt = (row) => Math.floor((row - tokens) / own);
  const sees = (row, column) => {
    if (row < tokens) return column <= row;
    return column < tokens ? column < groupAt(row) + Number(!again) : groupAt(row) === groupAt(column);
  };
  const accepted = event.positions.filter((p) => p.state === "accepted").length;
  const words = `${plural(tokens, "token")} to verify, each seeing those before it, then a group of ${plural(own, "row")} behind each, which sees the tokens up to its own and itself. All ${labels.length} are written; ${accepted + 1} ${accepted ? "are" : "is"} kept: the newest token and ${plural(accepted, "accepted draft")}.`;
  return { labels, causal: true, sees, kept: Math.min(tokens, accepted + 1), cache: event.start, words };
}

function drawMatrix({ labels, causal, sees: rule, kept, keptRows, cache }) {
  const n = labels.length;
  const size = n > 80 ? 3 : n > 24 ? 6 : n > 12 ? 9 : SIZE;
  const named = size === SIZE;
  const left = named ? 58 : 8;
  const wide = cache === null ? 0 : CACHE;
  const top = 16;
  const x = (column) => left + wide + (wide ? 4 : 0) + column * size;
  const y = (row) => top + row * size;
  const gap = size > 8 ? 1.5 : size > 3 ? 0.8 : 0.4;
  const seen = rule || ((row, column) => !causal || column <= row);
  const box = (bx, by, w) => `M${bx} ${by}h${w}v${size - gap}h${-w}z`;
  let sees = "";
  let blind = "";
  let cached = "";
  let stays = "";
  let goes = "";
  for (let row = 0; row < n; row++) {
    if (wide) cached += box(left, y(row), wide);
    for (let column = 0; column < n; ) {
      // Of a large matrix neighbours that look alike are one box: a square each would be tens of thousands.
      const looks = seen(row, column);
      let stop = column + 1;
      while (size < 6 && stop < n && seen(row, stop) === looks) stop += 1;
      const path = box(x(column), y(row), (stop - column) * size - gap);
      if (looks) sees += path;
      else blind += path;
      column = stop;
    }
    if (keptRows ? keptRows.has(row) : row < kept) stays += box(x(row), y(n) + 6, size - gap);
    else goes += box(x(row) + 0.5, y(n) + 6.5, size - gap - 1);
  }
  const width = x(n) + 90;
  const height = y(n) + 24;
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height });
  for (const [name, d] of Object.entries({ blind, cached, sees, goes, stays })) if (d) svg.append(shape("path", { class: `m-${name}`, d }));
  const write = (text, tx, ty, anchor) => {
    const node = svg.appendChild(shape("text", { x: tx, y: ty, "text-anchor": anchor }));
    node.textContent = text;
  };
  if (named) for (const [row, label] of labels.entries()) write(Array.from(label).slice(0, 7).join(""), left - 6, y(row) + size - 4, "end");
  if (wide) write(cache > 0 ? `cache +${cache}` : "cache", left + wide / 2, top - 5, "middle");
  write(kept ? `kept ${kept === n ? "all" : `${kept} of ${n}`}` : "kept none", x(n) + 4, y(n) + 6 + Math.min(size, 11), "start");
  return svg;
}

function shape(tag, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}
