"""Videos of a run, decoded again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nemodiff.trace.events import Event, Position, Trace
from tests.helpers.traces import trace_of
from ui.render.frames import HOLD_MS
from ui.render.gif import gif
from ui.render.video import CODECS, video

av = pytest.importorskip("av", reason="videos need PyAV, which comes with requirements.txt")


def run(forwards: int = 5) -> Trace:
    trace = Trace.from_json(json.dumps(trace_of({"1": "One", "2": " two"}, [1, 2, 1])))
    for i in range(3, forwards):
        event = Event("ar", i, "decode", 10.0 * (i + 1), i, 1, [Position(i, 1, "committed")])
        trace.lane("ar").events.append(event)
    return trace


@pytest.mark.parametrize("ending", CODECS)
def test_a_video_decodes_to_the_frames_that_were_drawn(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"run.{ending}"
    count, width, height = video(run(), path)
    frames, drawn_width, drawn_height = gif(run(), tmp_path / "run.gif")
    assert count == frames + 1
    assert (width, height) == (drawn_width // 2 * 2, drawn_height // 2 * 2)
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
        assert container.duration / 1e6 == pytest.approx((140 * (frames - 1) + HOLD_MS) / 1000, abs=0.2)
    assert [(frame.width, frame.height) for frame in decoded] == [(width, height)] * count
    assert [round(frame.time * 1000) for frame in decoded] == [
        *range(0, 140 * frames, 140),
        140 * (frames - 1) + HOLD_MS,
    ]
    # The paper is white and there is ink on it.
    light = decoded[-1].to_image().convert("L")
    assert light.getpixel((2, 2)) > 245
    assert light.getextrema()[0] < 60


@pytest.mark.parametrize("ending", CODECS)
def test_a_long_run_is_thinned_as_in_a_gif(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"run.{ending}"
    count, *_ = video(run(600), path, max_frames=9)
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == count == 10


def test_without_the_encoder_no_video_is_offered() -> None:
    code = "import sys; sys.modules['av'] = None; from ui.page.files import FORMATS; print(*FORMATS)"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert shown.stdout.split() == ["html", "embed", "gif", "poster", "drawing", "trajectory"]
