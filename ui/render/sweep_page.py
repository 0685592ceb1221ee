"""Sweeps as one HTML file: figures, charts drawn as SVG, what they advise. It runs no script and fetches nothing."""

from __future__ import annotations

import html
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from itertools import groupby

from nemodiff.evaluate.advice import advice
from nemodiff.evaluate.sweep import COUNTED, HEADS, Point, cells
from nemodiff.evaluate.sweep_results import Results, curve
from ui.render.charts.figure import LANES, plural

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --sheet: #f6f7f9; --ink: #191d23; --soft: #5a636e; --line: #e1e5ea;
  --ar: #5c6570; --diffusion: #b45f06; --self-speculation: #00735c; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --sheet: #0d0f12; --ink: #e8ebef; --soft: #9aa4af;
  --line: #2a3037; --ar: #aab3bd; --diffusion: #f0a044; --self-speculation: #35c79f; } }
body { margin: 0; padding: 24px clamp(12px, 3vw, 40px) 48px; background: var(--sheet); color: var(--ink);
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1280px; margin: 0 auto; }
h1 { font-size: 21px; margin: 0 0 4px; } h2 { font-size: 16px; margin: 32px 0 2px; overflow-wrap: anywhere; }
p { margin: 4px 0; max-width: 100ch; color: var(--soft); overflow-wrap: anywhere; }
p.advice { color: var(--ink); font-weight: 600; font-size: 16px; margin: 10px 0; }
.charts { display: grid; gap: 14px; margin: 14px 0; }
.charts { grid-template-columns: repeat(auto-fit, minmax(min(460px, 100%), 1fr)); }
figure, .scroll { background: var(--paper); border: 1px solid var(--line); border-radius: 12px; }
figure { margin: 0; padding: 12px 14px; }
figcaption { font-weight: 600; } figcaption span { font-weight: 400; color: var(--soft); }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 11.5px; }
svg .n { fill: var(--ink); font-size: 11px; font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); } svg .curve { fill: none; stroke-width: 1.5; } svg .ar { stroke-dasharray: 2 3; }
.scroll { overflow-x: auto; padding: 4px 14px 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: 4px 10px; text-align: right; white-space: nowrap; } th { font-weight: 600; }
thead th { font-weight: 400; color: var(--soft); } tbody tr { border-top: 1px solid var(--line); }
@media (max-width: 560px) { svg text { font-size: 17px; } svg .n { font-size: 16px; } }
th:nth-child(2), td:nth-child(3), th:nth-child(3) { text-align: left; }
"""
#: Of a chart, in its own units.
_WIDE, _TALL, _LEFT, _BOTTOM, _RIGHT, _TOP = 560, 360, 52, 40, 26, 14


def sweep_page(sweeps: Sequence[Results], same_text: bool = True) -> str:
    """The page of sweeps, the newest first. Names of prompts, checkpoints and devices are anybody's: they stay text."""
    parts = [_section(one, same_text) for one in sweeps if one.points]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Settings compared · nemodiff</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        "<h1>Settings compared</h1>\n<p>One set of weights, decoded in three modes. Numbers in the charts are those "
        f"of the rows below them. {html.escape(COUNTED)}</p>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def _section(results: Results, same_text: bool) -> str:
    points = [point for mode in LANES for point in results.of_mode(mode)]
    where = " · ".join(filter(None, (results.device, results.dtype)))
    length = f"At most {plural(results.max_new_tokens, 'new token')}. Prompts: {', '.join(results.labels)}."
    said = advice(points, same_text)
    charts = [
        _chart(points, "Tokens per forward", "higher is better", lambda point: point.tpf),
        _chart(points, "Model seconds per token", f"lower is better · {where}", lambda point: point.seconds),
    ]
    return (
        f"<section><h2>{html.escape(results.checkpoint)}</h2><p>{html.escape(where)}</p><p>{html.escape(length)}</p>"
        + (f'<p class="advice">{html.escape(said)}</p>' if said else "")
        + f'<div class="charts">{"".join(charts)}</div>{_table(points)}</section>\n'
    )


