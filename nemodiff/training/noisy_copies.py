"""Noisy copies of an answer: its blocks as decoding leaves them, some positions clean and the others masked."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

BLOCK_SIZES = (4, 6, 8, 8, 8, 8, 12, 16)
MAX_PADS = 6  # how many ends of text after the end are predicted
PAD_WEIGHT = 0.3
# Weight of a prediction one position further from the clean text: about how often verification gets that far.
DECAY, CHAT_DECAY = 0.93, 0.8


@dataclass(slots=True)
class Noisy:
    """One noisy copy of an answer, position by position; `target` is the index in the answer that a position
    predicts, -1 for none.

    Labels are shifted: position i predicts the token at i + 1. `start` is where (in the answer) its block begins,
    with a clean token.
    """

    tokens: list[int] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    masked: list[bool] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    distance: list[int] = field(default_factory=list)


#: The ways in which decoding leaves a block, and how often each is drawn (see `_visible`).
WAYS: Mapping[str, int] = {"draft": 40, "group": 25, "prefix": 15, "strays": 8, "any": 12}
#: Those that drafts are made in.
DRAFT_WAYS: Mapping[str, int] = {"draft": 50, "group": 50}


def _visible(size: int, rng: random.Random, ways: Mapping[str, int]) -> list[bool]:
    """Which positions of a block are clean, by one of `ways`."""
    way = rng.choices(tuple(ways), tuple(ways.values()))[0]
    if way == "draft":  # the newest token and masks
        return [True] + [False] * (size - 1)
    if way == "group":  # masks alone, in quadratic and tree drafts: the first is where the verifier's own token goes
        return [False] * size
    if way == "any":  # denoising that commits the surest positions, wherever they are
        ratio = rng.random()
        return [True] + [rng.random() >= ratio for _ in range(size - 1)]
    known = rng.randint(1, max(1, size - 1))  # denoising that commits from the left, and some strays further right
    return [i < known or (way == "strays" and i > known and rng.random() < 0.1) for i in range(size)]


def noisy_copy(
    answer: list[int],
    ended: bool,
    end_id: int,
    mask_id: int,
    rng: random.Random,
    *,
    block: int | None = None,
    full: bool = False,
    decay: float = DECAY,
    hard: list[bool] | None = None,
    ways: Mapping[str, int] = WAYS,
) -> Noisy:
    """A noisy copy of `answer` in blocks of one size, the first one shorter by chance, so that any position can begin
    a block. A block begins with a clean token, or is a group of masks behind the clean text.

    With `hard` (one a token of the answer) blocks begin at hard tokens alone, and what lies between two blocks is left
    out: a cycle of self-speculation begins with the token at which the one before it failed. With `full` every block
    is [clean token, MASK, …] of exactly `block` tokens from the answer's first token on (for tests and measurements).
    """
    size = block or rng.choice(BLOCK_SIZES)
    noisy, start = Noisy(), 0
    length = size if full or hard else rng.randint(2, size)
    limit = len(answer) + (MAX_PADS if ended else 0)
    while start < len(answer) - ended:
        if hard and start and not hard[start]:
            start += 1
            continue
        end = min(start + length, limit)
        visible = [True] + [False] * (end - start - 1) if full else _visible(end - start, rng, ways)
        # Nothing in a group predicts its own first token: the clean text before it does.
        distance = 0 if visible[0] else 1
        for i in range(start, end):
            shown = visible[i - start]
            distance = 1 if shown else distance + 1
            inside = i + 1 < end
            # The last position of a fully masked block may predict the first token after it; a token that is shown
            # needs no prediction.
            wanted = (inside and not visible[i + 1 - start]) or (
                not inside and not any(visible[1:]) and i + 1 < len(answer)
            )
            past = i + 1 >= len(answer)
            token = answer[i] if i < len(answer) else end_id
            noisy.tokens.append(token if shown else mask_id)
            noisy.index.append(i)
            noisy.masked.append(not shown)
            noisy.start.append(start)
            noisy.target.append(i + 1 if wanted else -1)
            noisy.label.append(end_id if past else answer[i + 1])
            noisy.weight.append((PAD_WEIGHT if past else decay ** (distance - 1)) if wanted else 0.0)
            noisy.distance.append(distance)
        start, length = end, size
    return noisy
