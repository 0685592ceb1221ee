"""Structured families whose formats no trained family reads or writes: all of them are held out whole."""

from nemodiff.tasks.structured.draw import Draw
from nemodiff.tasks.structured.wording import plural
from nemodiff.tasks.structured.words import CITIES, NAMES, record, schema

Pair = tuple[str, str]


def latex_table(rng: Draw) -> Pair:
    """CSV → the rows of a LaTeX table."""
    noun, fields = schema(rng, 2, 3)
    rows = [record(fields, rng) for _ in range(rng.randint(2, 3))]
    lines = [list(fields)] + [[str(cell) for cell in row.values()] for row in rows]
    text = "\n".join(",".join(line) for line in lines)
    prompt = rng.phrase(
        [
            f"Write this CSV as rows of a LaTeX table:\n{text}",
            f"Turn this CSV into LaTeX table rows:\n{text}",
            f"{text}\n\nFormat the CSV above as the rows of a LaTeX tabular.",
            f"I need these {plural(noun)} as LaTeX table rows:\n{text}",
        ]
    )
    return prompt, "\n".join(" & ".join(line) + r" \\" for line in lines)


def graph_edges(rng: Draw) -> Pair:
    """Pairs of nodes → a directed graph in the DOT language."""
    nodes = rng.sample(rng.choice([NAMES, CITIES]), rng.randint(4, 6))
    edges = list(zip(nodes, nodes[1:], strict=False))
    told = ", ".join(f"{first} to {second}" for first, second in edges)
    prompt = rng.phrase(
        [
            f"Write a Graphviz digraph with the edges {told}.",
            f"Draw these edges as a DOT digraph: {told}",
            f"Write a directed graph in the DOT language: {told}",
            f"I need a DOT digraph with edges from {told}.",
        ]
    )
    return prompt, "digraph {\n" + "\n".join(f"  {first} -> {second};" for first, second in edges) + "\n}"
