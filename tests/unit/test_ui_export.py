"""A replay is one closed file, a trajectory comes back as it went, a GIF has the frames it should."""

import base64
import copy
import hashlib
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nemodiff.errors import TraceError
from nemodiff.pictures import Picture
from nemodiff.trace.adapters.trajectory import MAX_BYTES, MAX_FRAMES, from_trajectory
from nemodiff.trace.events import Event, Position, Trace
from nemodiff.trace.replay import data_block, replay_html
from tests.helpers.traces import ar, diffusion, record, speculation
from ui.render.frames import HOLD_MS
from ui.render.gif import _palette, gif
from ui.render.trajectory import trajectory


@pytest.fixture
def trace() -> Trace:
    return record(ar() + diffusion() + speculation())


def masked() -> dict:
    """LLaDA2's kind: two blocks of two, one token rewritten."""
    frames = [[7, 99, 99, 99], [7, 5, 99, 99], [8, 5, 99, 6], [8, 5, 5, 6]]
    return {
        "method": "llada2",
        "label": "LLaDA2 · masked diffusion",
        "subtitle": "every slot starts as [MASK]",
        "model_id": "some/model",
        "prompt": "Why is the sky blue?",
        "gen_length": 4,
        "block_length": 2,
        "mask_token_id": 99,
        "frames": [{"step": i, "ids": ids} for i, ids in enumerate(frames)],
        "vocab": {"5": " a", "6": "</script>", "7": "x", "8": "\u2028", "99": ""},
    }


def uniform() -> dict:
    """DiffusionGemma's kind: no mask, noise that settles, a canvas not reached yet."""
    data = masked() | {"mask_token_id": None, "vocab": {"5": " a", "6": "b", "7": "x", "8": "y"}}
    frames = [[7, 5, -1, -1], [8, 6, -1, -1], [8, 6, 5, 7], [8, 6, 5, 6]]
    return data | {"frames": [{"step": i, "ids": ids} for i, ids in enumerate(frames)]}


# The replay


def test_a_replay_holds_the_trace_and_nothing_else_can_run(trace):
    page = replay_html(trace)
    data = re.search(r'<script id="trace" type="application/json">(.*?)</script>', page, re.DOTALL)[1]
    assert Trace.from_json(data) == Trace.from_json(trace.to_json())
    assert not re.search(r"[<>&\u2028\u2029]", data)
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert page.count("<script") == 2
    assert not re.search(r"""(?:src|href)\s*=\s*["']|@import|url\(""", page.replace(script, ""))


def test_a_hostile_prompt_stays_in_the_title(trace):
    trace.request["prompt"] = "</title><script>alert(1)</script> {title}"
    page = replay_html(trace)
    assert "<title>&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt; {title} · nemodiff</title>" in page
    assert page.count("<script") == 2


@settings(deadline=None)
@given(st.text())
def test_a_data_block_ends_no_script_element(text):
    block = data_block({"x": text})
    assert not re.search(r"[<>&\u2028\u2029]", block)
    assert json.loads(block) == {"x": text}


# The trajectory


@pytest.mark.parametrize("data", [masked(), uniform()], ids=["masked", "uniform"])
def test_a_trajectory_comes_back_as_it_went(data):
    assert trajectory(from_trajectory(data), "diffusion") == data
    through_a_file = Trace.from_json(from_trajectory(json.dumps(data)).to_json())
    assert trajectory(through_a_file, "diffusion") == data


def test_an_imported_token_is_committed_when_it_stops_changing():
    trace = from_trajectory(masked())
    lane = trace.lane("diffusion")
    events = [[(p.index, p.token, p.state) for p in event.positions] for event in lane.events]
    assert events == [
        [(0, 7, "masked"), (1, 99, "masked")],
        [(1, 5, "committed")],
        [(0, 8, "committed"), (3, 6, "committed")],
        [(2, 5, "committed")],
    ]
    assert [(event.forward, event.start, event.length) for event in lane.events] == [
        (1, 0, 2),
        (2, 0, 2),
        (3, 0, 2),
        (4, 2, 2),
    ]
    assert (lane.tokens, lane.finish, lane.text) == ([8, 5, 5, 6], None, "\u2028 a a</script>")
    assert trace.checkpoint == "some/model"


def test_an_unfinished_trajectory_is_stopped():
    data = masked()
    data["frames"] = data["frames"][:2]
    lane = from_trajectory(data).lane("diffusion")
    assert (lane.tokens, lane.finish) == ([7, 5], "stopped")


