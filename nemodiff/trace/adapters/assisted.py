"""transformers' assisted generation: what the assistant drafts and what the model accepts, cycle by cycle."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nemodiff.trace.adapters.cycle import MODE, add_cycle
from nemodiff.trace.events import Position
from nemodiff.trace.recorder import Recorder

NOTE = "An assistant drafts, the model verifies: each kept token is the model's own. Forwards are the model's."


@contextmanager
def record_assisted(model: Any, recorder: Recorder, alternatives: int = 5, note: str = NOTE) -> Iterator[None]:
    """While this is open, `model.generate` with an assistant (a model, or prompt lookup) is recorded in the lane
    "self-speculation"; its first forward reads the prompt, too. alternatives: how many tokens a position lists.

        with record_assisted(model, recorder):
            model.generate(**inputs, assistant_model=assistant)
        trace = recorder.finish()

    It watches `model._get_candidate_generator`, which transformers does not promise to keep. Raises AttributeError
    where it is gone.
    """
    make = model._get_candidate_generator
    cycles = _Cycles(recorder, alternatives)
    recorder.trace[MODE].note = note

    def watched(*args: Any, **kwargs: Any) -> Any:
        generator = make(*args, **kwargs)
        cycles.watch(generator)
        return generator

    model._get_candidate_generator = watched
    try:
        yield
    finally:
        del model._get_candidate_generator  # the class's own stands behind it
    if recorder.trace[MODE].events:
        ends = model.generation_config.eos_token_id
        ids = {ends} if isinstance(ends, int) else set(ends or ())
        recorder.close(MODE, "eos" if cycles.newest in ids else "length")


class _Cycles:
    """Pairs what a candidate generator proposes with what it is told of its verdict."""

    def __init__(self, recorder: Recorder, alternatives: int) -> None:
        self._recorder, self._alternatives = recorder, alternatives
        self._prompt: int | None = None
        self._draft: list[Position] = []
        self._length = 0
        self._asked = self._drafted = 0.0
        self.newest: int | None = None

    def watch(self, generator: Any) -> None:
        propose, learn = generator.get_candidates, generator.update_candidate_strategy

        def get_candidates(input_ids: Any, *args: Any, **kwargs: Any) -> Any:
            self._asked = time.perf_counter()
            ids, logits = propose(input_ids, *args, **kwargs)
            self._drafts(input_ids.shape[1], ids, logits)
            return ids, logits

        def update_candidate_strategy(input_ids: Any, scores: Any, num_matches: int) -> Any:
            self._verdict(input_ids, scores)
            return learn(input_ids, scores, num_matches)

        generator.get_candidates = get_candidates
        generator.update_candidate_strategy = update_candidate_strategy

    def _drafts(self, length: int, ids: Any, logits: Any) -> None:
        self._drafted = time.perf_counter()
        if self._prompt is None:
            self._prompt = length
        self._length = length
        tokens = ids[0, length:].tolist()
        self._draft = self._positions(tokens, logits)

    def _verdict(self, input_ids: Any, scores: Any) -> None:
        now = time.perf_counter()
        tokens = input_ids[0, self._length :].tolist()
        self.newest = tokens[-1]
        add_cycle(
            self._recorder,
            self._length - (self._prompt or 0),
            self._draft,
            self._positions(tokens, scores),
            draft_ms=(self._drafted - self._asked) * 1000,
            ms=(now - self._drafted) * 1000,
        )

    def _positions(self, tokens: list[int], logits: Any) -> list[Position]:
        """Tokens from the cycle's start on; logits: [1, n, vocabulary] or None, the nth token's in its nth row."""
        start = self._length - (self._prompt or 0)
        if logits is None or not tokens:
            return [Position(start + i, token, "drafted") for i, token in enumerate(tokens)]
        chances = logits[0, : len(tokens)].float().softmax(-1)
        best, which = chances.topk(min(max(1, self._alternatives), chances.shape[-1]))
        tops = [list(zip(ids, ps, strict=True)) for ids, ps in zip(which.tolist(), best.tolist(), strict=True)]
        return [
            Position(start + i, token, "drafted", float(chances[i, token]), top=tops[i] if self._alternatives else [])
            for i, token in enumerate(tokens)
        ]
