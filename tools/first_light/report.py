"""What the parts found: written after each of them, so that a run that is cut off leaves what it had."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Findings:
    """Of one part. rows: a table, the same keys in every row. notes: sentences below it. failed: a traceback."""

    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    failed: str = ""

    def markdown(self) -> str:
        """The part as a section."""
        parts = [
            f"## {self.title} ({self.seconds:.0f} s)",
            table(self.rows),
            "\n".join(f"- {one}" for one in self.notes),
        ]
        if self.failed:
            parts.append(f"Failed:\n\n```\n{self.failed.rstrip()}\n```")
        return "\n\n".join(part for part in parts if part)


class Report:
    """The findings of a run, in `folder`."""

    def __init__(self, folder: Path, head: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._head = folder, dict(head)
        self.findings: dict[str, Findings] = {}

    def part(self, name: str, title: str, run: Callable[[Findings], None]) -> Findings:
        """Run a part. What it raises is noted with it and ends it alone."""
        found = self.findings[name] = Findings(title)
        begin = time.monotonic()
        try:
            run(found)
        except Exception:  # noqa: BLE001 - a card does what it likes
            found.failed = traceback.format_exc()
        found.seconds = time.monotonic() - begin
        self.write()
        return found

    def write(self) -> None:
        """first_light.json and first_light.md."""
        data = {**self._head, "parts": {name: vars(found) for name, found in self.findings.items()}}
        (self._folder / "first_light.json").write_text(json.dumps(data, indent=1, default=str) + "\n", encoding="utf-8")
        head = "\n".join(f"- {name}: {value}" for name, value in self._head.items())
        sections = [found.markdown() for found in self.findings.values()]
        text = "\n\n".join([f"# First light\n\n{head}", *sections]) + "\n"
        (self._folder / "first_light.md").write_text(text, encoding="utf-8")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table; its columns are the keys of the first."""
    if not rows:
        return ""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_cell(row.get(name)) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
