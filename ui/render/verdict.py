"""What a run came to, in one sentence per lane: the same text as AR's or not, and for how many forwards and seconds."""

from __future__ import annotations

from nemodiff.trace.answers import fault
from nemodiff.trace.events import Lane, Trace, first_difference
from ui.render.charts.figure import LANES, lane_figures, plural

_WHOLE = ("eos", "stop", "length")


def verdict(trace: Trace) -> list[str]:
    """A sentence for each lane that is compared with AR's; where none can be, one for each lane. "Fewer" and "less" are
    of one token's share where the answers differ, since they may differ in length."""
    lanes = [lane for lane in trace.lanes if lane.events]
    ar = trace.lane("ar")
    others = [lane for lane in lanes if lane is not ar]
    if ar is None or not ar.tokens or not others:
        return [f"{LANES[lane.mode]}: {_wrong(trace, lane)}{lane_figures(lane)}." for lane in lanes]
    return [f"{LANES[lane.mode]}: {_wrong(trace, lane)}{_against(lane, ar)}." for lane in others]


def _against(lane: Lane, ar: Lane) -> str:
    if not lane.tokens:
        return "nothing was written"
    whole = lane.finish in _WHOLE and ar.finish in _WHOLE
    common = min(len(lane.tokens), len(ar.tokens))
    differs = first_difference(lane.tokens, ar.tokens)
    if differs is not None and not (whole or differs < common):
        differs = None  # one of them was ended before it could differ
    each = _gains(lane, ar)
    if differs is None:
        same = "AR's text" if whole else f"AR's text so far, {plural(common, 'token')}"
        return ", ".join([same, *each])
    a_token = [f"{' and '.join(each)} per token"] if each else []
    if differs == common:
        longer = "goes on after the end of AR's text" if len(lane.tokens) > common else "AR's text, but it ends earlier"
        return ", ".join([longer, *a_token])
    return ", ".join([f"not AR's text from token {differs} on", *a_token])


def _gains(lane: Lane, ar: Lane) -> list[str]:
    """2.8× fewer forwards, 2.1× less time: both of one token's share."""
    parts = []
    if lane.tpf and ar.tpf:
        parts.append(f"{_times(lane.tpf / ar.tpf, 'fewer', 'more', 'as many')} forwards")
    if lane.seconds and ar.seconds:
        ratio = (ar.seconds / len(ar.tokens)) / (lane.seconds / len(lane.tokens))
        parts.append(f"{_times(ratio, 'less', 'more', 'the same')} time")
    return parts


def _times(ratio: float, better: str, worse: str, same: str) -> str:
    if 0.995 <= ratio < 1.005:
        return same
    return f"{ratio:.2f}× {better}" if ratio > 1 else f"{1 / ratio:.2f}× {worse}"


def _wrong(trace: Trace, lane: Lane) -> str:
    """What is wrong with an answer stands first: it may be the fastest."""
    wrong = fault(trace, lane)
    return f"{wrong}; " if wrong else ""
