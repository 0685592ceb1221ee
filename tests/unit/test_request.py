"""Every bad setting gets one sentence that names it."""

import json

import numpy as np
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
        ({"order": "rightmost"}, "Unknown order"),
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
        ({"prompt_ids": ("5", "6")}, "prompt_ids must hold whole numbers from 0 to 2147483647, not '5'"),
        ({"prompt_ids": "5,6"}, "prompt_ids must be a list of token ids, not '5,6'"),
        ({"prompt_ids": 5}, "prompt_ids must be a list of token ids, not 5"),
        ({"prompt_ids": {5: 6}}, "prompt_ids must be a list"),
        ({"prompt_ids": (5, 6.0)}, "prompt_ids must hold whole numbers.*not 6.0"),
        ({"prompt_ids": (5, True)}, "prompt_ids must hold whole numbers.*not True"),
        ({"prompt_ids": (5, None)}, "prompt_ids must hold whole numbers.*not None"),
        ({"prompt_ids": (5, -1)}, "prompt_ids must hold whole numbers.*not -1"),
        ({"prompt_ids": (2**31,)}, "prompt_ids must hold whole numbers.*not 2147483648"),
        ({"prompt_ids": ([5],)}, r"prompt_ids must hold whole numbers.*not \[5\]"),
        ({"answer_ids": ("5",)}, "answer_ids must hold whole numbers.*not '5'"),
        ({"answer_ids": None}, "answer_ids must be a list of token ids, not None"),
        ({"images": None}, "images must be a tuple or a list"),
        ({"images": ([8, 8],)}, "give the pictures themselves again"),
        ({"modes": "ar"}, "modes must be a tuple or a list, not 'ar'"),
        ({"modes": 5}, "modes must be a tuple or a list, not 5"),
        ({"modes": (["ar"],)}, r"Unknown mode \['ar'\]"),
        ({"sampler": ["confidence"]}, r"Unknown sampler \['confidence'\]"),
        ({"ignore_eos": "no"}, "Unknown ignore_eos 'no': choose True or False"),
        ({"raw": None}, "Unknown raw None"),
        ({"adapter": []}, r"Unknown adapter \[\]"),
        ({"seed": 10**5000}, "seed must be a whole number from 0 to 9223372036854775807, not"),
        ({"seed": 2**63}, "seed"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(settings, says):
    with pytest.raises(RequestError, match=says) as error:
        Request(**{"prompt": "hello"} | settings)
    assert "\n" not in str(error.value)


def test_token_ids_of_any_integers_become_plain_ones():
    request = Request(prompt_ids=np.array([5, 6]), answer_ids=[np.int64(7)])
    assert (request.prompt_ids, request.answer_ids) == ((5, 6), (7,))
    assert json.dumps(request.to_json())
    assert Request.from_json(request.to_json()) == request


def test_a_good_request_is_plain_json():
    data = Request(prompt="hello", block_length=8, threshold=0).to_json()
    assert data["modes"] == ["ar", "diffusion", "self-speculation"]
    assert data["prompt_ids"] is None
