"""Texts at their edges: half a character at an answer's end, characters that are none, prompts that are too long."""

import json

import pytest

from nemodiff.checkpoints.tokenizer import Tokenizer
from nemodiff.engine.loading import load
from nemodiff.errors import RequestError, TraceError
from nemodiff.request import Request
from nemodiff.trace.events import Event, Lane, Position, Trace
from nemodiff.trace.recorder import Recorder
from tests.helpers.chat import END, FIRST_BYTE, write_templated, write_tokenizer
from ui.page import permalink


def recorded(tokenizer, tokens, finish="length", mode="ar"):
    """(the text after every token, the whole lane) of an answer of `tokens`."""
    head = Trace("m", "m", "", "", True, {}, {}, special=tokenizer.special_ids)
    recorder, streamed = Recorder(head, [mode], tokenizer.decode, tokenizer.token_text), []
    for index, token in enumerate(tokens):
        end = finish if index == len(tokens) - 1 else None
        recorder.add(Event(mode, index, "decode", float(index), index, 1, [Position(index, token, "committed")], end))
        streamed.append(recorder.text(mode))
    return streamed, recorder.trace.lane(mode)


def ids(text):
    return [FIRST_BYTE + byte for byte in text]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer(write_tokenizer(tmp_path_factory.mktemp("chat")))


@pytest.mark.parametrize("whole", ["é", "€", "🙂"])
@pytest.mark.parametrize("before", ["", "a", "é", "\ufffd"])
def test_streamed_and_final_text_agree_at_every_limit(tokenizer, before, whole):
    data = (before + whole + "z").encode()
    for limit in range(1, len(data) + 1):
        streamed, lane = recorded(tokenizer, ids(data[:limit]))
        assert lane.text == streamed[-1] == data[:limit].decode(errors="ignore")
        assert all(later.startswith(earlier) for earlier, later in zip(streamed, streamed[1:], strict=False))


def test_an_end_after_half_a_character(tokenizer):
    streamed, lane = recorded(tokenizer, [*ids("a🙂".encode()[:3]), END], "eos")
    assert lane.text == streamed[-1] == "a"


def test_bytes_that_are_no_characters_stay_visible(tokenizer):
    assert recorded(tokenizer, ids(b"a\x80b"))[1].text == "a\ufffdb"
    assert recorded(tokenizer, ids(b"a\xff"))[1].text == "a\ufffd"
    assert recorded(tokenizer, ids("a\ufffd".encode()))[1].text == "a\ufffd"


@pytest.mark.parametrize(
    ("prompt", "shown"), [("a\ud800b", r"character 2 \('\\ud800'\)"), ("\udcff", r"character 1 \('\\udcff'\)")]
)
@pytest.mark.parametrize("raw", [False, True])
def test_a_lone_surrogate_is_named(prompt, shown, raw):
    with pytest.raises(RequestError, match=shown + " is no whole character"):
        Request(prompt=prompt, raw=raw)
    with pytest.raises(RequestError, match=shown):
        Request.from_json(json.loads(json.dumps({"prompt": prompt, "raw": raw})))


@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_half_a_character_in_a_link_or_a_trace_is_refused(text):
    defaults = [None] * len(permalink.FIELDS)
    with pytest.raises(RequestError, match="is no whole character"):
        permalink.query([text, *defaults[1:]], defaults)
    head = Trace(text, "m", "", "", True, {}, {}, [Lane("ar")])
    escaped = json.dumps(head.to_dict())
    raw = head.to_json()
    for file in (escaped, escaped.encode(), raw, raw.encode("utf-8", "surrogatepass")):
        with pytest.raises(TraceError, match="holds no valid JSON"):
            Trace.from_json(file)
    whole = json.dumps({**head.to_dict(), "checkpoint": "\U0001f642"})  # in ASCII: a pair of escapes
    assert Trace.from_json(whole).checkpoint == "🙂"


def test_a_prompt_that_is_too_long_is_one_sentence_and_no_warning(tmp_path, capsys, caplog, recwarn):
    folder = write_templated(tmp_path / "m")
    write_tokenizer(folder, model_max_length=64)
    engine = load(str(folder), device="cpu", dtype="float32")
    with pytest.raises(RequestError, match="exceed the model's context of 2,048"):
        engine.encode(Request(prompt="x" * 5000))
    engine.encode(Request(prompt="x" * 500))
    engine.encode(Request(prompt="x" * 500, raw=True))
    assert capsys.readouterr() == ("", "")
    assert not caplog.records
    assert not recwarn.list


def test_a_tokenizer_file_that_cuts_and_pads_does_neither(tmp_path):
    folder = write_tokenizer(tmp_path)
    data = json.loads((folder / "tokenizer.json").read_text())
    data["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    data["padding"] = {
        "strategy": {"Fixed": 900},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer.json").write_text(json.dumps(data))
    assert len(Tokenizer(folder).encode("x" * 100, raw=True)) == 100
