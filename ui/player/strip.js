// The strip under a lane explains the forward in view: AR's next-token bars, diffusion's confidence columns against
// the threshold, self-speculation's draft above its verifier.

function drawStrip(root, log, lane, k) {
  const event = lane.events[k];
  root.replaceChildren();
  const title = root.appendChild(make("h3"));
  const left = title.appendChild(make("span", "", "waiting for the first forward"));
  const right = title.appendChild(make("span"));
  if (!event) return;
  if (lane.mode === "ar") drawNextToken(root, left, right, log, event);
  else if (lane.mode === "diffusion") drawBlock(root, left, right, log, lane, event);
  else if (isTree(log, event)) drawTree(root, left, right, log, lane, event);
  else if (event.raw.groups?.length) drawGroups(root, left, right, log, lane, event);
  else drawCycle(root, left, right, log, lane, event);
}

const forwardName = (event) => (event.forward ? `forward ${event.forward}` : "prefill");

function drawNextToken(root, left, right, log, event) {
  setText(left, `next token, ${forwardName(event)}`);
  setText(right, "probability");
  const position = event.positions[0];
  if (!position) return;
  const list = root.appendChild(make("div", "bars"));
  const top = position.top?.length ? position.top : [[position.token, position.confidence ?? 0]];
  for (const [token, p] of top.slice(0, 5)) {
    const row = list.appendChild(make("div", token === position.token ? "chosen" : ""));
    row.append(make("span", "", log.table.name(token)));
    const bar = row.appendChild(make("u")).appendChild(make("i"));
    bar.style.width = `${Math.min(1, p) * 100}%`;
    row.append(make("span", "", probability(p)));
  }
}

function blockOf(log, lane, event) {
  if (event.phase === "denoise") return [event.start, event.length];
  const length = Number(log.head.request?.block_length) || event.length || 1;
  return [event.positions[0]?.index ?? event.start, length];
}

function drawBlock(root, left, right, log, lane, event) {
  const request = log.head.request || {};
  const [start, length] = blockOf(log, lane, event);
  const cells = lane.at(event.k).cells;
  const committed = event.positions.filter((p) => p.state === "committed").length;
  const number = event.block;
  if (event.phase === "denoise") {
    const masked = event.positions.filter((p) => p.state === "masked" || p.state === "committed").length;
    setText(left, `block ${number}: ${committed} of ${masked} committed`);
  } else if (event.phase === "refresh") setText(left, "block cached, next block's seed");
  else setText(left, "prefill: the first block's seed");
  const sampler = request.sampler || (request.threshold == null ? "" : "confidence"); // a trajectory does not say
  const threshold = sampler === "confidence" ? request.threshold : null;
  const named = { fixed: `${request.steps || "fixed"} steps`, entropy: "entropy", trained: "trained sampler" }[sampler];
  setText(right, threshold != null ? `threshold ${Number(threshold).toFixed(2)}` : named || sampler);
  const shown = Math.min(length, 64);
  const columns = root.appendChild(make("div", "columns"));
  columns.dataset.dense = shown > 12 ? "yes" : "no";
  columns.style.setProperty("--n", shown);
  for (let i = start; i < start + shown; i++) {
    const cell = cells[i];
    const column = columns.appendChild(make("div", "column"));
    const bar = column.appendChild(make("div", "bar2"));
    const fill = bar.appendChild(make("i"));
    const fresh = cell && cell.k === event.k;
    column.dataset.kind = !cell ? "open" : !isKept(cell) ? (cell.state === "discarded" ? "cut" : "wait") : fresh ? "now" : "was";
    fill.style.height = `${Math.min(1, cell?.confidence ?? 0) * 100}%`;
    column.append(make("em", "", cell ? log.table.short(cell.token) : "▁"));
    if (cell) column.title = columnTitle(log, cell);
  }
  if (threshold != null) {
    const line = columns.appendChild(make("b", "threshold"));
    line.style.setProperty("--at", threshold);
  }
}

function columnTitle(log, cell) {
  const score = cell.score == null ? "" : `, score ${cell.score.toFixed(2)}`;
  return `${log.table.name(cell.token)} · confidence ${probability(cell.confidence)}${score} · ${cell.state}`;
}

const VERDICTS = {
  accepted: ["✓", "ok"],
  corrected: ["★", "own"],
  bonus: ["★", "own"],
  drafted: ["·", "none"],
  discarded: ["–", "none"],
};

