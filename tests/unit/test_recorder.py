"""Recording without an engine of ours: what a Recorder writes is a trace, by its schema and to the reader."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from nemodiff.conversation import MAX_MESSAGES
from nemodiff.engine.local import Engine
from nemodiff.errors import TraceError
from nemodiff.request import Request
from nemodiff.setting_kinds import MAX_STRING, MAX_STRINGS
from nemodiff.trace import Position, Recorder, Trace, events, limits, oracle, reading
from nemodiff.trace.adapters import log
from nemodiff.trace.opening import read_trace
from tests.helpers.traces import long_trace, three_lanes

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "trace.schema.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "trace-format.md").read_text(encoding="utf-8")
CHECK = jsonschema.Draft202012Validator(SCHEMA)

WITHOUT = """
import sys
for name in ("torch", "transformers", "gradio", "numpy", "PIL", "plotly", "pydantic", "huggingface_hub"):
    sys.modules[name] = None  # an import of it fails
from nemodiff.cli.main import main
from nemodiff.trace import Position, Recorder, read_trace
from nemodiff.trace.adapters import assisted, canvas, log, streamer, trajectory
recorder = Recorder.of_run("tiny", "diffusion", lambda token: f" t{token}", prompt="<b>")
recorder.forward("diffusion", "denoise", [Position(0, 5, "committed", 0.9)], ms=2.0)
trace = recorder.finish("length")
trace.save("run.json")
assert read_trace("run.json") == trace and "<iframe" in trace._repr_html_()
sys.exit(main(["show", "run.json", "run.json", "--out", "run.html"]))
"""


def test_a_run_is_recorded_read_and_shown_without_torch_or_gradio(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run.html").read_text(encoding="utf-8").count("<iframe") == 2


def test_forwards_are_numbered_and_the_clock_goes_on() -> None:
    recorder = Recorder.of_run("m", ["ar", "diffusion"], str, settings={"threshold": 0.9}, special=[9])
    recorder.forward("ar", "prefill", [Position(0, 1, "committed")], ms=4.0)
    recorder.forward("ar", "decode", [Position(1, 9, "committed")], ms=2.0, finish="eos")
    recorder.forward("diffusion", "denoise", [Position(2, 5, "masked"), Position(3, 6, "committed")], ms=1.0)
    clocked = recorder.forward("diffusion", "denoise", forward=7)  # by the clock
    trace = recorder.finish("time")
    assert [(e.forward, e.clock_ms) for e in trace["ar"].events] == [(0, 4.0), (1, 6.0)]
    assert [(e.forward, e.start, e.length) for e in trace["diffusion"].events] == [(1, 2, 2), (7, 2, 1)]
    assert clocked.clock_ms >= 1.0
    assert (trace["ar"].text, trace["ar"].finish, trace["diffusion"].finish) == ("1", "eos", "time")
    assert trace.request == {"threshold": 0.9, "prompt": "", "modes": ["ar", "diffusion"]}


def test_pieces_of_characters_join_in_the_text() -> None:
    recorder = Recorder.of_run("m", "ar", {1: b"\xe2\x9c", 2: b"\x93", 3: " ok"}.__getitem__)
    for token in (1, 2, 3):
        recorder.forward("ar", "decode", [Position(token - 1, token, "committed")])
    trace = recorder.finish("length")
    assert trace["ar"].text == "✓ ok" and trace.byte_pieces == {1: "e29c", 2: "93"}
    assert Trace.from_json(trace.to_json()).byte_pieces == trace.byte_pieces


@pytest.mark.parametrize("modes", ["beam", [], ["ar", "ar"]])
def test_modes_that_there_are_not_are_refused(modes: str | list[str]) -> None:
    with pytest.raises(ValueError, match="modes are ar, diffusion, self-speculation"):
        Recorder.of_run("m", modes, str)


# The schema


@pytest.mark.parametrize("mode", ["linear", "quadratic", "tree"])
def test_real_traces_are_as_the_schema_says(llama_engine: Engine, mode: str) -> None:
    request = Request(prompt_ids=(3, 17, 60), max_new_tokens=12, block_length=4, draft=mode, alternatives=2)
    CHECK.validate(json.loads(llama_engine.generate(request).to_json()))


def test_recorded_and_made_traces_are_as_the_schema_says() -> None:
    recorded = sorted((ROOT / "assets" / "traces").glob("*.json"))
    assert recorded
    for trace in [*(json.loads(path.read_text(encoding="utf-8")) for path in recorded), three_lanes(), long_trace()]:
        CHECK.validate(trace)
        CHECK.validate(json.loads(Trace.from_json(json.dumps(trace)).to_json()))


def test_the_schema_and_the_reader_name_the_same_values_and_bounds() -> None:
    part = {name: one["properties"] for name, one in SCHEMA["$defs"].items() if "properties" in one}
    assert SCHEMA["$id"] == SCHEMA["properties"]["schema"]["const"] == events.SCHEMA
    assert part["lane"]["mode"]["enum"] == list(events.MODES)
    assert part["event"]["phase"]["enum"] == list(events.PHASES)
    assert part["position"]["state"]["enum"] == list(events.STATES)
    assert SCHEMA["$defs"]["finish"]["enum"] == list(events.FINISHES)
    assert part["position"]["index"]["maximum"] == part["stop"]["place"]["maximum"] == reading.MAX_INDEX
    assert part["stop"]["end"]["maximum"] == part["stop"]["characters"]["maximum"] == reading.MAX_TEXT
    asked = SCHEMA["properties"]["request"]["properties"]
    assert asked["history"]["maxItems"] == MAX_MESSAGES
    assert (asked["stop"]["maxItems"], asked["stop"]["items"]["maxLength"]) == (MAX_STRINGS, MAX_STRING)
    assert part["stop"]["string"]["maxLength"] == MAX_STRING
    assert part["position"]["top"]["maxItems"] == part["event"]["tree"]["maxItems"] == reading.MAX_TOP
    assert part["event"]["length"]["maximum"] == part["event"]["rows"]["maximum"] == reading.MAX_BLOCK
    assert part["event"]["start"]["maximum"] == reading.MAX_INDEX + reading.MAX_BLOCK
    assert part["lane"]["events"]["maxItems"] == reading.MAX_EVENTS
    assert part["lane"]["tokens"]["maxItems"] == reading.MAX_TOKENS
    assert part["lane"]["note"]["maxLength"] == limits.MAX_NOTE
    assert SCHEMA["properties"]["tokens"]["additionalProperties"]["maxLength"] == reading.MAX_TEXT
    assert SCHEMA["properties"]["image_previews"]["items"]["maxLength"] == limits.MAX_PREVIEW
    written = {name for one in three_lanes()["lanes"] for event in one["events"] for name in event}
    assert written <= part["event"].keys() and oracle.MAX_BLOCKS <= reading.MAX_EVENTS


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("lanes", 0, "events", 0, "phase"), "think"),
        (("lanes", 0, "events", 0, "clock_ms"), -1),
        (("lanes", 0, "events", 0, "positions", 0, "state"), "maybe"),
        (("lanes", 0, "events", 0, "positions", 0, "confidence"), 2),
        (("lanes", 0, "events", 0, "positions", 0, "index"), None),
        (("lanes", 0, "events", 0, "positions", 0, "top"), [[1]]),
        (("lanes", 0, "events", 0, "stop"), {"place": 0, "characters": 0, "end": 1, "string": ""}),
        (("request", "history"), [{"role": "system", "content": "x"}]),
        (("request", "stop"), ["x" * 101]),
        (("lanes", 0, "mode"), "beam"),
        (("lanes", 0, "note"), "x" * (limits.MAX_NOTE + 1)),
        (("lanes",), []),
        (("tokens", "1"), 5),
        (("schema",), "nemodiff.trace/2"),
    ],
)
def test_what_the_schema_refuses_the_reader_refuses(path: tuple[str | int, ...], value: object) -> None:
    trace = copy.deepcopy(three_lanes())
    target = trace
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    assert not CHECK.is_valid(trace)
    with pytest.raises(TraceError, match=r"\.$"):
        Trace.from_json(json.dumps(trace))


def test_the_documents_examples_are_what_they_say(tmp_path: Path) -> None:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    example = next(text for kind, text in blocks if kind == "json")
    CHECK.validate(json.loads(example))
    (tmp_path / "a.json").write_text(example, encoding="utf-8")
    assert read_trace(tmp_path / "a.json")["diffusion"].note == "Fills masks, the surest first."
    lines = next(text for kind, text in blocks if kind == "")
    (tmp_path / "b.jsonl").write_text(lines, encoding="utf-8")
    trace = read_trace(tmp_path / "b.jsonl")
    assert trace["self-speculation"].text == "1, 2, "
    assert trace["self-speculation"].acceptance_lengths == [3, 2]
    for kind, code in blocks:
        if kind == "python" and "async for" not in code:
            compile(code, "docs/trace-format.md", "exec")


# A log


def test_a_log_of_a_lane_of_each_kind() -> None:
    head = {"log": log.SCHEMA, "model": "m", "prompt": "p", "settings": {"block_length": 4}, "special": [2]}
    steps = [
        {"mode": "ar", "tokens": [" a"], "ms": 5},
        {"mode": "self-speculation", "tokens": [{"text": " a", "p": 0.5}], "ms": 5},
        {"mode": "ar", "tokens": [{"bytes": "e29c"}], "ms": 2},
        {"mode": "self-speculation", "draft": [" b", " c"], "tokens": [" b", {"id": 2, "text": "</s>"}], "ms": 3}
        | {"draft_ms": 1, "finish": "eos"},
        {"mode": "ar", "tokens": [{"bytes": "93"}], "ms": 2, "finish": "length"},
    ]
    trace = log.from_log("\n\n".join(map(json.dumps, [head, *steps])))
    CHECK.validate(json.loads(trace.to_json()))
    assert Trace.from_json(trace.to_json()) == trace
    assert (trace["ar"].text, trace["ar"].seconds, trace["ar"].forwards) == (" a✓", 0.009, 2)
    spec = trace["self-speculation"]
    assert (spec.text, spec.seconds, spec.forwards, spec.finish) == (" a b", 0.009, 1, "eos")
    assert [(p.state, p.token) for p in spec.events[-1].positions][0][0] == "accepted"
    assert [p.state for p in spec.events[-1].positions] == ["accepted", "rejected", "corrected"]
    assert spec.nfe_counts() == [None] * 3 and trace.request["block_length"] == 4


HEAD = json.dumps({"log": log.SCHEMA, "model": "m"})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "Line 2 of the log holds no valid JSON."),
        ("[]", "Line 2 of the log: it must be an object, not []."),
        ('{"tokens": 5}', "Line 2 of the log: tokens must be a list, not 5."),
        ('{"tokens": [null]}', "tokens[0] must be an id, a text or an object with either, not None."),
        ('{"tokens": [-1]}', "tokens[0].id must be a whole number"),
        ('{"tokens": [true]}', "tokens[0].text must be a text"),
        ('{"tokens": [{"id": 1, "p": 2}]}', "tokens[0].p must be from 0 to 1, not 2."),
        ('{"tokens": [{"bytes": "xyz"}]}', "tokens[0].bytes must be an even number"),
        ('{"tokens": ["a"], "ms": -1}', "ms must be milliseconds, 0 or more, not -1."),
        ('{"tokens": ["a"], "ms": NaN}', "Line 2 of the log holds no valid JSON."),
        ('{"tokens": ["a"], "mode": "diffusion"}', "mode must be ar or self-speculation, not 'diffusion'."),
        ('{"tokens": ["a"], "accepted": 3}\n{"tokens": ["a"], "accepted": 3}', "accepted must be a whole number"),
        ('{"tokens": ["a"], "finish": "soon"}', "finish must be eos, stop, length, stopped, time, on the last line"),
        ('{"tokens": ["a"], "finish": "eos"}\n{"tokens": ["b"]}', "Line 2 of the log: finish must be"),
        ('{"tokens": ["\\ud800"]}', "Line 2 of the log holds no valid JSON."),
        ('{"tokens": ["a"], "ms": 9e8}\n{"tokens": ["a"], "ms": 9e8}', "ms must add up to less than"),
    ],
)
def test_a_log_that_is_off_is_refused_by_its_line(line: str, says: str) -> None:
    with pytest.raises(TraceError) as refused:
        log.from_log(f"{HEAD}\n{line}")
    assert says in str(refused.value) and str(refused.value).endswith(".")


def test_a_log_is_bounded_before_anything_is_made_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_EVENTS", 10)
    with pytest.raises(TraceError, match="holds more than 10 forwards"):
        log.from_log("\n".join([HEAD, *['{"tokens": ["a"]}'] * 6]))
    monkeypatch.setattr(reading, "MAX_POSITIONS", 10)
    with pytest.raises(TraceError, match="holds more than 10 positions"):
        log.from_log("\n".join([HEAD, json.dumps({"tokens": ["a"] * 11})]))
    with pytest.raises(TraceError, match="Line 1 of the log: model must be a text"):
        log.from_log(json.dumps({"log": log.SCHEMA, "model": 5}))
    with pytest.raises(TraceError, match="larger than"):
        log.from_log("x" * (limits.MAX_BYTES + 1))
