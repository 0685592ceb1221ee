"""The learning curves drawn from a log."""

import json
from xml.etree import ElementTree

from nemodiff.training.curve import curve
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
