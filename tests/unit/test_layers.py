"""The tree is the architecture: a module imports from its own layer and from those below, never from one above."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: From what everybody needs to what nobody imports. What lies at the top of a package is a layer by itself.
ORDER = (
    *("nemodiff.errors", "nemodiff.files", "nemodiff.cache_folder", "nemodiff.json_fields", "nemodiff.markdown"),
    "nemodiff.network_files",
    *("nemodiff.setting_kinds", "nemodiff.settings"),
    "nemodiff.conversation",
    *("nemodiff.trace", "nemodiff.pictures"),
    *("nemodiff.request", "nemodiff.examples", "nemodiff.command", "nemodiff.samplers", "nemodiff.model"),
    *("nemodiff.decode", "nemodiff.checkpoints", "nemodiff.engine", "nemodiff.tasks", "nemodiff.evaluate"),
    *("nemodiff.training", "nemodiff.bench", "nemodiff.cli", "nemodiff.__main__", "nemodiff"),
    *(
        "ui.settings",
        "ui.values",
        "ui.signature",
        "ui.wire",
        "ui.render",
        "ui.live",
        "ui.backends",
        "ui.api",
    ),
    *("ui.page", "ui.server", "app", "tools"),
)
FILES = [ROOT / "app.py", *(path for folder in ("nemodiff", "ui", "tools") for path in (ROOT / folder).rglob("*.py"))]


def layer(module: str) -> int:
    """The place of a module in ORDER; of a package itself (`nemodiff`) that of what it exports."""
    if module in ("nemodiff", "ui"):
        return ORDER.index("nemodiff")
    found = [place for place, name in enumerate(ORDER) if name != "nemodiff" and f"{module}.".startswith(f"{name}.")]
    assert found, f"{module} has no layer: name it in ORDER"
    return found[0]


def modules_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of our own, those inside functions and for types included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] in ("nemodiff", "ui", "app", "tools"))


@pytest.mark.parametrize("path", FILES, ids=modules_of)
def test_no_import_points_upwards(path: Path) -> None:
    own = layer(modules_of(path))
    upwards = [f"line {line}: {name}" for line, name in imports(path) if layer(name) > own]
    assert not upwards, f"{modules_of(path)} ({ORDER[own]}) imports from above: {'; '.join(upwards)}"


@pytest.mark.parametrize("path", FILES, ids=modules_of)
def test_no_function_is_too_long_to_be_read_at_once(path: Path) -> None:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, functions)]
    lines = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in found}
    assert not {name: count for name, count in lines.items() if count >= 80}


def test_an_arrow_upwards_would_be_found() -> None:
    assert layer("nemodiff.decode.lane") < layer("nemodiff.engine.local") < layer("ui.live.run") < layer("ui.page")
    with pytest.raises(AssertionError, match="has no layer"):
        layer("nemodiff.elsewhere")
