"""A loop that fills masks, in the manner of LLaDA and Dream: the whole answer after every forward becomes an event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nemodiff.trace.events import Event, Position
from nemodiff.trace.recorder import Recorder

NOTE = "Fills masks, forward by forward; a token that is masked again is free to change."


class Canvas:
    """Follows a loop over an answer of masks: call `step` after every forward.

    recorder: with a lane "diffusion". mask_id: what is where nothing is committed. block_length: where the loop
    goes block by block, as LLaDA's does; else the answer is one block.
    """

    def __init__(self, recorder: Recorder, mask_id: int, block_length: int | None = None, note: str = NOTE) -> None:
        self._recorder = recorder
        self._mask = mask_id
        self._block = block_length
        self._before: list[int] = []
        recorder.trace["diffusion"].note = note

    def step(
        self,
        ids: Any,
        guesses: Any = None,
        confidence: Any = None,
        *,
        ms: float | None = None,
        finish: str | None = None,
    ) -> Event:
        """Write down what a forward left.

        ids: the answer after it, masks included; a list, or a tensor or array of shape [L] or [1, L], as are the
        others. guesses: the token that the forward proposed at each position. confidence: its probability. ms: what
        the forward took, by default the time since the step before. Raises ValueError where the lengths differ.
        """
        now = plain(ids)
        before = self._before or [self._mask] * len(now)
        proposed = now if guesses is None else plain(guesses)
        sure: list[float | None] = [None] * len(now) if confidence is None else plain(confidence)
        if not len(before) == len(now) == len(proposed) == len(sure):
            raise ValueError(f"answers of one length are needed, not {[*map(len, (before, now, proposed, sure))]}")
        open_ = [i for i, token in enumerate(before) if token == self._mask]
        size = self._block or len(now)
        start = (open_[0] if open_ else len(now) - 1) // size * size
        positions = []
        for i, token in enumerate(now):
            p = None if (chance := sure[i]) is None else min(1.0, max(0.0, float(chance)))
            if token != self._mask and token != before[i]:
                positions.append(Position(i, token, "committed", p))
            elif token == self._mask and (before[i] != self._mask or start <= i < start + size):
                guess = proposed[i] if proposed[i] != self._mask else self._mask
                positions.append(Position(i, guess, "masked", p))
        self._before = now
        return self._recorder.forward(
            "diffusion", "denoise", positions, ms=ms, start=start, length=min(size, len(now) - start), finish=finish
        )


def plain(values: Any) -> list[Any]:
    """Numbers as a list, whichever library they are from; of a batch of one its row."""
    values = values.tolist() if hasattr(values, "tolist") else list(values)
    if values and isinstance(values[0], Sequence):
        if len(values) != 1:
            raise ValueError(f"one answer is recorded at a time, not a batch of {len(values)}")
        return list(values[0])
    return values