def test_a_run_of_ours_as_a_trajectory(trace):
    data = trajectory(trace, "diffusion")
    assert data["mask_token_id"] == 8  # the first id that the trace does not use
    assert [frame["ids"] for frame in data["frames"]] == [
        [1, 8, 8, 8, 8],
        [1, 8, 3, 8, 8],
        [1, 2, 3, 8, 8],
        [1, 2, 3, 6, 8],
        [1, 2, 3, 6, 5],
    ]
    assert (data["gen_length"], data["block_length"], data["vocab"]["8"]) == (5, 3, "")
    again = from_trajectory(json.dumps(data))
    assert again.lane("diffusion").tokens == trace.lane("diffusion").tokens
    assert trajectory(again, "diffusion") == data
    drafts = trajectory(trace, "self-speculation")
    assert [frame["ids"].count(8) for frame in drafts["frames"]] == [5, 5, 3, 3, 0]


def test_the_mask_of_a_run_is_its_own_where_it_names_one(trace):
    trace.vocabulary[40], trace.special = "<|mask|>", [1, 40]
    assert trajectory(trace, "ar")["mask_token_id"] == 40
    assert trajectory(trace, "ar", mask_token_id=50)["mask_token_id"] == 50


def test_a_lane_that_is_not_there_cannot_be_exported():
    with pytest.raises(TraceError, match="no diffusion lane"):
        trajectory(record(ar()), "diffusion")


PREVIEW = Picture.of(Image.new("RGB", (30, 20), "#d02040")).preview()


def pictured(trace: Trace, previews: int) -> Trace:
    trace.image_grids, trace.image_previews = [(2, 3), (4, 4)], [PREVIEW] * previews
    trace.request["images"] = [[30, 20], [16, 16]]
    return trace


def test_the_prompts_pictures_go_with_a_trajectory_and_come_back(trace):
    data = trajectory(pictured(trace, 1), "diffusion")
    assert data["images"] == [
        {"size": [30, 20], "grid": [2, 3], "preview": PREVIEW},
        {"size": [16, 16], "grid": [4, 4], "preview": None},
    ]
    again = from_trajectory(json.dumps(data))
    assert (again.image_grids, again.image_previews) == (trace.image_grids, trace.image_previews)
    assert Trace.from_json(again.to_json()) == again
    assert trajectory(again, "diffusion") == data
    assert "images" not in trajectory(record(ar()), "ar")


@pytest.mark.parametrize(
    "images",
    [3, [], [3], [{"preview": "data:image/svg+xml;base64,AAAA"}], [{"grid": [0, 1]}], [{"size": ["a", 1]}]]
    + [[{"grid": None}, {"grid": [1, 1]}], [{}] * 17],
)
def test_pictures_that_are_none_are_refused(images):
    with pytest.raises(TraceError):
        from_trajectory(masked() | {"images": images})


JUNK = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5), st.just([]))


@pytest.mark.parametrize("token", [999_999_999, 1_000_000_000, 2**31 - 1])
def test_the_largest_ids_are_read_back(token):
    value = masked()
    value["frames"][0]["ids"][0] = token
    trace = from_trajectory(value)
    assert Trace.from_json(trace.to_json()) == trace


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_changed_trajectory_is_read_or_refused_never_crashes(data):
    value = data.draw(st.sampled_from([masked(), uniform()]))
    key = data.draw(st.sampled_from(sorted(value)))
    where = data.draw(st.integers(0, 3))
    junk = data.draw(JUNK)
    changes = {
        "whole": lambda: value.update({key: junk}),
        "gone": lambda: value.pop(key),
        "frame": lambda: value["frames"].__setitem__(where, junk),
        "ids": lambda: value["frames"][where].update(ids=junk),
        "id": lambda: value["frames"][where]["ids"].__setitem__(where, junk),
        "step": lambda: value["frames"][where].update(step=junk),
        "vocab": lambda: value["vocab"].update({str(junk): junk}),
    }
    changes[data.draw(st.sampled_from(sorted(changes)))]()
    try:
        trace = from_trajectory(copy.deepcopy(value))
    except TraceError as error:
        assert str(error).endswith(".")
    else:
        assert Trace.from_json(trace.to_json()) == trace
        assert trajectory(trace, "diffusion")["gen_length"] == value["gen_length"]


@pytest.mark.parametrize(
    "data",
    ["", "[]", "nul", "[" * 100_000, b"\xff\xfe", " " * (MAX_BYTES + 1), masked() | {"frames": []}]
    + [masked() | {"frames": masked()["frames"] * MAX_FRAMES}, masked() | {"gen_length": 10**9}, {}],
)
def test_what_is_no_trajectory_is_refused(data):
    with pytest.raises(TraceError):
        from_trajectory(data)


