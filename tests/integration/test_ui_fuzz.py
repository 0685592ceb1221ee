"""Whatever is sent is answered with a value or one sentence: traces, requests, links, branches, files, pictures."""

from __future__ import annotations

import copy
import io
import json
from collections import defaultdict
from functools import reduce
from operator import getitem
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs

import pytest
from gradio.utils import get_upload_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from nemodiff.engine.local import Engine
from nemodiff.errors import NemodiffError, RequestError, TraceError
from nemodiff.evaluate.sweep_results import Kept, Results
from nemodiff.pictures import MAX_SIDE, open_picture
from nemodiff.request import Request
from nemodiff.trace.adapters.trajectory import from_trajectory
from nemodiff.trace.events import MODES, Trace
from nemodiff.trace.opening import read_trace
from tests.helpers.engines import sent
from tests.helpers.served import LEAKS, values
from tests.helpers.traces import trace_of
from ui import wire
from ui.live import branch, oracle
from ui.live.desk import Desk
from ui.live.models import Checkpoints
from ui.live.sweep_plan import Plan
from ui.page import build, files, permalink, watch
from ui.page.picture_slot import Slot
from ui.render.trajectory import trajectory
from ui.server import guard
from ui.server.guard import Refusal
from ui.settings import Settings

TRACE = trace_of({"1": "a", "2": "<b>", "3": "${c}"}, [1, 2, 3, 1])
fuzz = settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**30), 2**63])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["ar", "match", "__class__", "${x}", "<img src=x onerror=alert(1)>", "/etc/passwd", "http://x"])
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Where in a JSON value something can be put."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, one in inner for place in places(one, (*path, key))]


def at(value: Any, path: tuple) -> Any:
    return reduce(getitem, path, value)


def put(value: Any, path: tuple, new: Any) -> Any:
    value = copy.deepcopy(value)
    at(value, path[:-1])[path[-1]] = new
    return value


def a_sentence(text: str) -> None:
    assert text and "\n" not in text and len(text) <= wire.MAX_SENTENCE + 1
    assert text.endswith((".", "…")), text
    assert not LEAKS.search(text.replace("/etc/passwd", "")), text


def texts(start: Any) -> st.SearchStrategy[str]:
    """Texts that are nearly `start` as JSON, some so nearly that they are one, or JSON, or nothing of the kind."""
    everywhere = places(start)
    changed = st.tuples(st.sampled_from(everywhere), anything).map(lambda one: put(start, *one))
    # One of its own values in the place of another of its kind: the checks of types let that through.
    kinds: defaultdict[type, list[Any]] = defaultdict(list)
    for place in everywhere:
        kinds[type(at(start, place))].append(at(start, place))
    moved = st.sampled_from(everywhere).flatmap(
        lambda to: st.sampled_from(kinds[type(at(start, to))]).map(lambda new: put(start, to, new))
    )
    whole = (changed | moved | anything).map(lambda value: json.dumps(value))
    text = json.dumps(start)
    cut = st.integers(0, len(text)).map(lambda end: text[:end])
    return whole | cut | st.text(max_size=40) | st.just("[" * 200_000) | st.just('{"a":' * 50_000)


@fuzz
@given(text=texts(TRACE))
def test_a_trace_is_read_or_refused_in_a_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        trace = read_trace(path)
    except TraceError as error:
        a_sentence(str(error))
        return
    assert Trace.from_json(trace.to_json()) == trace
    json.loads(wire.replay(trace))


@fuzz
@given(data=st.binary(max_size=200))
def test_bytes_are_no_trace(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "trace.json").write_bytes(data)
    with pytest.raises(TraceError):
        read_trace(tmp_path / "trace.json")


@fuzz
@given(text=texts(trajectory(Trace.from_json(json.dumps(TRACE)), "ar")))
def test_a_trajectory_is_read_or_refused_in_a_sentence(text: str) -> None:
    try:
        Trace.from_json(from_trajectory(text).to_json())
    except TraceError as error:
        a_sentence(str(error))


@settings(fuzz, max_examples=40)
@given(text=texts(TRACE), kind=st.sampled_from(["html", "trajectory", "exe", ""]))
def test_a_file_is_made_or_refused_in_a_sentence(text: str, kind: str) -> None:
    try:
        files.make(kind, text)
    except NemodiffError as error:
        a_sentence(wire.explain(error))


