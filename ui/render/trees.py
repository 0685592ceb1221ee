"""A forward over a tree of drafts, as places: candidates by their distance, from left to right; the accepted path
on the first line, then the verifier's own token, then what the group behind the path drafted. The player's
`tree.js` draws the same."""

from __future__ import annotations

from dataclasses import dataclass, field

from nemodiff.trace.events import Event, Position


@dataclass(slots=True)
class Node:
    """A row to verify: the newest token (no token of its own) or a candidate, with its probability and its path's."""

    token: int | None = None
    share: float = 1.0
    p: float = 1.0
    parent: int = -1
    depth: int = 0
    children: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Spot:
    """A token in its place. kind: seed, accepted, rejected, none (a candidate beside the path), corrected, bonus or
    drafted. up: lines to what it hangs on. group: of the masks behind it, survives or drops."""

    token: int | None
    kind: str
    line: int
    column: int
    up: int = 0
    group: str = ""


@dataclass(slots=True)
class Tree:
    """What a verify event says of its tree. path: the accepted rows, the newest token first; own: the verifier's token
    behind them, where there is one; drafted: what the surviving group drafted."""

    nodes: list[Node]
    path: list[int]
    own: Position | None
    drafted: list[Position]
    behind: list[int]
    rows: int

    @property
    def accepted(self) -> int:
        return len(self.path) - 1


def is_tree(event: Event) -> bool:
    return event.phase == "verify" and bool(event.tree or event.behind)


def tree_of(event: Event) -> Tree:
    nodes = [Node()]
    for row, ((token, share), parent) in enumerate(zip(event.tree, event.parents, strict=True), 1):
        above = nodes[parent]
        above.children.append(row)
        nodes.append(Node(token, share, above.p * share, parent, above.depth + 1))
    path, own = [0], None
    for position in event.positions:
        if position.state in ("rejected", "drafted"):
            continue
        verified = position.state not in ("corrected", "bonus")
        below = [row for row in nodes[path[-1]].children if verified and nodes[row].token == position.token]
        if not below:
            own = position
            break
        path.append(below[0])
    drafted = [position for position in event.positions if position.state == "drafted"]
    return Tree(nodes, path, own, drafted, event.behind, event.rows or len(nodes))


def spots(tree: Tree) -> list[Spot]:
    """Where everything stands: lines from 0, columns from 0, which is the newest token's. The path comes first."""
    standing, found = set(tree.path), []
    lines = 0

    def draw(row: int, line: int, up: int) -> None:
        nonlocal lines
        node = tree.nodes[row]
        refused = node.parent == tree.path[-1] and tree.own is not None
        kind = "seed" if not row else "accepted" if row in standing else "rejected" if refused else "none"
        group = ""
        if row in tree.behind:
            group = "survives" if row == tree.path[-1] and tree.drafted else "drops"
        found.append(Spot(node.token, kind, line, node.depth, up, group))
        last = line
        # What was refused hangs below the verifier's own token.
        for i, child in enumerate(sorted(node.children, key=lambda child: (child not in standing, child))):
            straight = i == 0 and not (tree.own is not None and row == tree.path[-1])
            if not straight:
                lines += 1
            target = line if straight else lines
            draw(child, target, target - last)
            last = target

    draw(0, 0, 0)
    own, column = [], len(tree.path)
    if tree.own is not None:
        own = [Spot(tree.own.token, tree.own.state, 0, column)]
    column += 1
    return found + own + [Spot(one.token, "drafted", 0, column + i) for i, one in enumerate(tree.drafted)]
