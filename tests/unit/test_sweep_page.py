"""Sweeps as a page that stands alone and as CSV: every point is there, and whatever a name says stays text."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from nemodiff.evaluate.sweep import Point, cells
from nemodiff.evaluate.sweep_results import COLUMNS, Results, csv_text
from ui.render.sweep_page import sweep_page

AR = Point("ar", None, None, 2, 100, 99, 100, 0.04, 0.04, 1.0, 1.0)
TREE = replace(AR, mode="self-speculation", draft="tree", rows=24, seconds=0.02, forwards=30, right=1.0)
CURVE = [
    replace(AR, mode="diffusion", block_length=8, threshold=threshold, seconds=0.01, agreement=agreement, identical=0.5)
    for threshold, agreement in ((0.8, 0.2), (0.9, 0.6), (0.95, 0.7))
]


def results(**changes) -> Results:
    return replace(Results("tiny", "Test CPU", "float32", ("Sleep",), 8, [AR, TREE, *CURVE]), **changes)


def charts(page: str) -> list[ET.Element]:
    return [ET.fromstring(one) for one in re.findall("<svg.*?</svg>", page, re.DOTALL)]


def test_every_point_is_in_both_charts_and_in_its_row() -> None:
    page = sweep_page([results(), results(checkpoint="other")])
    assert page.count("<section>") == 2 and "<script" not in page
    assert "default-src 'none'" in page and not re.search(r"""(?:src|href)\s*=|url\(|@import""", page)
    for chart in charts(page):
        assert len(chart.findall("circle")) == 5 and len(chart.findall("polyline")) == 1
        for node in chart.iter("circle"):
            assert 0 <= float(node.get("cx")) <= 560 and 0 <= float(node.get("cy")) <= 360
    for point in (AR, TREE, *CURVE):
        for figure in cells(point):
            assert f"<td>{figure}</td>" in page
    assert "For answers like these: self-speculation, tree, 24 rows: 2.00× AR" in page


def test_points_that_lie_together_keep_their_numbers_apart() -> None:
    many = [replace(TREE, rows=rows, seconds=0.02 + rows / 1e5) for rows in range(2, 14)]
    for chart in charts(sweep_page([results(points=[AR, *many])])):
        numbers = [node for node in chart.findall("text") if node.get("class") == "n"]
        places = sorted(float(node.get("y")) for node in numbers)
        assert len(numbers) == 13 and all(b - a > 8 for a, b in zip(places, places[1:], strict=False))


@given(st.text(max_size=30), st.text(max_size=30))
def test_names_stay_text(name: str, label: str) -> None:
    hostile = "</td><script>alert(1)</script><img src=x onerror=alert(1)>"
    page = sweep_page([results(checkpoint=f"{name}{hostile}", device=hostile, labels=(label, hostile))])
    assert "<script" not in page and "<img" not in page and page.count("</section>") == 1
    assert len(charts(page)) == 2


def test_figures_of_nothing_and_of_no_time_are_drawn() -> None:
    assert "<section>" not in sweep_page([Results()])
    assert len(charts(sweep_page([results(points=[replace(AR, seconds=0.0, ar_seconds=0.0)])]))) == 2


def test_csv_has_a_line_a_point_and_holds_no_formula() -> None:
    table = list(csv.DictReader(io.StringIO(csv_text([results(), results(checkpoint='=cmd|" /C calc"!A0')]))))
    assert len(table) == 10 and tuple(table[0]) == COLUMNS
    assert [one["mode"] for one in table[:5]] == ["ar", *["diffusion"] * 3, "self-speculation"]
    assert table[5]["checkpoint"] == '\'=cmd|" /C calc"!A0'
    tree = table[4]
    assert (tree["draft"], tree["rows"], tree["speed_up"], tree["as_expected"]) == ("tree", "24", "2.0", "1.0")
    assert float(tree["tokens_per_forward"]) == TREE.tpf and tree["threshold"] == ""
