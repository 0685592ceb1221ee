"""What the page asks for when it branches: the run's own settings, read as a stranger's."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemodiff.errors import RequestError
from nemodiff.request import Request
from ui.live.branch import MAX_CHARACTERS, request_of

ASKED = Request(prompt="Count.", modes=("ar", "diffusion"), block_length=4, threshold=0.8, seed=3, time_limit=9.0)


def text(**changes) -> str:
    return json.dumps({"checkpoint": "tiny", "request": ASKED.to_json(), "answer_ids": [5, 7]} | changes)


def test_a_branch_keeps_the_settings_and_takes_the_servers_limit():
    branch = request_of(text(), "tiny", 60.0)
    assert branch.answer_ids == (5, 7) and branch.time_limit == 60.0
    assert branch.to_json() == ASKED.to_json() | {"answer_ids": [5, 7], "time_limit": 60.0}


def test_prompt_ids_and_unknown_fields():
    given = Request(prompt_ids=(1, 2)).to_json() | {"from a later version": 1}
    assert request_of(text(request=given), "tiny", 60.0).prompt_ids == (1, 2)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "[]",
        "null",
        "[" * 100_000,
        " " * (MAX_CHARACTERS + 1),
        text(answer_ids=["5"]),
        text(answer_ids=5),
        text(answer_ids=[True]),
        text(request=None),
        text(request=ASKED.to_json() | {"modes": ["ar", "magic"]}),
        text(request=ASKED.to_json() | {"modes": [["ar"]]}),
        text(request=ASKED.to_json() | {"prompt_ids": [1.5]}),
        text(request=ASKED.to_json() | {"max_new_tokens": 10**9}),
        text(request=ASKED.to_json() | {"sampler": {}}),
        text(checkpoint="another"),
    ],
)
def test_a_bad_branch_is_one_sentence(bad):
    with pytest.raises(RequestError) as caught:
        request_of(bad, "tiny", 60.0)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(name=st.sampled_from(sorted(ASKED.to_json())), value=JSON)
def test_any_value_in_any_field_is_taken_or_refused(name, value):
    try:
        branch = request_of(text(request=ASKED.to_json() | {name: value}), "tiny", 60.0)
    except RequestError:
        return
    assert isinstance(branch, Request) and branch.time_limit == 60.0
