"""A run on one sheet: its verdict in words, the SVG as text that runs nothing, the PNG as pixels."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nemodiff.errors import TraceError
from nemodiff.pictures import open_picture
from nemodiff.trace.events import Trace
from tests.helpers.traces import record, three_lanes, trace_of
from ui.render.poster import HEIGHT, WIDTH, how, poster_png, poster_svg
from ui.render.verdict import verdict

SVG = "{http://www.w3.org/2000/svg}"
PREVIEW = open_picture(Path(__file__).parents[2] / "assets" / "images" / "shapes.png").preview()


def read(data: dict) -> Trace:
    return Trace.from_json(json.dumps(data))


def texts(trace: Trace) -> list[str]:
    return [node.text or "" for node in ET.fromstring(poster_svg(trace)).iter(f"{SVG}text")]


# The verdict


def test_the_same_text_is_said_to_be_the_same_with_forwards_and_seconds() -> None:
    assert verdict(read(three_lanes())) == [
        "Self-speculation: AR's text, 2.00× fewer forwards, 1.67× less time.",
        "Block diffusion: AR's text, 1.33× fewer forwards, 1.25× less time.",
    ]


def test_another_text_is_told_from_its_first_other_token_on() -> None:
    data = three_lanes()
    data["lanes"][2]["tokens"] = [1, 2, 4, 4, 5]
    assert verdict(read(data))[1] == (
        "Block diffusion: not AR's text from token 2 on, 1.33× fewer forwards and 1.25× less time per token."
    )
    data["lanes"][2]["tokens"] = [1, 2, 3]
    assert "AR's text, but it ends earlier, " in verdict(read(data))[1]
    data["lanes"][2] |= {"tokens": [1, 2, 3], "finish": "stopped"}
    assert "AR's text so far, 3 tokens, " in verdict(read(data))[1]


def test_what_is_wrong_stands_before_what_is_fast() -> None:
    data = three_lanes({"1": '{"a"', "2": ":", "3": " 1", "4": "}", "5": "x"})
    data["request"]["prompt"] = "Write JSON."
    for lane in data["lanes"]:
        lane |= {"finish": "eos", "tokens": [1, 2, 3, 4]}
    data["lanes"][2]["tokens"] = [1, 2, 3]
    assert verdict(read(data))[1].startswith("Block diffusion: its JSON does not parse; AR's text, but it ends earlier")


def test_without_ar_or_times_only_what_was_measured_is_said() -> None:
    data = three_lanes()
    del data["lanes"][0]
    assert verdict(read(data))[1] == "Block diffusion: 5 tokens in prefill + 3 forwards (NFE 4), 0.04 s."
    data = three_lanes()
    for lane in data["lanes"]:
        for event in lane["events"]:
            event["clock_ms"] = 0
    assert verdict(read(data))[0] == "Self-speculation: AR's text, 2.00× fewer forwards."


# The sheet


def test_a_poster_says_what_was_asked_where_it_ran_and_what_it_came_to() -> None:
    trace = read(three_lanes() | {"dtype": "int8", "recorded": "2026-01-02T03:04:05"})
    shown = texts(trace)
    assert shown[:2] == ["made for a test", "made-for-a-test · Test CPU · int8 · 2026-01-02"]
    for said in (*verdict(trace), "Autoregressive", "Block diffusion", "Self-speculation", "blocks of 5"):
        assert any(said in text for text in shown), said
    assert "5 tokens · 2.50 tokens / forward · NFE 3 · 166.7 tokens / s" in shown
    assert [text for text in shown if text in ("One", "two", "three", "four", ".")] == [
        "One",
        "two",
        "three",
        "four",
        ".",
    ] * 3
    with Image.open(io.BytesIO(poster_png(trace))) as image:
        assert image.size == (WIDTH, HEIGHT) and len(image.convert("RGB").getcolors(1 << 20) or []) > 20


def test_the_settings_of_a_lane_in_words() -> None:
    trace = read(three_lanes())
    trace.request |= {"draft": "tree", "rows": 24, "temperature": 0.7, "order": "leftmost"}
    assert [how(trace, lane) for lane in trace.lanes] == [
        "one token per forward, temperature 0.7",
        "tree drafts, 24 rows at most, temperature 0.7",
        "blocks of 5, confidence sampler, threshold 0.9, from the left, temperature 0.7",
    ]


def test_a_long_answer_says_how_many_tokens_are_not_shown() -> None:
    data = trace_of({"1": " word" * 4}, [1] * 400)
    data["lanes"] = data["lanes"][:1]
    assert any(re.fullmatch(r"… \d+ more tokens", text) for text in texts(read(data)))


def test_a_picture_is_on_it_where_the_trace_keeps_one() -> None:
    data = three_lanes()
    data |= {"image_grids": [[2, 3], [2, 3]], "image_previews": [PREVIEW]}
    data["request"]["images"] = [[240, 192], [240, 192]]
    trace = read(data)
    images = [node.get("href") for node in ET.fromstring(poster_svg(trace)).iter(f"{SVG}image")]
    assert images == [PREVIEW] and "picture not kept" in texts(trace)
    with Image.open(io.BytesIO(poster_png(trace))) as image:
        found = image.convert("RGB").getcolors(1 << 20) or []
    assert sum(count for count, (red, _, blue) in found if blue > 180 and red < 80) > 500  # the drawing's circle


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=40), st.text(max_size=12))
def test_whatever_a_trace_says_stays_text(prompt: str, token: str) -> None:
    data = three_lanes({"1": token, "2": "</text><script>alert(1)</script>", "3": "\u202e", "4": "é", "5": "&"})
    data["request"]["prompt"] = prompt
    data["checkpoint"] = '"><image href="http://example.com/x"/>'
    try:
        trace = Trace.from_json(json.dumps(data))
    except TraceError:
        return
    root = ET.fromstring(poster_svg(trace))
    assert {node.tag.removeprefix(SVG) for node in root.iter()} <= {"svg", "title", "style", "rect", "text", "line"}
    for node in root.iter():
        assert not any(name.endswith("href") or name.startswith("on") for name in node.attrib)


def test_nothing_to_draw_is_said() -> None:
    for make in (poster_png, poster_svg):
        with pytest.raises(TraceError, match="nothing to draw"):
            make(record([]))
