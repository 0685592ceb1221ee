"""Every bad setting gets one sentence that names it."""

import pytest

from nemodiff.errors import RequestError
from nemodiff.request import Request


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": "  \n "}, "prompt is empty"),
        ({"prompt": None}, "prompt is empty"),
        ({"prompt": "x" * 100_001}, "shorten it"),
        ({"prompt_ids": ()}, "no token ids"),
        ({"modes": ()}, "at least one mode"),
        ({"modes": ("ar", "ar")}, "at least one mode"),
        ({"modes": ("beam",)}, "Unknown mode 'beam'"),
        ({"sampler": "magic"}, "Unknown sampler"),
        ({"draft": "cubic"}, "Unknown draft"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 10**9}, "max_new_tokens"),
        ({"max_new_tokens": 3.5}, "max_new_tokens"),
        ({"max_new_tokens": True}, "max_new_tokens"),
        ({"block_length": 1}, "block_length"),
        ({"block_length": 65}, "block_length"),
        ({"threshold": -0.1}, "threshold"),
        ({"threshold": 1.1}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"threshold": "0.9"}, "threshold"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"seed": -1}, "seed"),
        ({"steps": 0}, "steps"),
        ({"time_limit": -1}, "time_limit"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(settings, says):
    with pytest.raises(RequestError, match=says) as error:
        Request(**{"prompt": "hello"} | settings)
    assert "\n" not in str(error.value)


def test_a_good_request_is_plain_json():
    data = Request(prompt="hello", block_length=8, threshold=0).to_json()
    assert data["modes"] == ["ar", "diffusion", "self-speculation"]
    assert data["prompt_ids"] is None