@settings(fuzz, max_examples=40)
@given(text=texts(TRACE))
def test_what_can_be_read_can_be_drawn(text: str) -> None:
    try:
        trace = Trace.from_json(text)
    except TraceError:
        return
    for chart in watch.CHARTS:
        chart(trace)


@pytest.fixture(scope="module")
def ask(nvidia_engine: Engine) -> Any:
    """The page's own functions, by name; each yields what the stage gets. The folder has no tokenizer: a prompt ends
    in a sentence too."""
    page = build.build(nvidia_engine, Settings(visitor_rate=0, max_new_tokens=16, time_limit=5.0), desk=None)
    functions = {one.api_name: one.fn for one in page.fns.values()}

    def call(name: str, *values_: Any) -> list[dict[str, Any]]:
        visitor = SimpleNamespace(session_hash="s", client=None, headers={})
        return [json.loads(text) for text in functions[name](*sent(name, values_), visitor)]

    return call


@fuzz
@given(data=st.data())
def test_any_values_of_the_fields_end_in_a_run_or_a_sentence(ask: Any, data: st.DataObject) -> None:
    sent = values()
    for k in data.draw(st.sets(st.integers(0, len(sent) - 1), min_size=1, max_size=4)):
        sent[k] = data.draw(anything)
    last = ask("watch", *sent)[-1]
    if "error" in last:
        a_sentence(last["error"])
    else:
        assert last["end"]


@pytest.fixture(scope="module")
def link() -> Any:
    page = build.build(None, Settings(), desk=Desk(Settings()))
    stage = next(one for one in page.blocks.values() if getattr(one, "elem_id", None) == "stage-host")
    return next(one for one in stage.server_fns if one.__name__ == "linked")


ASKED = {
    "id": 3,
    "checkpoint": "tiny-nvidia",
    "request": Request(prompt_ids=(5, 6), modes=("ar",), max_new_tokens=4).to_json(),
    "answer_ids": [7],
}


@fuzz
@given(text=texts(ASKED))
def test_a_branch_ends_in_a_run_or_a_sentence(ask: Any, text: str) -> None:
    last = ask("branch", text)[-1]
    if "error" in last:
        a_sentence(last["error"])
    else:
        assert last["end"]


@settings(fuzz, max_examples=60)
@given(value=anything)
def test_a_branch_of_no_text_is_a_sentence(value: Any) -> None:
    with pytest.raises(RequestError):
        branch.request_of(value, "tiny", 1.0)


@settings(fuzz, max_examples=60)
@given(text=texts(ASKED))
def test_a_ceiling_ends_in_one_or_in_a_sentence(ask: Any, text: str) -> None:
    last = ask("speed_of_light", text)[-1]["light"]
    if "error" in last:
        a_sentence(last["error"])
    else:
        assert last["ceiling"]
    json.loads(oracle.progress(text))


@fuzz
@given(query=st.dictionaries(st.sampled_from([*permalink.FIELDS, "x"]), st.text(max_size=30) | scalars.map(str)))
def test_a_link_gives_usable_values_or_names_what_is_not(query: dict[str, str]) -> None:
    found, wrong = permalink.read(query)
    assert set(found) | set(wrong) == set(query) & set(permalink.FIELDS)
    defaults = [object()] * len(permalink.FIELDS)  # nothing is as by default
    again = permalink.query([found.get(name) for name in permalink.FIELDS], defaults)
    read = {name: values[0] for name, values in parse_qs(again, keep_blank_values=True).items()}
    assert permalink.read(read) == (
        {name: value for name, value in found.items() if value != []},
        [],
    )


@fuzz
@given(sent=anything | st.lists(anything, min_size=len(permalink.FIELDS) + 1, max_size=len(permalink.FIELDS) + 1))
def test_a_link_of_any_values_is_made_or_refused_in_a_sentence(link: Any, sent: Any) -> None:
    said = json.loads(link(sent))
    if "error" in said:
        a_sentence(said["error"])
    else:
        assert len(said["query"]) <= permalink.MAX_QUERY


