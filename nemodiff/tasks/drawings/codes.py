"""What the cells of a drawing hold, as attributes with names: the labels that a tower learns.

A cell may hold two things, since letters and bars can be narrower than it: those of the second one, from the left, are
attributes of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nemodiff.tasks.drawings.questions import NUMBERS
from nemodiff.tasks.drawings.scenes import CELL, COLOURS, CROWDS, FOREIGN, KINDS, SHAPES, SIZES, Scene

_PLACES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
#: Of a thing: attribute → the words of its embedding.
_OF_A_THING: dict[str, str] = (
    {f"colour {colour}": f" {colour}" for colour in COLOURS}
    | {f"shape {shape}": f" {shape}" for shape in SHAPES}
    | {f"size {size}": f" {size}" for size in SIZES}
    | {f"order {place}": f" {word}" for place, word in enumerate(_PLACES)}
    | {f"value {value}": f"{value}" for value in range(1, 10)}
    | {f"letter {letter}": f"{letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
    | {"left": " left", "right": " right", "top": " top", "tallest": " tallest", "shortest": " shortest"}
)
#: Attribute → the words whose mean embedding its own begins as. The first ones are those of a whole picture.
ATTRIBUTES: dict[str, str] = (
    {f"kind {kind}": f" {kind}" for kind in (*KINDS, FOREIGN)}
    | {f"count {number}": f" {number}" for number in NUMBERS[1:]}
    | {f"digit {digit}": f"{digit}" for digit in range(10)}
    | {f"ink {colour}": f" {colour}" for colour in COLOURS}
    | {f"has {shape}": f" {shape}" for shape in SHAPES}
    | _OF_A_THING
    | {f"then {name}": words for name, words in _OF_A_THING.items()}
)
_LOCAL = ("colour ", "shape ", "size ", "letter ")
_PARTS = ("colour", "shape", "size", "order", "value", "letter")
_INDEX = {name: i for i, name in enumerate(ATTRIBUTES)}
#: Of each of these a cell has one or none: (first index, index after the last).
GROUPS: tuple[tuple[int, int], ...] = tuple(
    (min(places), max(places) + 1)
    for places in (
        [i for name, i in _INDEX.items() if name.startswith(f"{group} ")]
        for group in (
            *("kind", "count", "digit", "ink"),
            *(f"{then}{part}" for then in ("", "then ") for part in _PARTS),
        )
    )
)
#: Attribute of a cell's first thing → that of its second.
_THEN = {_INDEX[name]: _INDEX[f"then {name}"] for name in _OF_A_THING}
#: Attributes that are known in a picture of CROWDS, whose things have neither an order nor a number.
KNOWN_OF_CROWDS = torch.tensor([name.removeprefix("then ").startswith(_LOCAL) for name in ATTRIBUTES])


def attributes(one: Scene) -> Tensor:
    """Which attributes every cell of a scene has, bool [rows * columns, attributes]: those of the picture, and of the
    thing whose middle lies in the cell."""
    width, height = one.image.size
    rows, columns = height // CELL, width // CELL
    cells, held = _all_over(one, rows * columns), set()
    for thing, names in zip(one.things, _of_things(one), strict=True):
        row, column = (max(0, min(int(at // CELL), most - 1)) for at, most in ((thing.y, rows), (thing.x, columns)))
        place = row * columns + column
        cells[place, [_THEN[name] for name in names] if place in held else names] = True
        held.add(place)
    return cells


def covered(one: Scene, patch: int) -> Tensor:
    """Which attributes every patch of a scene has, bool [rows * columns, attributes]: those of the picture, and of the
    thing whose box holds the patch's middle. Many more labels than `attributes` has, to learn from early."""
    width, height = one.image.size
    y, x = torch.meshgrid(
        *(torch.arange(patch / 2, side, patch) for side in (height, width)),
        indexing="ij",
    )
    patches = _all_over(one, x.numel())
    for thing, names in zip(one.things, _of_things(one), strict=True):
        left, top, right, bottom = thing.box
        held = ((x >= left) & (x <= right) & (y >= top) & (y <= bottom)).flatten().nonzero()
        patches[held, torch.tensor(names, dtype=torch.long)] = True
    return patches


def _all_over(one: Scene, count: int) -> Tensor:
    cells = torch.zeros(count, len(ATTRIBUTES), dtype=torch.bool)
    if one.kind in CROWDS:
        return cells
    things, names = one.things, [f"kind {one.kind}"]
    if one.kind == "digit":
        names.append(f"digit {things[0].name}")
    elif one.kind != FOREIGN:
        names.append(f"count {NUMBERS[len(things)]}")
    if one.kind in ("digit", "word"):
        names.append(f"ink {things[0].colour}")
    if one.kind == "shapes":
        names += [f"has {thing.name}" for thing in things]
    cells[:, [_INDEX[name] for name in names]] = True
    return cells


def _of_things(one: Scene) -> list[list[int]]:
    """The attributes of every thing itself, as indices."""
    things, values, found = one.things, [thing.value for thing in one.things], []
    for place, thing in enumerate(things):
        own = [] if one.kind in CROWDS else [f"order {place}"]
        if one.kind in ("word", "letters"):
            own.append(f"letter {thing.name}")
        if one.kind in ("shapes", "crowd"):
            own += [f"colour {thing.colour}", f"shape {thing.name}", f"size {thing.size}"]
        if one.kind == "shapes" and len(things) > 1:
            own += ["left"] * (place == 0) + ["right"] * (place == len(things) - 1)
            own += ["top"] * (thing.y == min(other.y for other in things))
        if one.kind == "bars":
            own += [f"colour {thing.colour}", f"value {thing.value}"]
            own += ["tallest"] * (thing.value == max(values)) + ["shortest"] * (thing.value == min(values))
        found.append([] if one.kind == "digit" else [_INDEX[name] for name in own])
    return found
