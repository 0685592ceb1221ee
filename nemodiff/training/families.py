"""The structured tasks: every family by name, instances by seed, and which of them are held out."""

import random
import zlib
from collections.abc import Callable

from nemodiff.training import families_code, families_formats, families_letters, families_lists

Family = Callable[[random.Random], tuple[str, str]]

_MODULES = (families_formats, families_code, families_lists, families_letters)
FAMILIES: dict[str, Family] = {
    name: function
    for module in _MODULES
    for name, function in sorted(vars(module).items())
    if callable(function) and getattr(function, "__module__", "") == module.__name__ and not name.startswith("_")
}

# Kept out of training whole, to measure whether skills carry over.
HELD_OUT_FAMILIES: tuple[str, ...] = ("html_table", "print_lines", "shopping_list", "key_values")
TRAINED_FAMILIES: tuple[str, ...] = tuple(name for name in FAMILIES if name not in HELD_OUT_FAMILIES)


def is_held_out(prompt: str) -> bool:
    """One prompt in twenty, by its checksum, is never trained on, whatever seed draws it."""
    return zlib.crc32(prompt.encode()) % 20 == 0


def instance(name: str, seed: int | str, *, held_out: bool = False) -> tuple[str, str]:
    """(prompt, exact answer) of the family `name`, drawn from `seed`; held-out and trained instances never share a
    prompt."""
    rng = random.Random(f"{name}/{seed}")
    for _ in range(10_000):
        prompt, answer = FAMILIES[name](rng)
        if is_held_out(prompt) == held_out:
            return prompt, answer
    raise ValueError(f"The family {name} has no {'held-out' if held_out else 'trained'} instance.")
