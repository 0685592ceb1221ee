"""Stop strings: in every mode an answer ends with the token that completes the first of them, its text before it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemodiff.decode.stops import StopFinder, Stops
from nemodiff.errors import RequestError
from nemodiff.request import Request
from nemodiff.trace.events import Lane, Trace
from tests.helpers.checkpoints import open_engine, write_syllables
from tests.helpers.reference import prompt_ids

#: Ways to decode: a mode and, where it drafts, how.
WAYS = [
    ("ar", {}),
    ("diffusion", {"threshold": 0.3}),
    ("diffusion", {"sampler": "fixed", "steps": 2, "order": "leftmost"}),
    ("self-speculation", {}),
    ("self-speculation", {"draft": "quadratic"}),
    ("self-speculation", {"draft": "tree", "rows": 12}),
]
#: Short texts over the letters of the tokens: most of them occur.
STRINGS = st.lists(st.text("abcé ", min_size=1, max_size=4), min_size=1, max_size=3, unique=True)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return open_engine(write_syllables(tmp_path_factory.mktemp("checkpoints") / "tiny-syllables"))


def lane_of(engine, mode: str, **asked) -> Lane:
    return engine.generate(Request(modes=(mode,), max_new_tokens=24, ignore_eos=True, **asked)).lanes[0]


def cut(engine, whole: Lane, strings: tuple[str, ...]) -> tuple[list[int], str, str]:
    """Tokens, text and finish of an answer, by looking at the text of ever more tokens."""
    for count in range(1, len(whole.tokens) + 1):
        text = engine.tokenizer.decode(whole.tokens[:count])
        if places := [text.index(string) for string in strings if string in text]:
            return whole.tokens[:count], text[: min(places)], "stop"
    return whole.tokens, whole.text, "length"


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), way=st.sampled_from(WAYS), block=st.integers(2, 9), strings=STRINGS.map(tuple))
def test_every_mode_cuts_its_own_answer_at_the_first_occurrence(engine, seed, way, block, strings):
    mode, more = way
    asked = {"prompt_ids": prompt_ids(seed, 9), "block_length": block} | more
    if "steps" in asked:
        asked["steps"] = min(asked["steps"], block - 1)
    whole = lane_of(engine, mode, **asked)
    lane = lane_of(engine, mode, stop=strings, **asked)
    assert (lane.tokens, lane.text, lane.finish) == cut(engine, whole, strings)
    assert (lane.stop is None) == (lane.finish != "stop")
    assert lane.forwards <= whole.forwards


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    draft=st.sampled_from(["linear", "quadratic", "tree"]),
    block=st.integers(2, 9),
    temperature=st.sampled_from([0, 0.8]),
    strings=STRINGS.map(tuple),
)
def test_the_stopped_text_of_self_speculation_is_ars(engine, seed, draft, block, temperature, strings):
    request = Request(
        prompt_ids=prompt_ids(seed, 9), modes=("ar", "self-speculation"), block_length=block, draft=draft,
        temperature=temperature, seed=seed, stop=strings, max_new_tokens=24, ignore_eos=True,
    )  # fmt: skip
    ar, fast = engine.generate(request).lanes
    assert (fast.tokens, fast.text, fast.finish, fast.stop) == (ar.tokens, ar.text, ar.finish, ar.stop)


#: Of each way: a stop string, then tokens and text as the model writes them with it.
AR = (" ac", [107, 156, 156, 156, 156, 192], "cbbcbab bab bab bab")
EXPECTED = [
    AR,
    ("aab", [107, 105, 189], "cbbccbb"),
    (" aac", [107, 197, 189, 189, 45], "cbbcacca abcb abcb"),
    *(AR,) * 3,
]


@pytest.mark.parametrize(("way", "expected"), zip(WAYS, EXPECTED, strict=True))
def test_exact_tokens_where_a_string_spans_tokens_and_ends_inside_of_one_and_of_a_block(engine, way, expected):
    mode, more = way
    string, tokens, text = expected
    lane = lane_of(engine, mode, prompt_ids=(5, 17, 42), block_length=8, stop=string, **more)
    assert (lane.tokens, lane.text, lane.finish) == (tokens, text, "stop")
    last = lane.events[-1]
    assert all(one.state == "discarded" for one in last.positions if one.index >= len(tokens))
    assert mode == "ar" or more.get("draft") == "tree" or last.start + last.length > len(tokens)
    assert lane.stop.place == len(tokens) - 2 and lane.stop.end < len(engine.tokenizer.decode(tokens[-1:]))


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(
        st.sampled_from([b"", b"a", b"ab", b"ba", b"\xc3", b"\xa9", b"a\xc3", b"\xa9b", "éé".encode()]), max_size=12
    ),
    before=st.sampled_from([b"", b"ab", "aé".encode()]),
    strings=st.lists(st.text("abé", min_size=1, max_size=3), min_size=1, max_size=3),
    again=st.lists(st.integers(0, 11), max_size=4),
)
def test_the_finder_agrees_with_a_search_in_the_whole_text(pieces, before, strings, again):
    finder = StopFinder(Stops(tuple(strings), lambda token: pieces[token], before))
    sought = [string.encode() for string in strings]
    for index in range(len(pieces)):
        for earlier in again:  # a block is walked anew
            for place in range(earlier, index):
                finder.find(place, place)
        stop = finder.find(index, index)
        text, length = before + b"".join(pieces[: index + 1]), len(before + b"".join(pieces[:index]))
        ends = [
            (start, len(string), string.decode())
            for string in sought
            for start in range(len(text))
            if text[start:].startswith(string) and start + len(string) > length
        ]
        if not ends:
            assert stop is None
            continue
        start, size, string = min(ends)
        assert stop.string == string
        if start < len(before):
            assert (stop.place, stop.characters) == (0, 0)
        elif _valid(text[len(before) : start + size]):
            assert _shown(pieces, stop.place, stop.characters) == text[len(before) : start].decode()
            assert _shown(pieces, index, stop.end) == text[len(before) : start + size].decode()
        return


def _valid(text: bytes) -> bool:
    return text.decode(errors="ignore").encode() == text


def _shown(pieces: list[bytes], place: int, characters: int) -> str:
    """The text of what comes before a stop, as the player makes it: a character stands where it is complete."""
    before = b"".join(pieces[:place]).decode(errors="ignore")
    upto = b"".join(pieces[: place + 1]).decode(errors="ignore")
    return upto[: len(before) + characters]


def test_a_branch_ends_at_a_string_that_its_given_tokens_began(engine):
    asked = {"prompt_ids": (5, 17, 42), "modes": ("ar",), "max_new_tokens": 12, "ignore_eos": True}
    whole = engine.generate(Request(**asked)).lanes[0]
    given, first = whole.tokens[:8], engine.tokenizer.decode([whole.tokens[8]])
    string = engine.tokenizer.decode(given)[-3:] + first[0]
    assert string not in engine.tokenizer.decode(given)
    lane = engine.generate(Request(**asked, answer_ids=given, stop=string)).lanes[0]
    assert (lane.tokens, lane.text, lane.finish) == (whole.tokens[8:9], "", "stop")
    assert (lane.stop.place, lane.stop.characters, lane.stop.end) == (0, 0, 1)


def test_a_trace_carries_where_it_stopped(engine):
    lane_asked = {"prompt_ids": (5, 17, 42), "max_new_tokens": 24, "ignore_eos": True, "stop": ["b", "\n"]}
    trace = engine.generate(Request(**lane_asked))
    again = Trace.from_json(trace.to_json())
    assert again.to_dict() == json.loads(trace.to_json()) and again.request["stop"] == ["b", "\n"]
    assert {lane.finish for lane in again.lanes} == {"stop"} and again["ar"].stop == trace["ar"].stop
    assert "b" not in again["ar"].text


def test_text_so_far_never_takes_anything_back(engine):
    request = Request(prompt_ids=(5, 17, 42), modes=("ar",), max_new_tokens=24, ignore_eos=True, stop="bca")
    recorder, seen = engine.recorder(request), [""]
    for event in engine.stream(request):
        recorder.add(event)
        seen.append(recorder.text("ar"))
    last = recorder.finish("time").lanes[0].text
    assert all(after.startswith(before) for before, after in zip(seen, [*seen[1:], last], strict=True))


def test_what_cannot_be_a_stop_string_is_said(llama_engine):
    for stop, says in [
        ([""], "stop takes texts of 1 to 100 characters; one has 0."),
        (["x" * 101], "stop takes texts of 1 to 100 characters; one has 101."),
        (["x"] * 9, "stop takes up to 8 texts, not 9: leave some out."),
        (5, "stop must be a list of texts, not 5."),
        ([5], "stop must be a list of texts"),
        (["\ud800"], "stop holds half a character"),
    ]:
        with pytest.raises(RequestError, match=f"^{says}"):
            Request(prompt="x", stop=stop)
    with pytest.raises(RequestError, match="no tokenizer, so its answers are no text: leave the stop strings out"):
        llama_engine.encode(Request(prompt_ids=(5,), stop="x"))
