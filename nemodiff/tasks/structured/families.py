"""The structured tasks: every family by name, instances by seed, and which of them are held out."""

import zlib
from collections.abc import Callable

from nemodiff.tasks.structured import code, conversions, edits, far, fields, formats, letters, lists, snippets
from nemodiff.tasks.structured.draw import Draw

Family = Callable[[Draw], tuple[str, str]]

MODULES = (
    formats,
    code,
    lists,
    letters,
    edits,
    fields,
    snippets,
    far,
)
FAMILIES: dict[str, Family] = {
    name: function
    for module in MODULES
    for name, function in sorted(vars(module).items())
    if callable(function) and getattr(function, "__module__", "") == module.__name__ and not name.startswith("_")
} | conversions.CONVERSIONS

# Kept out of training whole. Each is a new combination of skills that other families train (an HTML table from JSON,
# but not from CSV), to measure whether skills carry over.
HELD_OUT_FAMILIES: tuple[str, ...] = ("html_table", "print_lines", "shopping_list", "key_values")
# Kept out of training whole, with formats that occur in no trained family.
HELD_OUT_FAR_FAMILIES: tuple[str, ...] = ("latex_table", "graph_edges")
TRAINED_FAMILIES: tuple[str, ...] = tuple(
    name for name in FAMILIES if name not in HELD_OUT_FAMILIES + HELD_OUT_FAR_FAMILIES
)
# How often training draws a family: conversions are many and share their skills, so each is drawn half as often.
WEIGHTS: tuple[float, ...] = tuple(0.5 if name in conversions.CONVERSIONS else 1.0 for name in TRAINED_FAMILIES)


def is_held_out(prompt: str) -> bool:
    """One prompt in twenty, by its checksum, is never trained on, whatever seed draws it."""
    return zlib.crc32(prompt.encode()) % 20 == 0


def instance(name: str, seed: int | str, *, held_out: bool = False, new_phrasing: bool = False) -> tuple[str, str]:
    """(prompt, exact answer) of the family `name`, drawn from `seed`.

    held_out: only prompts that training never shows. new_phrasing: the wording that training never shows for this
    family, see `Draw.phrase`. Raises ValueError where the family has no such instance.
    """
    rng = Draw(f"{name}/{seed}", new_phrasing=new_phrasing)
    for _ in range(10_000):
        prompt, answer = FAMILIES[name](rng)
        if is_held_out(prompt) == held_out:
            return prompt, answer
    raise ValueError(f"The family {name} has no {'held-out' if held_out else 'trained'} instance.")


def is_exact(answer: str, expected: str) -> bool:
    """True if `answer` equals the family's answer; only white space at the very end may differ."""
    return answer.rstrip() == expected.rstrip()
