"""The learning curves drawn from a log."""

import json
import sys
from xml.etree import ElementTree

import pytest
import torch

from nemodiff.errors import RequestError
from nemodiff.training.curve import curve, ranking_curve
from nemodiff.training.objective import BUCKET_NAMES

SPACE = "{http://www.w3.org/2000/svg}"


def logged(tmp_path, rows):
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(map(json.dumps, rows)))
    return log


def picture(tmp_path, rows):
    return ElementTree.fromstring(curve(logged(tmp_path, rows)))


def drawn_lines(picture, title):
    """The lines of a panel by their names, which its title precedes in their ids."""
    lead = f"{title}:".replace(" ", "_")
    groups = {group.get("id", ""): group for group in picture.iter(f"{SPACE}g")}
    return {name.removeprefix(lead): line for name, line in groups.items() if name.startswith(lead)}


def points(line):
    """[(x, y)] of a line as it is drawn; y grows downwards."""
    words = line.find(f"{SPACE}path").get("d").replace("M", "").replace("L", "").split()
    return list(zip(map(float, words[::2]), map(float, words[1::2]), strict=True))


def test_a_curve_has_a_line_a_distance_and_ends_at_the_mean(tmp_path):
    rows = [{"seconds": 30.0 * i, "hit_rate": dict.fromkeys(BUCKET_NAMES, 0.5)} for i in range(1, 5)]
    drawn = picture(tmp_path, rows)
    lines = drawn_lines(drawn, "Draft hit rate by distance from the clean token")
    assert list(lines) == list(BUCKET_NAMES)
    assert all(len({height for _, height in points(line)}) == 1 for line in lines.values())
    assert all(f"{name}: 0.50" in "".join(drawn.itertext()) for name in BUCKET_NAMES)


def test_names_at_one_height_stand_apart(tmp_path):
    for value in (0.0, 0.5, 1.0):
        rows = [{"seconds": 30.0 * i, "hit_rate": dict.fromkeys(BUCKET_NAMES, value)} for i in range(1, 5)]
        drawn = picture(tmp_path, rows)
        told = [text for text in drawn.iter(f"{SPACE}text") if ": " in (text.text or "")]
        heights = [float(text.get("y") or text.get("transform").split()[-1].rstrip(")")) for text in told]
        assert len(heights) == len(BUCKET_NAMES)
        assert all(below - above > 10 for above, below in zip(heights, heights[1:], strict=False))


def test_the_same_log_makes_the_same_bytes(tmp_path):
    log = logged(tmp_path, [{"seconds": 30.0 * i, "hit_rate": dict.fromkeys(BUCKET_NAMES, 0.5)} for i in range(1, 5)])
    assert curve(log) == curve(log)


def test_without_matplotlib_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    log = logged(tmp_path, [{"seconds": 30.0, "hit_rate": dict.fromkeys(BUCKET_NAMES, 0.5)}])
    with pytest.raises(RequestError, match="^Drawing curves needs matplotlib: pip install"):
        curve(log)


def test_measured_acceptance_is_drawn_below(tmp_path):
    rows = [{"seconds": 30.0 * i, "hit_rate": dict.fromkeys(BUCKET_NAMES, 0.5)} for i in range(1, 5)]
    rows[0]["acceptance"] = {"structured": 2.0, "open": 1.5}
    rows[3]["acceptance"] = {"structured": 6.25, "open": 2.5}
    drawn = picture(tmp_path, rows)
    lines = drawn_lines(drawn, "Acceptance length at block 8 on held-out prompts: new tokens per draft-verify cycle")
    assert [len(line.findall(f".//{SPACE}use")) for line in lines.values()] == [2, 2]
    assert "structured: 6.25" in "".join(drawn.itertext())


def test_a_ranking_is_drawn_with_its_figures():
    right = torch.tensor([True] * 30 + [False] * 10)
    scores = {"sure": right.float(), "blind": torch.full((40,), 0.75)}
    drawn = ElementTree.fromstring(ranking_curve(scores, right))
    told = "".join(drawn.itertext())
    assert "AUC 1.000" in told and "AUC 0.500" in told and told.count("error 0.000") == 2
    sure, blind = map(points, drawn_lines(drawn, "Right guesses found").values())
    assert sure[0] == blind[0] and sure[-1] == blind[-1]  # from none to all
    heights = [height for _, height in sure]
    assert heights == sorted(heights, reverse=True)
