"""A link restores what it was made of, and takes nothing that is off."""

import json
from urllib.parse import parse_qsl

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemodiff.conversation import ROLES
from nemodiff.errors import RequestError
from nemodiff.request import ACCEPTANCES, DRAFTS, ORDERS, SAMPLERS
from nemodiff.trace.events import MODES
from ui.page import permalink
from ui.page.permalink import FIELDS, PICTURE, query, read

DEFAULTS = ["Hi", list(MODES), "", "", 8, "confidence", 0.95, 0.3, 4, 0, 0, 128, False, False, "linear", "match", 1]
DEFAULTS += ["best", None, "", True]
#: A conversation as its field holds it, of up to two turns.
TURNS = st.tuples(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(str.strip), st.text(max_size=9))
TALK = st.lists(TURNS, max_size=2).map(
    lambda turns: json.dumps(
        [{"role": role, "content": one} for turn in turns for role, one in zip(ROLES, turn, strict=True)]
    )
)

VALUES = st.tuples(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=80).filter(str.strip),
    st.lists(st.sampled_from(MODES), min_size=1, unique=True).map(lambda m: [mode for mode in MODES if mode in m]),
    st.sampled_from(["", "Be brief.\n– é"]),
    TALK.map(lambda text: "" if text == "[]" else text),
    st.integers(2, 64),
    st.sampled_from(SAMPLERS),
    st.integers(0, 100).map(lambda n: n / 100),
    st.integers(0, 100).map(lambda n: n / 100),
    st.integers(1, 64),
    st.integers(0, 100).map(lambda n: n / 10),
    st.integers(0, 2**53 - 1),
    st.integers(1, 512),
    st.booleans(),
    st.booleans(),
    st.sampled_from(DRAFTS),
    st.sampled_from(ACCEPTANCES),
    st.integers(0, 100).map(lambda n: n / 100),
    st.sampled_from(ORDERS),
    st.integers(2, 64),
    st.sampled_from(["", "\\n", "a, b\n\\\\&=é"]),
    st.booleans(),
).map(list)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values=VALUES)
def test_round_trip(values):
    restored, wrong = read(dict(parse_qsl(query(values, DEFAULTS), keep_blank_values=True)))
    assert not wrong
    assert [restored.get(name, default) for name, default in zip(FIELDS, DEFAULTS, strict=True)] == values


def test_what_is_as_by_default_is_left_out():
    assert query(DEFAULTS, DEFAULTS) == "prompt=Hi"
    changed = [*DEFAULTS[:4], 16, *DEFAULTS[5:9], 0.7, *DEFAULTS[10:13], True, *DEFAULTS[14:]]
    assert query(changed, DEFAULTS) == "prompt=Hi&block=16&temperature=0.7&raw=1"
    assert query([*DEFAULTS[:4], None, *DEFAULTS[5:]], DEFAULTS) == "prompt=Hi"
    # what a field without a value holds once it shows
    assert query([*DEFAULTS[:-3], 0, *DEFAULTS[-2:]], DEFAULTS) == "prompt=Hi"
    assert query([*DEFAULTS[:7], 0, *DEFAULTS[8:]], DEFAULTS) == "prompt=Hi&entropy=0"


def test_an_example_picture_stands_beside_the_fields():
    assert query(DEFAULTS, DEFAULTS, "shapes") == "prompt=Hi&picture=shapes"
    assert PICTURE not in FIELDS and read({PICTURE: "shapes"}) == ({}, [])


def test_a_link_carries_no_picture_of_a_conversation():
    turn = [{"role": "user", "content": "What is it?", "images": 1}, {"role": "assistant", "content": "A cat."}]
    for kept in (json.dumps(turn), json.dumps({"run": "abc", "messages": turn})):
        with pytest.raises(RequestError, match="A link carries no picture of a conversation: let it go"):
            query([*DEFAULTS[:3], kept, *DEFAULTS[4:]], DEFAULTS)
        assert read({"history": kept}) == ({}, ["history"])


def test_a_prompt_too_long_for_a_link():
    with pytest.raises(RequestError, match="too long for a link"):
        query(["ü" * 2000, *DEFAULTS[1:]], DEFAULTS)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(parameters=st.dictionaries(st.sampled_from([*FIELDS, "other"]), st.text(max_size=12)))
def test_any_url_is_read_or_left_out(parameters):
    values, wrong = read(parameters)
    assert set(values) | set(wrong) == set(parameters) & set(FIELDS) and not set(values) & set(wrong)


def test_values_that_are_off():
    bad = {
        "block": "1",
        "threshold": "nan",
        "sampler": "magic",
        "modes": "ar,x",
        "raw": "yes",
        "prompt": " ",
        "draft": "x",
        "order": "rightmost",
        "stop": "x" * 101,
        "system": "x" * 100_001,
        "history": '[{"role": "assistant", "content": "a"}]',
    }
    assert read(bad | {"seed": "5"}) == (
        {"seed": 5},
        ["prompt", "modes", "system", "history", "block", "sampler", "threshold", "raw", "draft", "order", "stop"],
    )


def test_what_a_browser_kept_of_the_fields_is_checked_one_by_one() -> None:
    kept = {"prompt": "a\nb", "modes": ["ar"], "block": None, "threshold": 0.5, "sampler": "fixed", "raw": True}
    assert permalink.restored(json.dumps(kept)) == kept
    wrong = {"prompt": 5, "modes": "ar", "block": "8", "threshold": [1], "sampler": ["fixed"], "raw": 1, "seed": True}
    assert permalink.restored(json.dumps(wrong | {"unknown": 1, "tokens": 7})) == {"tokens": 7}
    assert permalink.restored('{"seed": 1e999, "tokens": NaN, "block": 1' + "0" * 400 + "}") == {}
    assert permalink.restored(json.dumps({"prompt": "x" * 200_000})) == {}
    for text in ("", "{", "[1]", "null", "[" * 5000, None, 7):
        assert permalink.restored(text) == {}
