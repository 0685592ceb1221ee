"""`python -m nemodiff bench --perplexity`: what a dtype costs in quality, against float32 on the same texts."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from nemodiff.engine.devices import DTYPES
from nemodiff.engine.loading import load
from nemodiff.engine.local import Engine
from nemodiff.evaluate.perplexity import perplexity
from nemodiff.evaluate.quality import tasks
from nemodiff.markdown import table
from nemodiff.model.cpu import int8_obstacle
from nemodiff.request import Request
from nemodiff.tasks.open_prompts.neutral import NEUTRAL_TEXTS

#: Open prompts that are answered, and tokens of an answer.
_OPEN, _ANSWER = 12, 48


def run(checkpoint: str, *, dtypes: Sequence[str] = tuple(DTYPES), texts: int | None = None) -> str:
    """Measure on a CPU and return a markdown table. texts: how many of each kind, None for all. Raises CheckpointError.

    Neutral paragraphs, right answers to held-out structured tasks, and float32's own greedy answers to open prompts.
    """
    kinds: dict[str, list[tuple[list[int], int]]] = {}
    figures: dict[str, list[float]] = {}
    notes = []
    for dtype in dtypes:
        if dtype == "int8" and (reason := int8_obstacle(torch.device("cpu"))):
            notes.append(f"\nint8 was left out: {reason}.")
            continue
        print(f"{dtype} …", file=sys.stderr, flush=True)
        engine = load(checkpoint, device="cpu", dtype=dtype)
        if not kinds:
            kinds = _texts(engine, texts)
        figures[dtype] = [perplexity(engine.model, kind) for kind in kinds.values()]
    first = next(iter(figures))
    names = ["dtype", *(f"{name} ({len(kind)})" for name, kind in kinds.items())]
    rows = []
    for dtype, found in figures.items():
        pairs = zip(found, figures[first], strict=True)
        rows.append([dtype, *(f"{value:.3f} ({value / base - 1:+.2%})" for value, base in pairs)])
    return "\n".join(
        [
            f"{engine.checkpoint} · {engine.device}\n",
            table(names, rows),
            f"\nPerplexity, and its change against {first}.",
            *notes,
        ]
    )


def _texts(engine: Engine, count: int | None) -> dict[str, list[tuple[list[int], int]]]:
    """Kind → (token ids, how many of them are given), as `perplexity` takes them."""
    encode = engine.tokenizer.encode
    held_out = tasks()
    structured = [
        (encode(task.prompt, raw=False), encode(task.answer, raw=True)) for task in held_out if task.answer is not None
    ][:count]
    opened = []
    for task in [task for task in held_out if task.answer is None][: count or _OPEN]:
        request = Request(prompt=task.prompt, modes=("ar",), max_new_tokens=_ANSWER, alternatives=0)
        opened.append((engine.encode(request), engine.generate(request).lanes[0].tokens))
    return {
        "neutral paragraphs": [(encode(text, raw=True), 1) for text in NEUTRAL_TEXTS[:count]],
        "structured answers": [(prompt + answer, len(prompt)) for prompt, answer in structured],
        "open answers": [(prompt + answer, len(prompt)) for prompt, answer in opened],
    }
