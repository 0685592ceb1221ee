"""`python -m nemodiff bench --vision`: questions about held-out drawings, right or wrong, in all modes."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from nemodiff.bench.quality import by_group
from nemodiff.bench.timing import exactness
from nemodiff.checkpoints.catalogue import DEFAULT
from nemodiff.command import JsonLines
from nemodiff.engine.loading import load
from nemodiff.errors import RequestError
from nemodiff.evaluate.quality import Result, Task, figures, result_of
from nemodiff.pictures import Picture
from nemodiff.request import Request
from nemodiff.tasks.drawings.questions import WORDINGS, is_right, questions_of
from nemodiff.tasks.drawings.scenes import KINDS, scene
from nemodiff.trace.events import MODES

#: Most tokens of an answer; the longest right one has 70.
_ANSWER = 96


def run(
    checkpoint: str = DEFAULT,
    *,
    scenes: int = 24,
    device: str | None = None,
    dtype: str | None = None,
    out: Path | None = None,
) -> str:
    """Ask about `scenes` held-out drawings of every kind and return the table as markdown; every result is also a line
    of the JSONL file `out`. Half of the drawings are asked about in held-out wordings.

    Raises CheckpointError, and RequestError where the checkpoint sees no pictures.
    """
    engine, began = load(checkpoint, device=device, dtype=dtype), time.monotonic()
    right: dict[str, list[dict[str, bool]]] = {}
    if not engine.sees:
        raise RequestError(f"{engine.checkpoint} sees no pictures: choose a checkpoint that does ({DEFAULT}).")
    results: list[Result] = []
    with JsonLines(out) as file:
        for done, (kind, index) in enumerate(((kind, i) for i in range(scenes) for kind in KINDS), 1):
            one = scene(kind, f"bench {index}", held_out=True)
            picture = Picture.of(one.image)
            for question in questions_of(one, random.Random(f"bench/{index}"), held_out=index % 2 == 1):
                request = Request(prompt=question.text, images=(picture,), max_new_tokens=_ANSWER, alternatives=0)
                trace = engine.generate(request)
                topic = f"{kind}: {question.topic}"
                task = Task(topic, f"{index}{' new wording' * (index % 2)}", question.text, question.answer, False)
                more = [result_of(task, lane, trace["ar"], trace) for lane in trace.lanes]
                results += more
                file.write(one.to_json() for one in more)
                given = {lane.mode: is_right(question.topic, lane.text, question.answer) for lane in trace.lanes}
                right.setdefault(topic, []).append(given)
            print(f"\r{done} of {scenes * len(KINDS)} drawings", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    settings = (engine.defaults.block_length, engine.defaults.threshold)
    topics = [topic for topic in (f"{kind}: {topic}" for kind in KINDS for topic in WORDINGS) if topic in right]
    worded = [
        (name, [one for one in results if one.mode == "ar" and (" new" in one.name) is new])
        for name, new in (("wordings that training used", False), ("held-out wordings", True))
    ]
    minutes = (time.monotonic() - began) / 60
    shares = "; ".join(f"AR in {name}: {figures(rows, rows).exact:.0%} of {len(rows)}" for name, rows in worded if rows)
    head = (
        f"{engine.checkpoint} · {engine.device} · {engine.dtype} · {exactness(engine)} · greedy, block {settings[0]}, "
        f"threshold {settings[1]:g}; {scenes * len(KINDS)} held-out drawings, {minutes:.0f} minutes"
    )
    return "\n\n".join((head, _right(right, topics), by_group(results, topics, *settings), f"{shares}, word for word."))


def _right(right: dict[str, list[dict[str, bool]]], topics: Sequence[str]) -> str:
    """Shares of right answers, in whatever words, a topic and mode."""
    lines = [f"| right answers | n | {' | '.join(MODES)} |", "| --- |" + " --- |" * (1 + len(MODES))]
    for topic in topics:
        shares = [fmean(answer[mode] for answer in right[topic]) for mode in MODES]
        lines.append(f"| {topic} | {len(right[topic])} | {' | '.join(f'{share:.0%}' for share in shares)} |")
    return "\n".join(lines)
