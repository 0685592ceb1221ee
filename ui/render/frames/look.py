"""Colours of the pictures, and how a token looks: the stage's, on paper."""

from __future__ import annotations

from dataclasses import dataclass

from ui.render.charts.figure import LANES as NAMES

PAPER, INK, SOFT, LINE, SHEET, GHOST = "#ffffff", "#191d23", "#5a636e", "#e1e5ea", "#f3f5f7", "#7b858f"
OK, NO, OWN = "#08795f", "#ab3d0c", "#1a66ab"
#: The accepted path of a tree, and its frame.
LIT = "#d8eae6"
#: A lane's name and colour.
LANES = {
    "ar": (NAMES["ar"], "#5c6570"),
    "diffusion": (NAMES["diffusion"], "#b45f06"),
    "self-speculation": (NAMES["self-speculation"], "#00735c"),
}
# Behind a token: committed in this forward, one or two forwards ago, up to five. The stage's accent on paper.
AGES = ("#f6b73c", "#fbdfa7", "#fdf1d8")


@dataclass(frozen=True, slots=True)
class Look:
    """A cell: the ink of its text, what lies behind it, the line under it."""

    ink: str
    fill: str | None = None
    line: str | None = None
    dotted: bool = False
    struck: bool = False


LEGEND = (
    ("new", "this forward", Look(INK, AGES[0])),
    ("guess", "still masked", Look(GHOST, None, GHOST, dotted=True)),
    ("kept", "accepted draft", Look(INK, None, OK)),
    ("own", "the verifier's", Look(OWN, None, OWN)),
)


def look_of(state: str, age: int | None) -> Look:
    """How a token of a state looks; age: its place in AGES, None for an older one."""
    fill = None if age is None else AGES[age]
    if state == "masked":
        return Look(GHOST, None, GHOST, dotted=True)
    if state == "drafted":
        return Look(GHOST, None, GHOST)
    if state == "discarded":
        return Look(GHOST, None, struck=True)
    if state == "accepted":
        return Look(INK, fill, OK if age is not None else None)
    if state in ("corrected", "bonus"):
        return Look(OWN, fill, OWN)
    return Look(INK, fill)
