"""Advice from measured figures never names a setting whose text is wrong, or differs where AR's was asked for."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from nemodiff.evaluate.advice import advice
from nemodiff.evaluate.sweep import Point

AR = Point("ar", None, None, 3, 100, 99, 100, 0.04, 0.04, 1.0, 1.0)
TREE = replace(AR, mode="self-speculation", draft="tree", rows=24, seconds=0.0129)
DIFFUSION = replace(AR, mode="diffusion", block_length=8, threshold=0.9, seconds=0.008, identical=1 / 3, agreement=0.5)


def test_the_fastest_that_writes_the_same_text_is_advised() -> None:
    slower = replace(TREE, draft="linear", rows=None, block_length=8, seconds=0.02)
    assert advice([AR, slower, DIFFUSION, TREE]) == (
        "For answers like these: self-speculation, tree, 24 rows: 3.10× AR, the same text, over 3 prompts."
    )


def test_where_the_expected_answers_are_enough_another_text_may_be_advised_but_no_wrong_one() -> None:
    points = [replace(one, right=1.0) for one in (AR, TREE, DIFFUSION)]
    assert "self-speculation, tree" in advice(points)
    said = advice(points, same_text=False)
    assert said.startswith("For answers like these: block diffusion, block 8, threshold 0.9: 5.00× AR, the expected")
    points[2] = replace(points[2], right=0.9)
    assert "self-speculation, tree" in advice(points, same_text=False)
    assert "the same text and the expected answers" in advice(points, same_text=False)
    assert "self-speculation, tree" in advice([AR, TREE, DIFFUSION], same_text=False)  # nothing was expected


def test_nothing_is_advised_where_nothing_fits_and_the_reason_is_said() -> None:
    assert advice([AR, DIFFUSION]) == (
        "No other setting gave AR's text over 3 prompts; the nearest wrote AR's text for 33% of them. "
        "Nothing is advised."
    )
    wrong = [replace(one, right=2 / 3) for one in (AR, TREE)]
    assert advice(wrong) == (
        "No setting, AR included (67%), gave all expected answers over 3 prompts. Nothing is advised."
    )
    assert advice([replace(AR, right=0.5), replace(DIFFUSION, right=1.0), replace(TREE, right=0.5)]) == (
        "What wrote AR's text over 3 prompts did not give answers that all hold and are the expected ones. "
        "Nothing is advised."
    )
    broken = [replace(one, holds=0.5) for one in (AR, TREE)]
    assert advice(broken) == (
        "No setting, AR included (50%), gave answers that all hold over 3 prompts. Nothing is advised."
    )
    assert advice([AR, replace(DIFFUSION, holds=0.5, right=1.0)], same_text=False).endswith("Nothing is advised.")
    assert advice([AR]) == advice([TREE]) == advice([]) == ""


def test_what_is_no_faster_at_its_slowest_is_not_advised() -> None:
    said = "For answers like these: AR. Of what gives the same text nothing was faster than it, over 3 prompts."
    assert advice([AR, replace(TREE, seconds=0.05)]) == said
    assert advice([AR, replace(TREE, repeats=3, fastest=0.01, slowest=0.041)]) == said
    assert "1.33 to 4.00 over its repeats" in advice([AR, replace(TREE, repeats=3, fastest=0.01, slowest=0.03)])


shares = st.sampled_from([0.0, 0.5, 1.0])
made = {"draft": st.sampled_from(["linear", "quadratic", "tree"]), "seconds": st.floats(0.001, 0.1)}
made |= {"identical": shares, "right": st.none() | shares, "holds": st.none() | shares}


@given(st.lists(st.fixed_dictionaries(made), max_size=5, unique_by=lambda one: one["draft"]), st.booleans())
def test_whatever_was_measured_no_wrong_text_is_advised(measured: list[dict], same_text: bool) -> None:
    points = [replace(TREE, **one) for one in measured]
    said = advice([AR, *points], same_text)
    for point in points:
        wrong = any(share is not None and share < 1 for share in (point.right, point.holds))
        differs = point.identical < 1 and (same_text or point.right is None)
        if wrong or differs:
            assert f"self-speculation, {point.variant.words}:" not in said
