"""Agreement and sweeps."""

import pytest

from nemodiff.errors import RequestError
from nemodiff.evaluate.agreement import agreement, speed_up
from nemodiff.evaluate.sweep import sweep
from nemodiff.trace.events import Event, Lane
from tests.helpers.engines import WithText


def lane(tokens, ms):
    return Lane("ar", [Event("ar", len(tokens), "decode", ms, 0, 1)], list(tokens))


def test_agreement_ends_at_the_first_other_token():
    assert agreement(lane([1, 2, 3, 4], 1), lane([1, 2, 9, 4], 1)) == 0.5
    assert agreement(lane([1, 2], 1), lane([1, 2], 1)) == 1.0
    assert agreement(lane([1, 2], 1), lane([1, 2, 3, 4], 1)) == 0.5
    assert agreement(lane([], 1), lane([], 1)) == 1.0


def test_speed_up_is_a_ratio_of_seconds_a_token():
    assert speed_up(lane([1] * 10, 50), lane([1] * 5, 100)) == pytest.approx(4.0)
    assert speed_up(lane([], 50), lane([1], 100)) is None


def test_a_sweep_runs_every_setting_and_reports_each_once(llama_engine):
    steps = list(sweep(WithText(llama_engine), ["one", "two"], [2, 4], [0.0, 1.0], max_new_tokens=12))
    assert [step.done for step in steps] == list(range(1, 2 * (4 + 2 + 1) + 1))
    points = [step.point for step in steps if step.point]
    assert [(p.mode, p.block_length, p.threshold) for p in points] == [
        ("ar", None, None),
        ("diffusion", 2, 0.0),
        ("diffusion", 2, 1.0),
        ("diffusion", 4, 0.0),
        ("diffusion", 4, 1.0),
        ("self-speculation", 2, None),
        ("self-speculation", 4, None),
    ]
    for point in (points[0], *points[-2:]):
        assert (point.agreement, point.identical, point.prompts) == (1.0, 1.0, 2)
    assert all(0 <= point.agreement <= 1 and point.seconds > 0 for point in points)


def test_a_sweep_ends_in_the_forward_in_which_it_is_told_to(llama_engine):
    class Enough(Exception):
        pass

    forwards = []

    def count(event):
        forwards.append(event.forward)
        if len(forwards) == 3:
            raise Enough

    with pytest.raises(Enough):
        list(sweep(WithText(llama_engine), ["one"], [4], [0.9], max_new_tokens=12, on_event=count))
    assert forwards == [0, 1, 2]
    # The engine is free again: another run neither waits nor fails.
    assert len(list(sweep(WithText(llama_engine), ["one"], [4], [0.9], max_new_tokens=2))) == 3


def test_a_sweep_refuses_bad_settings_at_once(llama_engine):
    with pytest.raises(RequestError, match="threshold"):
        sweep(llama_engine, ["one"], [4], [2.0])