def _table(points: list[Point]) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in ("#", *HEADS))
    rows = []
    for number, point in enumerate(points, 1):
        shown = "".join(f"<td>{html.escape(figure)}</td>" for figure in cells(point))
        mode = f'<th scope="row" style="color: var(--{point.mode})">{LANES[point.mode]}</th>'
        rows.append(f"<tr><td>{number}</td>{mode}{shown}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _chart(points: list[Point], title: str, about: str, height: Callable[[Point], float]) -> str:
    """Points over agreement with AR; curves join those whose thresholds alone differ."""
    chart = _Chart(points, height)
    caption = f"<figcaption>{title} <span>{html.escape(about)}</span></figcaption>"
    return f"<figure>{caption}{ET.tostring(chart.draw(title), encoding='unicode')}</figure>"


class _Chart:
    def __init__(self, points: list[Point], height: Callable[[Point], float]) -> None:
        self.points, self.height = points, height
        self.root = ET.Element("svg", {"viewBox": f"0 0 {_WIDE} {_TALL}", "role": "img"})
        self.step = _step(max(map(height, points)) / 4)
        self.most = self.step * max(1, math.ceil(1.05 * max(map(height, points)) / self.step))
        least = min(point.agreement for point in points)
        self.low = next(low for low in (0.9, 0.8, 0.5, 0.0) if low <= least or not low)

    def at(self, point: Point) -> tuple[float, float]:
        share = (point.agreement - self.low) / (1 - self.low)
        return _LEFT + share * (_WIDE - _LEFT - _RIGHT), self._y(self.height(point))

    def _y(self, value: float) -> float:
        return _TALL - _BOTTOM - value / self.most * (_TALL - _BOTTOM - _TOP)

    def _add(self, name: str, text: str | None = None, **facts: object) -> ET.Element:
        values = {
            key.strip("_").replace("_", "-"): f"{value:.1f}" if isinstance(value, float) else str(value)
            for key, value in facts.items()
        }
        node = ET.SubElement(self.root, name, values)
        node.text = text
        return node

    def draw(self, title: str) -> ET.Element:
        self._add("title", title)
        self._axes()
        for point in self.points:
            if point.mode == "ar":
                y = self.at(point)[1]
                self._add("line", x1=_LEFT, x2=_WIDE - _RIGHT, y1=y, y2=y, stroke="var(--ar)", class_="ar")
        for _, group in groupby((one for one in self.points if one.mode == "diffusion"), curve):
            places = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self.at, group))
            self._add("polyline", points=places, stroke="var(--diffusion)", class_="curve")
        for point in self.points:
            x, y = self.at(point)
            mark = self._add("circle", cx=x, cy=y, r=4.5, fill=f"var(--{point.mode})")
            ET.SubElement(mark, "title").text = ", ".join(filter(None, (LANES[point.mode], point.variant.words)))
        self._numbers()
        return self.root

    def _axes(self) -> None:
        for k in range(round(self.most / self.step) + 1):
            y = self._y(k * self.step)
            self._add("line", x1=_LEFT, x2=_WIDE - _RIGHT, y1=y, y2=y, class_="grid")
            self._add("text", f"{k * self.step:.4g}", x=_LEFT - 8, y=y + 4, text_anchor="end")
        for k in range(6):
            share = self.low + k * (1 - self.low) / 5
            x = _LEFT + k * (_WIDE - _LEFT - _RIGHT) / 5
            self._add("text", f"{share:.0%}", x=x, y=_TALL - _BOTTOM + 18, text_anchor="middle")
        self._add("text", "agreement with AR", x=(_LEFT + _WIDE) / 2, y=_TALL - 4, text_anchor="middle")

    def _numbers(self) -> None:
        """Each point's number beside it, moved down where another stands there already."""
        taken: list[tuple[float, float]] = []
        order = sorted(range(len(self.points)), key=lambda i: self.at(self.points[i])[1])
        for i in order:
            x, y = self.at(self.points[i])
            place = y - 4
            while any(abs(x - other) < 20 and abs(place - line) < 11 for other, line in taken) and place < _TALL:
                place += 3
            taken.append((x, place))
            self._add("text", str(i + 1), x=x + 6, y=place, class_="n")


def _step(value: float) -> float:
    """The next round number: 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))