function drawCycle(root, left, right, log, lane, event) {
  if (event.cycle) setText(right, `acceptance length ${(event.cycleTokens / event.cycle).toFixed(2)}`);
  if (event.phase === "draft") setText(left, `cycle ${event.cycle + 1}: ${plural(event.positions.length, "draft")}`);
  else if (event.phase === "verify") setText(left, verifyTitle(event));
  else setText(left, "prefill: the first token");
  const drafts = event.phase === "verify" ? lane.events[event.k - 1] : event;
  const grid = root.appendChild(make("div", "cycle"));
  const indexes = Array.from(new Set((drafts?.positions || []).concat(event.positions).map((p) => p.index)))
    .sort((a, b) => a - b)
    .slice(0, WIDE);
  // Of several at a place the first.
  const keptOf = new Map(event.positions.filter((p) => p.state !== "rejected").map((p) => [p.index, p]).reverse());
  const rejectedOf = new Map(event.positions.filter((p) => p.state === "rejected").map((p) => [p.index, p]).reverse());
  setColumns(grid, Math.max(indexes.length, Number(log.head.request?.block_length) || 1));
  const draftOf = new Map((drafts?.phase === "draft" ? drafts.positions : []).map((p) => [p.index, p]));
  grid.append(make("span", "k", "draft"));
  for (const [i, index] of indexes.entries()) {
    const draft = draftOf.get(index);
    const kept = keptOf.get(index);
    const rejected = rejectedOf.get(index);
    place(grid, draft ? log.table.short(draft.token) : "", rejected ? "rejected" : draft ? kept?.state || "drafted" : "none", 1, i, draft);
    if (event.phase === "draft") place(grid, "·", "none", 2, i);
    else place(grid, kept && kept.state !== "discarded" ? log.table.short(kept.token) : "·", kept?.state || "none", 2, i, kept);
    const [glyph, tone] = VERDICTS[event.phase === "draft" ? "drafted" : kept?.state] || ["·", "none"];
    const verdict = grid.appendChild(make("span", "v", glyph));
    verdict.dataset.tone = tone;
    verdict.style.gridArea = `3 / ${i + 2}`;
  }
  const verify = grid.appendChild(make("span", "k", "verify"));
  verify.style.gridArea = "2 / 1";
}

const NARROW = 9; // columns that fit any lane

/** What is wider or higher than its lane is scrolled, by the keyboard, too. */
function setColumns(grid, n, scrolls = n > NARROW) {
  grid.style.setProperty("--n", n);
  if (!scrolls) return;
  grid.tabIndex = 0;
  grid.setAttribute("role", "group");
  grid.setAttribute("aria-label", "This cycle's drafts and what became of them");
}

/** Room for a quadratic cycle's groups or a tree, the same for a whole run; nothing for other runs. */
function stripHeight(request) {
  if (request?.draft === "tree") return `${28 + TREE_ROWS * TREE_ROW}px`;
  const block = Number(request?.block_length);
  if (request?.draft !== "quadratic" || !(block > 1 && block <= 64)) return "";
  return `${block > 9 ? 132 + 6 * block : 128 + 15 * block}px`;
}

/** A quadratic cycle as it lies in the forward: the newest token and the drafts, the AR pass's verdict below them, and
 * below each the drafts that its group made. The group behind the last accepted token goes on. */
function drawGroups(root, left, right, log, lane, event) {
  const groups = event.raw.groups;
  setText(left, groups.length > 1 ? verifyTitle(event) : `cycle ${event.cycle}: the first drafts`);
  setText(right, `${event.raw.rows} rows · ${(event.cycleTokens / event.cycle).toFixed(2)} per cycle`);
  right.title = "Rows of this forward; acceptance length so far";
  const standing = event.positions.filter((p) => p.state === "accepted").length;
  const goes = event.positions.some((p) => p.state === "drafted");
  const grid = root.appendChild(make("div", "cycle quadratic"));
  setColumns(grid, Math.max(groups.length + 1, Number(log.head.request?.block_length) || 1));
  grid.dataset.dense = groups.length > 9 ? "yes" : "no";
  for (const [row, name] of ["draft", "verify"].entries()) grid.appendChild(make("span", "k", name)).style.gridArea = `${row + 1} / 1`;
  const newest = lane.at(event.k).cells[event.start];
  if (newest) place(grid, log.table.short(newest.token), "seed", 1, 0, newest);
  for (let i = 1; i <= groups.length; i++) {
    const here = event.positions.filter((p) => p.index === event.start + i && p.state !== "drafted");
    const rejected = here.find((p) => p.state === "rejected");
    const kept = here.find((p) => p.state !== "rejected");
    const own = kept && (kept.state === "corrected" || kept.state === "bonus");
    const draft = rejected || (own ? null : kept);
    place(grid, draft ? log.table.short(draft.token) : "", draft ? (rejected ? "rejected" : draft.state) : "none", 1, i, draft);
    place(grid, kept && kept.state !== "discarded" ? log.table.short(kept.token) : "·", kept?.state || "none", 2, i, kept);
    const [glyph, tone] = VERDICTS[kept?.state] || ["·", "none"];
    const verdict = grid.appendChild(make("span", "v", glyph));
    verdict.dataset.tone = tone;
    verdict.style.gridArea = `3 / ${i + 2}`;
  }
  for (const [i, group] of groups.entries()) {
    const column = grid.appendChild(make("div", "group"));
    column.dataset.kind = goes && i === standing ? "survives" : "drops";
    column.style.gridArea = `4 / ${i + 2}`;
    column.title = `drafted behind this token: ${group.map(([token]) => log.table.name(token)).join(" ")}${goes && i === standing ? "; these go on" : ""}`;
    for (const [token] of group) column.append(make("span", "", log.table.short(token)));
  }
  const behind = grid.appendChild(make("span", "k", "behind"));
  behind.style.gridArea = "4 / 1";
  behind.title = "What each group of masks drafts behind the token above it, all in the same forward";
}

function verifyTitle(event) {
  const has = (state) => event.positions.some((p) => p.state === state);
  const { drafts, accepted } = event.outcome;
  const own = has("corrected") ? ", ★ corrected" : has("bonus") ? ", ★ bonus" : "";
  return `cycle ${event.cycle}: ${accepted} of ${drafts} kept${own}`;
}

function place(grid, text, state, row, column, cell) {
  const node = grid.appendChild(make("span", "cell", text));
  node.dataset.kind = state;
  node.style.gridArea = `${row} / ${column + 2}`;
  if (cell) node.title = `${text} · ${probability(cell.confidence)} · ${cell.state}`;
  return node;
}
