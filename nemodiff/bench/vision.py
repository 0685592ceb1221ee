"""`python -m nemodiff bench --vision`: questions about held-out drawings, right or wrong, in all modes."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from tqdm import tqdm

from nemodiff.bench.quality import by_group
from nemodiff.bench.timing import exactness
from nemodiff.checkpoints.catalogue import DEFAULT
from nemodiff.command import JsonLines
from nemodiff.engine.loading import load
from nemodiff.errors import RequestError
from nemodiff.evaluate.quality import Result, Task, figures, result_of
from nemodiff.markdown import table
from nemodiff.pictures import Picture
from nemodiff.request import Request
from nemodiff.tasks.drawings.free_scenes import free_scene
from nemodiff.tasks.drawings.questions import REFUSAL, WORDINGS, Question, is_right, questions_of
from nemodiff.tasks.drawings.scenes import FOREIGN, KINDS, Scene, scene
from nemodiff.trace.events import MODES

#: Most tokens of an answer; the longest right one has 70.
_ANSWER = 96
#: Questions about every foreign picture.
_ASKED = 3
#: What is aimed at, of drawings placed freely: the topics that count, and the share of them to reach.
_AIMS: dict[str, tuple[tuple[str, ...], float]] = {
    "shape": (("free shapes: shape",), 0.95),
    "colour": (("free shapes: colour", "free word: colour", "free digit: colour"), 0.95),
    "count": (("free shapes: count", "free bars: bars", "free word: letters"), 0.95),
    "digit": (("free digit: digit",), 0.95),
    "words": (("free word: word",), 0.85),
    "whole lists": (("free shapes: describe", "free shapes: json", "free bars: describe", "free bars: json"), 0.85),
    "foreign pictures refused": ((FOREIGN,), 0.90),
}


def run(
    checkpoint: str = DEFAULT,
    *,
    scenes: int = 24,
    device: str | None = None,
    dtype: str | None = None,
    out: Path | None = None,
) -> str:
    """Ask about `scenes` held-out drawings of every kind, as many that are placed freely and as many foreign pictures,
    and return the tables as markdown; every result is also a line of the JSONL file `out`. Half of the pictures are
    asked about in held-out wordings.

    Raises CheckpointError, and RequestError where the checkpoint sees no pictures.
    """
    engine, began = load(checkpoint, device=device, dtype=dtype), time.monotonic()
    right: dict[str, list[dict[str, bool]]] = {}
    refused: list[bool] = []  # by AR, of drawings that it should know
    if not engine.sees:
        raise RequestError(f"{engine.checkpoint} sees no pictures: choose a checkpoint that does ({DEFAULT}).")
    results: list[Result] = []
    with JsonLines(out) as file:
        pictures = tqdm(_pictures(scenes), total=scenes * (2 * len(KINDS) + 1), unit="picture", disable=None)
        for name, index, one, questions in pictures:
            picture = Picture.of(one.image)
            for question in questions:
                request = Request(prompt=question.text, images=(picture,), max_new_tokens=_ANSWER, alternatives=0)
                trace = engine.generate(request)
                topic = name if one.kind == FOREIGN else f"{name}: {question.topic}"
                task = Task(topic, f"{index}{' new wording' * (index % 2)}", question.text, question.answer, False)
                more = [result_of(task, lane, trace["ar"], trace) for lane in trace.lanes]
                results += more
                file.write(one.to_json() for one in more)
                given = {lane.mode: is_right(question.topic, lane.text, question.answer) for lane in trace.lanes}
                right.setdefault(topic, []).append(given)
                if one.kind != FOREIGN:
                    refused.append(trace["ar"].text.strip() == REFUSAL)
    settings = (engine.defaults.block_length, engine.defaults.threshold)
    names = [f"{free}{kind}: {topic}" for free in ("", "free ") for kind in KINDS for topic in WORDINGS]
    topics = [topic for topic in (*names, FOREIGN) if topic in right]
    worded = [
        (name, [one for one in results if one.mode == "ar" and (" new" in one.name) is new])
        for name, new in (("wordings that training used", False), ("held-out wordings", True))
    ]
    minutes = (time.monotonic() - began) / 60
    shares = "; ".join(f"AR in {name}: {figures(rows, rows).exact:.0%} of {len(rows)}" for name, rows in worded if rows)
    head = (
        f"{engine.checkpoint} · {engine.device} · {engine.dtype} · {exactness(engine)} · greedy, block {settings[0]}, "
        f"threshold {settings[1]:g}; {scenes} held-out pictures per kind, {minutes:.0f} minutes"
    )
    tables = _aims(right, refused), _right(right, topics), by_group(results, topics, *settings)
    return "\n\n".join((head, *tables, f"{shares}, word for word."))


def _pictures(scenes: int) -> Iterator[tuple[str, int, Scene, list[Question]]]:
    """(kind as the tables name it, number, picture, what is asked about it)."""
    for index in range(scenes):
        rng, held_out = random.Random(f"bench/{index}"), index % 2 == 1
        for kind in KINDS:
            one = scene(kind, f"bench {index}", held_out=True)
            yield kind, index, one, questions_of(one, random.Random(f"bench/{index}"), held_out=held_out)
        for kind in KINDS:
            one = free_scene(kind, f"bench {index}", held_out=True)
            yield f"free {kind}", index, one, questions_of(one, rng, held_out=held_out)
        one = free_scene(FOREIGN, f"bench {index}", held_out=True)
        yield FOREIGN, index, one, rng.sample(questions_of(one, rng, held_out=held_out), _ASKED)


def _aims(right: dict[str, list[dict[str, bool]]], refused: list[bool]) -> str:
    """What is aimed at of AR's answers, beside what was measured."""
    rows = []
    for name, (topics, aim) in _AIMS.items():
        answers = [one["ar"] for topic in topics for one in right.get(topic, [])]
        if answers:
            rows.append((name, len(answers), f"≥ {aim:.0%}", f"{fmean(answers):.0%}"))
    rows.append(("known drawings refused", len(refused), "≤ 3%", f"{fmean(refused):.1%}"))
    return table(["held-out pictures, things placed freely", "n", "aimed at", "AR right"], rows)


def _right(right: dict[str, list[dict[str, bool]]], topics: Sequence[str]) -> str:
    """Shares of right answers, in whatever words, a topic and mode."""
    rows = []
    for topic in topics:
        shares = [fmean(answer[mode] for answer in right[topic]) for mode in MODES]
        rows.append((topic, len(right[topic]), *(f"{share:.0%}" for share in shares)))
    return table(["right answers", "n", *MODES], rows)
