"""The drawings that the small vision checkpoint learns from, and the codes that a tower writes of them."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor

from nemodiff.tasks.drawings.codes import ATTRIBUTES, attributes
from nemodiff.tasks.drawings.free_scenes import free_scene
from nemodiff.tasks.drawings.scenes import CANVASES, CROWDS, FOREIGN, KINDS, Scene, scene

_DRAWN = (*KINDS, FOREIGN, *CROWDS)
#: How often each of _DRAWN is drawn: letters most, the tower to see and the model to put in order.
_TOWER_SHARES, _MODEL_SHARES = (5, 3, 5, 2, 2, 5, 2), (3, 2, 9, 2, 1, 0, 0)
#: Which share of drawings is placed freely; the others, with things near the middles of cells, are where it begins.
_FREE = 0.7
#: Batches of drawings to which codes are fitted, and how often they must have an attribute for it.
_FITTED, _HELD = 60, 1.0


def drawn(step: str, count: int, seed: int, *, free: float = _FREE) -> list[Scene]:
    """The scenes of a step ("part/number"), all of one size, a share `free` of them placed freely."""
    rng = random.Random(f"{seed}/{step}")
    canvas = rng.choices(CANVASES, (3, 1, 1))[0]
    kinds = rng.choices(_DRAWN, _TOWER_SHARES if step.startswith("seeing/") else _MODEL_SHARES, k=count)
    makers = [free_scene if kind not in KINDS or rng.random() < free else scene for kind in kinds]
    return [
        make(kind, f"{seed}/{step}/{i}", canvas=canvas)
        for i, (make, kind) in enumerate(zip(makers, kinds, strict=True))
    ]


@torch.no_grad()
def fit_codes(codes: Tensor, write: Callable[[list[Scene]], Tensor], seed: int) -> None:
    """Set codes [attributes, hidden] to what a tower writes (`write`: scenes → [scenes, cells, hidden]) where it reads
    best: of drawings near the middles of cells, and of those placed freely what only they have, as a sixth thing or
    the second letter of a cell."""
    both, written = _written(write, seed, free=0.0)
    seen = both.diagonal() > _HELD
    codes[seen] = torch.linalg.solve(both[seen][:, seen], written[seen])
    both, written = _written(write, seed, free=1.0)
    rest = (both.diagonal() > _HELD) & ~seen
    left = written[rest] - both[rest][:, seen] @ codes[seen]
    codes[rest] = torch.linalg.solve(both[rest][:, rest], left)


def _written(write: Callable[[list[Scene]], Tensor], seed: int, free: float) -> tuple[Tensor, Tensor]:
    """How often two attributes meet in a cell [attributes, attributes], and the sum of what the tower writes where an
    attribute is [attributes, hidden]."""
    both, written = 0.1 * torch.eye(len(ATTRIBUTES)), torch.zeros(())
    for i in range(_FITTED):
        scenes = drawn(f"codes/fit {i}", 16, seed, free=free)
        known = [one.kind != FOREIGN for one in scenes]
        wanted = torch.cat([attributes(one) for one in scenes if one.kind != FOREIGN]).float()
        both += wanted.T @ wanted
        written = written + wanted.T @ write(scenes)[known].flatten(0, 1)
    return both, written
