// A forward over a tree of drafts: candidates by their distance, from left to right; the accepted path in the first
// row, then the verifier's own token, then what the group behind that path drafted. Other candidates hang below.

const TREE_ROWS = 6; // rows that show without scrolling
const TREE_ROW = 27; // px, as in stage.css

/** What a tree's event says: nodes with their children, the accepted rows, the verifier's own token, the groups. */
function treeOf(event) {
  const { tree = [], parents = [], behind = [], groups = [], rows = 1 } = event.raw;
  const nodes = [{ children: [], depth: 0, p: 1 }];
  for (const [i, [token, share]] of tree.entries()) {
    const parent = nodes[parents[i]];
    parent.children.push(i + 1);
    nodes.push({ token, share, children: [], depth: parent.depth + 1, p: parent.p * share, parent: parents[i] });
  }
  const path = [0];
  let own = null;
  for (const position of event.positions) {
    if (position.state === "rejected" || position.state === "drafted") continue;
    const next = position.state === "corrected" || position.state === "bonus" ? undefined : nodes[path.at(-1)].children.find((row) => nodes[row].token === position.token);
    if (next === undefined) {
      own = position;
      break;
    }
    path.push(next);
  }
  const masks = behind.length ? Math.max(0, Math.round((rows - nodes.length) / behind.length)) : 0;
  return { nodes, path, own, behind, groups, masks, drafted: event.positions.filter((p) => p.state === "drafted") };
}

const isTree = (log, event) => log.head.request?.draft === "tree" && event.phase === "verify";

function drawTree(root, left, right, log, lane, event) {
  const { nodes, path, own, behind, groups, masks, drafted } = treeOf(event);
  const accepted = new Set(path);
  setText(left, `cycle ${event.cycle}: ${path.length - 1} of ${nodes.length - 1} kept${own ? ", ★ own" : ""}`);
  left.title = "Candidates of the tree that the verifier kept; ★: its own token after them";
  setText(right, `${event.raw.rows} rows · ${(event.cycleTokens / event.cycle).toFixed(2)} per cycle`);
  right.title = `Rows of this forward: ${nodes.length} to verify, ${plural(behind.length, "group")} of ${plural(masks, "mask")}; acceptance length so far`;
  const grid = root.appendChild(make("div", "cycle tree"));
  const deepest = Math.max(...nodes.map((node) => node.depth), path.length + drafted.length);
  setColumns(grid, Math.max(deepest + 1, Number(log.head.request?.block_length) || 1), true);
  const groupAt = new Map(behind.map((row, i) => [row, groups[i] || []]));
  let line = 0;
  const put = (token, kind, row, column) => {
    const cell = place(grid, "", kind, row, column);
    cell.append(make("span", "", token === undefined ? "" : log.table.short(token)));
    return cell;
  };
  const draw = (row, at, up) => {
    const node = nodes[row];
    const kind = !row ? "seed" : accepted.has(row) ? "accepted" : node.parent === path.at(-1) && own ? "rejected" : "none";
    const token = row ? node.token : lane.at(event.k).cells[event.start]?.token;
    const cell = put(token, kind, at, node.depth);
    if (row) cell.dataset.up = up;
    cell.style.setProperty("--up", up);
    const group = groupAt.get(row);
    if (group) cell.dataset.group = row === path.at(-1) && drafted.length ? "survives" : "drops";
    cell.title = [
      row ? `${log.table.name(token)} · ${probability(node.share)} at its place, ${probability(node.p)} with its path` : "the newest token",
      group ? `masks behind it draft${group.length ? `: ${group.map(([one]) => log.table.name(one)).join(" ")}` : ""}` : "",
    ].filter(Boolean).join("; ");
    // The path stays in the first row; what was refused hangs below the verifier's own token.
    const children = [...node.children].sort((a, b) => accepted.has(b) - accepted.has(a) || a - b);
    let last = at;
    for (const [i, child] of children.entries()) {
      const straight = i === 0 && !(own && row === path.at(-1));
      if (!straight) line += 1;
      const target = straight ? at : line + 1;
      draw(child, target, target - last);
      last = target;
    }
  };
  draw(0, 1, 0);
  if (own) {
    const cell = put(own.token, own.state, 1, path.length);
    cell.dataset.up = 0;
    cell.title = `${log.table.name(own.token)} · the verifier's own`;
  }
  for (const [i, position] of drafted.entries()) {
    put(position.token, "drafted", 1, path.length + 1 + i).title = `${log.table.name(position.token)} · drafted behind the path: the next tree's first`;
  }
  grid.appendChild(make("span", "k", "kept")).style.gridArea = "1 / 1";
  if (line) grid.appendChild(make("span", "k", "tried")).style.gridArea = "2 / 1";
}

/** A tree's rows for the attention view: the newest token, the candidates, the groups; each sees its path. */
function treeRows(log, event) {
  const { nodes, path, behind, masks } = treeOf(event);
  const lines = nodes.map((node, row) => (row ? null : new Set([0])));
  for (let row = 1; row < nodes.length; row++) lines[row] = new Set([...lines[nodes[row].parent], row]);
  const labels = nodes.map((node, row) => (row ? log.table.short(node.token) : "newest"));
  for (let i = 0; i < behind.length * masks; i++) labels.push("mask");
  const groupAt = (row) => Math.floor((row - nodes.length) / masks);
  const sees = (row, column) => {
    if (row < nodes.length) return lines[row].has(column);
    return column < nodes.length ? lines[behind[groupAt(row)]].has(column) : groupAt(row) === groupAt(column);
  };
  const words = `${plural(nodes.length, "token")} to verify, each seeing its own path, then ${plural(behind.length, "group")} of ${plural(masks, "mask")}, which see the path of the token they stand behind and themselves. All ${labels.length} are written; ${path.length} ${path.length > 1 ? "are" : "is"} kept, moved together: the newest token and ${plural(path.length - 1, "candidate")}.`;
  return { labels, causal: true, sees, kept: path.length, keptRows: new Set(path), cache: event.start, words };
}
