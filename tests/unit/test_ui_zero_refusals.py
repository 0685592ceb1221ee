"""Sentences for what ZeroGPU refuses with. What the package itself says is in test_ui_zero.py."""

from __future__ import annotations

import pytest

from nemodiff.errors import RequestError
from nemodiff.request import Request
from ui.backends import zero
from ui.backends.zero_refusals import plain, sentence
from ui.wire import UNEXPECTED

gr = pytest.importorskip("gradio")
REQUEST = Request(prompt="x", modes=("ar", "diffusion"), max_new_tokens=200)


def told(title: str, message: str, request: Request = REQUEST) -> str:
    with pytest.raises(RequestError) as caught, zero.told(zero.less(request), zero.duration(request)):
        raise gr.Error(message, title=title)
    return str(caught.value)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ('Log <a style="a:b" href="https://x.y">in</a> &amp; wait', "Log in & wait"),
        ("[Join](https://x.y/z) now", "Join (x.y/z) now"),
        ("a < b and\n c", "a < b and c"),
    ],
)
def test_markup_is_taken_out(message: str, text: str) -> None:
    assert plain(message) == text


def test_a_refusal_that_is_not_known_is_named_once_and_has_no_markup() -> None:
    assert told("ZeroGPU new kind", "ZeroGPU sleeps, <b>sorry</b>.") == "ZeroGPU sleeps, sorry."
    assert told("Whatever", "It sleeps") == "ZeroGPU: It sleeps."


def test_a_run_that_is_too_long_says_what_to_lower() -> None:
    message = "The requested GPU duration (120s) is larger than the maximum allowedSubscribe to Hugging Face PRO"
    assert told("ZeroGPU illegal duration", message) == (
        "ZeroGPU lends no GPU for as long as the 120 s that this asks for: lower the new tokens or choose fewer modes."
    )
    alone = Request(prompt="x", modes=("ar",), max_new_tokens=4000)
    assert told("ZeroGPU illegal duration", message, alone).endswith("asks for: lower the new tokens.")


def test_what_is_left_of_a_quota_says_how_many_tokens_fit() -> None:
    """A GPU that counts one and a half seconds a second leaves fewer."""
    message = "You have exceeded your ZeroGPU quota (39s requested vs. 30s left). Try again in 1 day, 2:03:04. "
    assert zero.duration(REQUEST) == 39
    assert told("ZeroGPU quota exceeded", message) == (
        "This asks for 39 s of a GPU and your ZeroGPU quota has 30 s left: lower the new tokens to 125 or choose fewer "
        "modes, or try again in 26 h 3 min."
    )
    assert zero.duration(Request(prompt="x", modes=REQUEST.modes, max_new_tokens=125)) == 30
    dearer = message.replace("39s", "58s")
    assert "lower the new tokens to 43 or" in told("ZeroGPU quota exceeded", dearer)


def test_a_gpu_taken_back_and_an_error_on_it() -> None:
    assert told("ZeroGPU worker error", "GPU task aborted") == (
        "ZeroGPU took the GPU back before this had ended: lower the new tokens or choose fewer modes."
    )
    assert told("ZeroGPU worker error", "OutOfMemoryError") == UNEXPECTED


def test_where_nothing_can_be_lowered_another_way_is_named() -> None:
    message = "The requested GPU duration (120s) is larger than the maximum allowed"
    assert sentence("ZeroGPU illegal duration", message, lambda _: None, 120.0) == (
        "ZeroGPU lends no GPU for as long as the 120 s that this asks for: duplicate this Space on hardware of its own."
    )


def test_what_is_no_refusal_of_zerogpu_keeps_its_sentence_and_a_failure_its_secrets() -> None:
    with pytest.raises(RequestError, match="^mine$"), zero.told(zero.less(REQUEST), 1.0):
        raise RequestError("mine")
    with pytest.raises(RequestError) as caught, zero.told(zero.less(REQUEST), 1.0):
        raise RuntimeError("ZeroGPU API /schedule error: 500 at 10.0.0.1")
    assert str(caught.value) == zero.AWAY
