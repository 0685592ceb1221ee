"""What a sweep's figures advise: the fastest setting whose answers can be had without a loss, or that there is none."""

from __future__ import annotations

from collections.abc import Sequence

from nemodiff.evaluate.sweep import Point

_NAMES = {"ar": "AR", "diffusion": "block diffusion", "self-speculation": "self-speculation"}


def advice(points: Sequence[Point], same_text: bool = True) -> str:
    """A sentence from measured points; "" where there is nothing to choose from.

    An answer is wrong that is not the expected one, or shows a fault such as JSON that does not parse.

    same_text: AR's text is asked for, else the expected answers are enough, where every prompt has one. A setting whose
    answers are wrong is never advised, nor one whose text differs where AR's was asked for. Where runs were repeated,
    the slowest repeat has to be faster than AR.
    """
    ar = [point for point in points if point.mode == "ar"]
    others = [point for point in points if point.mode != "ar"]
    if not ar or not others:
        return ""
    prompts = max(point.prompts for point in points)
    of = "1 prompt" if prompts == 1 else f"{prompts} prompts"
    fit = [point for point in others if _fits(point, same_text)]
    if not fit:
        return f"{_nothing(points, others, same_text, of)} Nothing is advised."
    best = max(fit, key=lambda point: point.speed_up)
    if best.ar_seconds <= (best.slowest or best.seconds) or best.speed_up < 1.005:
        return f"For answers like these: AR. Of what gives {_text(best)} nothing was faster than it, over {of}."
    figures = [f"{best.speed_up:.2f}× AR"]
    if best.repeats > 1 and best.slowest and best.fastest:
        figures.append(f"{best.ar_seconds / best.slowest:.2f} to {best.ar_seconds / best.fastest:.2f} over its repeats")
    setting = ", ".join(filter(None, (_NAMES[best.mode], best.variant.words)))
    return f"For answers like these: {setting}: {', '.join(figures)}, {_text(best)}, over {of}."


def _fits(point: Point, same_text: bool) -> bool:
    if any(share is not None and share < 1 for share in (point.right, point.holds)):
        return False
    return point.identical == 1 or (not same_text and point.right is not None)


def _text(point: Point) -> str:
    parts = ["the same text"] if point.identical == 1 else []
    return " and ".join(parts + (["the expected answers"] if point.right == 1 else []))


def _nothing(points: Sequence[Point], others: Sequence[Point], same_text: bool, of: str) -> str:
    """Why no setting can be advised."""
    right = [point.right for point in points if point.mode == "ar" and point.right is not None]
    if right and max(point.right or 0 for point in points) < 1:
        return f"No setting, AR included ({max(right):.0%}), gave all expected answers over {of}."
    broken = [point.holds for point in points if point.mode == "ar" and point.holds is not None]
    if broken and max(point.holds or 0 for point in points) < 1:
        return f"No setting, AR included ({max(broken):.0%}), gave answers that all hold over {of}."
    if any(point.identical == 1 for point in others):
        return f"What wrote AR's text over {of} did not give answers that all hold and are the expected ones."
    nearest = max(point.identical for point in others)
    wanted = "AR's text" if same_text or not right else "AR's text or all expected answers"
    return f"No other setting gave {wanted} over {of}; the nearest wrote AR's text for {nearest:.0%} of them."
