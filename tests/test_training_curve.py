"""The learning curve drawn from a log."""

import json
from xml.etree import ElementTree

from nemodiff.training.curve import curve
from nemodiff.training.objective import BUCKET_NAMES


def test_a_curve_has_a_line_a_distance_and_ends_at_the_mean(tmp_path):
    log = tmp_path / "log.jsonl"
    rows = [{"seconds": 30.0 * i, "hit_rate": dict.fromkeys(BUCKET_NAMES, 0.5)} for i in range(1, 5)]
    log.write_text("\n".join(map(json.dumps, rows)))
    picture = ElementTree.fromstring(curve(log))
    space = "{http://www.w3.org/2000/svg}"
    assert len(picture.findall(f"{space}polyline")) == len(BUCKET_NAMES)
    assert f"{BUCKET_NAMES[0]}: 0.50" in "".join(picture.itertext())