def test_an_export_cannot_be_made_huge():
    with pytest.raises(TraceError, match="too long"):
        trajectory(record([Event("ar", 0, "prefill", 1.0, 0, 1, [Position(2**20, 1, "committed")])]), "ar")


# The GIF


def frames_of(path) -> tuple[list[int], tuple[int, int], int]:
    with Image.open(path) as image:
        durations = []
        for frame in range(image.n_frames):
            image.seek(frame)
            durations.append(image.info["duration"])
        return durations, image.size, image.info["loop"]


def test_a_gif_has_a_frame_a_forward_and_holds_the_last(trace, tmp_path):
    path = tmp_path / "run.gif"
    frames, width, height = gif(trace, path)
    durations, size, loop = frames_of(path)
    assert frames == 5  # forwards 0 to 4
    assert durations == [140, 140, 140, 140, HOLD_MS]
    assert (size, loop) == ((width, height), 0)


def test_a_gif_of_seconds_keeps_their_pace(trace, tmp_path):
    for lane in trace.lanes:
        for event in lane.events:
            event.clock_ms *= 10
    path = tmp_path / "run.gif"
    frames, *_ = gif(trace, path, clock="seconds")
    durations, *_ = frames_of(path)
    assert frames == len(durations) == 13  # 0.5 s, 40 ms at the least
    assert set(durations[:-1]) == {40}


def test_a_long_run_is_thinned_and_scrolls(tmp_path):
    events = [Event("ar", i, "decode", i + 1.0, i, 1, [Position(i, i % 3 + 1, "committed")]) for i in range(600)]
    path = tmp_path / "run.gif"
    frames, _, height = gif(record(events), path, max_frames=10, rows=6)
    durations, *_ = frames_of(path)
    assert frames == len(durations) == 10
    assert height < 400


def test_text_never_moves(trace, tmp_path):
    """Ink of the final frame's first token is at the same place from the first frame on."""
    path = tmp_path / "run.gif"
    gif(trace, path, size=13)
    with Image.open(path) as image:
        marks = []
        for frame in (1, 4):
            image.seek(frame)
            ink = image.convert("L").crop((18, 114, 18 + 22 * 8, 130)).point(lambda value: 255 * (value < 110))
            marks.append(ink.getbbox())
    assert marks[0] == marks[1] is not None


def test_an_import_without_times_becomes_a_gif_of_forwards(tmp_path):
    frames, *_ = gif(from_trajectory(masked()), tmp_path / "run.gif", clock="seconds")
    assert frames == 5


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(TraceError):
        gif(record([]), tmp_path / "run.gif")
    with pytest.raises(ValueError):
        gif(record(ar()), tmp_path / "run.gif", clock="hours")


def test_a_gif_shows_the_prompts_picture_in_its_colours_and_a_frame_for_one_that_was_not_kept(trace, tmp_path):
    plain = gif(trace, tmp_path / "plain.gif")
    *_, height = gif(pictured(trace, 1), tmp_path / "run.gif")
    assert height > plain[2]
    with Image.open(tmp_path / "run.gif") as image:
        first = image.convert("RGB")
        image.seek(image.n_frames - 1)
        last = image.convert("RGB")
    box = (18, 74, 18 + 144, 74 + 96)  # as wide as it is in its shape, 96 pixels high
    for shown in (first, last):
        part = shown.crop(box)
        red = sum(n for n, (r, g, b) in part.getcolors(1 << 16) if r > 190 and g < 80 and b < 110)
        assert red > 0.8 * part.width * part.height  # under a thin grid
        assert shown.getpixel((176, 80)) != (255, 255, 255)  # the other's frame
        assert shown.getpixel((2, 2)) == (255, 255, 255)


def test_a_preview_that_is_no_picture_is_a_frame(trace, tmp_path):
    pictured(trace, 1).image_previews = ["data:image/jpeg;base64,AAAA"]
    gif(trace, tmp_path / "run.gif")
    with Image.open(tmp_path / "run.gif") as image:
        colours = {colour for _, colour in image.convert("RGB").crop((20, 76, 160, 168)).getcolors(1 << 16)}
    assert all(max(colour) - min(colour) < 32 for colour in colours)


def test_the_palette_fits():
    assert len(_palette().getpalette()) <= 3 * 256
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    assert len(_palette([noise, Image.linear_gradient("L").convert("RGB")]).getpalette()) <= 3 * 256
