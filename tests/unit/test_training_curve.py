"""The learning curves drawn from a log."""

import json
from xml.etree import ElementTree

import torch

from nemodiff.training.curve import curve, ranking_curve
from nemodiff.training.objective import BUCKET_NAMES

SPACE = "{http://www.w3.org/2000/svg}"


def picture(tmp_path, rows):
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(map(json.dumps, rows)))
    return ElementTree.fromstring(curve(log))


def test_a_curve_has_a_line_a_distance_and_ends_at_the_mean(tmp_path):
    rows = [{"seconds": 30.0 * i, "hit_rate": dict.fromkeys(BUCKET_NAMES, 0.5)} for i in range(1, 5)]
    drawn = picture(tmp_path, rows)
    assert len(drawn.findall(f".//{SPACE}polyline")) == len(BUCKET_NAMES)
    assert f"{BUCKET_NAMES[0]}: 0.50" in "".join(drawn.itertext())


def test_measured_acceptance_is_drawn_below(tmp_path):
    rows = [{"seconds": 30.0 * i, "hit_rate": dict.fromkeys(BUCKET_NAMES, 0.5)} for i in range(1, 5)]
    rows[0]["acceptance"] = {"structured": 2.0, "open": 1.5}
    rows[3]["acceptance"] = {"structured": 6.25, "open": 2.5}
    drawn = picture(tmp_path, rows)
    assert len(drawn.findall(f".//{SPACE}circle")) == 4
    assert "structured: 6.25" in "".join(drawn.itertext())


def test_a_ranking_is_drawn_with_its_figures():
    right = torch.tensor([True] * 30 + [False] * 10)
    scores = {"sure": right.float(), "blind": torch.full((40,), 0.75)}
    drawn = ElementTree.fromstring(ranking_curve(scores, right))
    told = "".join(drawn.itertext())
    assert "AUC 1.000" in told and "AUC 0.500" in told and told.count("error 0.000") == 2
    roc = [line.get("points").split() for line in drawn.findall(f".//{SPACE}polyline")[:2]]
    assert roc[0][0] == roc[1][0] and roc[0][-1] == roc[1][-1]  # from none to all
    heights = [float(point.split(",")[1]) for point in roc[0]]
    assert heights == sorted(heights, reverse=True)
