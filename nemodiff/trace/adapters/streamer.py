"""transformers' `generate(streamer=…)`: what a text-diffusion model drafts, or the tokens of any other one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nemodiff.trace.adapters.canvas import plain
from nemodiff.trace.events import Position
from nemodiff.trace.recorder import Recorder

NOTE = "Denoises a canvas as a whole; every token may change until the canvas is done."


class TraceStreamer:
    """A streamer that records: pass it to `generate`, then ask the recorder for its trace.

    With a lane "diffusion" it takes the drafts that transformers' diffusion models put, as `TextDiffusionStreamer`
    does: each is one forward, whose tokens are guesses until the canvas is done. A further canvas begins with a forward
    that reads the last one; it counts, too. With a lane "ar" each token is one forward.

    eos: ids that end an answer; what a canvas holds behind one is discarded. confidences: ask for the drafts' logits,
    of which there may be many, and record each guess's probability.
    """

    def __init__(
        self,
        recorder: Recorder,
        mode: str = "diffusion",
        *,
        eos: Iterable[int] = (),
        confidences: bool = False,
        note: str = NOTE,
    ) -> None:
        self._recorder, self._mode = recorder, mode
        self._eos = frozenset(eos)
        self._takes_logits = confidences  # transformers looks at this name
        self._start: int | None = None  # of the canvas under way, once the prompt has been put
        self._sure: list[float | None] = []
        self._drafts = 0  # of this canvas
        self._over = False
        if mode == "diffusion":
            recorder.trace[mode].note = note

    def put_draft(self, value: Any = None, logits: Any = None, **_: Any) -> None:
        """The canvas after a denoising forward, as ids or as logits [1, L, vocabulary]."""
        if logits is not None:
            best, value = logits.float().softmax(-1).max(-1)
            self._sure = [round(p, 4) for p in plain(best)]
        tokens = plain(value)
        start = self._start or 0
        self._sure = self._sure or [None] * len(tokens)
        positions = [
            Position(start + i, token, "masked", p) for i, (token, p) in enumerate(zip(tokens, self._sure, strict=True))
        ]
        forward = self._recorder.next_forward(self._mode) + (start > 0 and self._drafts == 0)
        self._drafts += 1
        self._recorder.forward(self._mode, "denoise", positions, start=start, length=len(tokens), forward=forward)

    def put(self, value: Any) -> None:
        """The prompt, then every finished canvas, or every token."""
        tokens = plain(value)
        if self._start is None:
            self._start = 0
            return
        if self._over or not tokens:
            return
        end = next((i for i, token in enumerate(tokens) if token in self._eos), None)
        finish = None if end is None else "eos"
        self._over = end is not None
        if self._mode == "diffusion":
            self._canvas(tokens, len(tokens) if end is None else end + 1, finish)
        else:
            for i, token in enumerate(tokens):
                place = Position(self._start + i, token, "committed")
                first = not self._recorder.trace[self._mode].events
                last = finish if i == len(tokens) - 1 else None
                self._recorder.forward(self._mode, "prefill" if first else "decode", [place], finish=last)
        self._start += len(tokens)

    def end(self) -> None:
        """The answer is finished."""
        if not self._over:
            self._recorder.close(self._mode, "length")

    def _canvas(self, tokens: list[int], kept: int, finish: str | None) -> None:
        """What the last draft's forward left for good: it has that forward's number and no time of its own."""
        start, sure = self._start or 0, self._sure if len(self._sure) == len(tokens) else [None] * len(tokens)
        positions = [
            Position(start + i, token, "committed" if i < kept else "discarded", p if i < kept else None)
            for i, (token, p) in enumerate(zip(tokens, sure, strict=True))
        ]
        events = self._recorder.trace[self._mode].events
        self._recorder.forward(
            self._mode,
            "denoise",
            positions,
            ms=0.0 if self._drafts else None,
            start=start,
            length=len(tokens),
            forward=events[-1].forward if self._drafts else None,
            finish=finish,
        )
        self._drafts, self._sure = 0, []