@fuzz
@given(text=texts({"checkpoint": "a", "device": "b", "dtype": "c", "labels": [], "max_new_tokens": 4, "points": [{}]}))
def test_what_a_browser_kept_of_a_sweep_is_used_or_forgotten(text: str) -> None:
    kept = Results.from_json(text)
    assert kept is None or Results.from_json(kept.to_json())
    assert len(Kept.from_json(Kept.from_json(text).to_json()).sweeps) == len(Kept.from_json(text).sweeps)


MORE = ("own", "drafts", "repeats", "samplers", "orders", "rows", "temperatures")


@fuzz
@given(sent=st.lists(anything, min_size=4, max_size=4), more=st.dictionaries(st.sampled_from(MORE), anything))
def test_a_plan_is_one_or_is_refused_in_a_sentence(sent: list[Any], more: dict[str, Any]) -> None:
    try:
        Plan.of(*sent, 128, **more)
    except RequestError as error:
        a_sentence(wire.explain(error))


files_sent = st.fixed_dictionaries(
    {"path": anything | st.just(f"{get_upload_folder()}/a/b.json"), "meta": st.just({"_type": "gradio.FileData"})},
    optional={"url": anything, "more": anything},
)


@fuzz
@given(data=st.recursive(files_sent | anything, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_no_address_and_no_foreign_path_gets_past_the_guard(data: Any) -> None:
    try:
        passed = guard._parsed(json.dumps({"data": data}).encode())
        guard._clean(passed)
    except Refusal as refusal:
        assert refusal.status == 400
        a_sentence(refusal.sentence)
        return
    waiting = [passed]
    while waiting:
        value = waiting.pop()
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        meta = value.get("meta") if isinstance(value, dict) else None
        if isinstance(meta, dict) and meta.get("_type") == "gradio.FileData":
            assert "url" not in value
            assert value["path"].startswith(f"{get_upload_folder()}/") and ".." not in value["path"]


def pictures() -> dict[str, bytes]:
    """A small picture in every format that is read, as a file's bytes."""
    image = Image.new("RGB", (24, 16), (200, 30, 30))
    found = {}
    for kind in ("PNG", "JPEG", "WebP", "GIF"):
        image.save(file := io.BytesIO(), kind)
        found[kind] = file.getvalue()
    return found


PICTURES = pictures()


@st.composite
def nearly_pictures(draw: st.DrawFn) -> bytes:
    """A picture's bytes with some of them changed, cut off or doubled; or bytes of any kind."""
    data = bytearray(PICTURES[draw(st.sampled_from(sorted(PICTURES)))])
    for _ in range(draw(st.integers(0, 6))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    start, end = sorted(draw(st.tuples(st.integers(0, len(data)), st.integers(0, len(data)))))
    return draw(
        st.sampled_from([bytes(data), bytes(data[:end]), bytes(data + data[start:end])]) | st.binary(max_size=99)
    )


@settings(fuzz, max_examples=300)
@given(data=nearly_pictures())
def test_a_picture_is_small_and_rgb_or_refused_in_a_sentence(data: bytes) -> None:
    try:
        picture = open_picture(data)
    except RequestError as error:
        a_sentence(str(error))
        return
    assert picture.image.mode == "RGB" and 0 < max(picture.width, picture.height) <= MAX_SIDE
    assert picture.preview().startswith("data:image/jpeg;base64,")


def test_whole_pictures_are_read() -> None:
    assert {(open_picture(data).width, open_picture(data).height) for data in PICTURES.values()} == {(24, 16)}


@fuzz
@given(path=anything | st.sampled_from(["/etc/passwd", get_upload_folder(), f"{get_upload_folder()}/../x.png", "\0"]))
def test_no_path_of_a_picture_but_an_uploads_is_opened(path: Any) -> None:
    engine = SimpleNamespace(checkpoint="seer", sees=True)
    slot = Slot(Checkpoints(engine, Settings()))
    with patch("ui.page.picture_slot.open_picture", side_effect=AssertionError):
        answer = json.loads(slot.look(path))
    assert answer["picture"] is None
    a_sentence(answer["error"])


def test_the_fuzz_can_fail() -> None:
    """The texts that are drawn do reach the code behind the checks: some are whole traces."""
    found = []

    @settings(fuzz, max_examples=300, database=None)
    @given(text=texts(TRACE))
    def look(text: str) -> None:
        try:
            found.append(Trace.from_json(text).lanes[0].mode in MODES)
        except TraceError:
            found.append(False)

    look()
    assert any(found) and not all(found)
