"""`python -m nemodiff bench --quality`: the tables of a checkpoint's card, in one run, from the committed files."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from tqdm import tqdm

from nemodiff.bench.timing import exactness
from nemodiff.checkpoints.catalogue import base_weights
from nemodiff.command import JsonLines
from nemodiff.engine.loading import load
from nemodiff.engine.local import Engine
from nemodiff.evaluate.agreement import repeated_share
from nemodiff.evaluate.perplexity import perplexity
from nemodiff.evaluate.quality import (
    BLOCKS,
    GROUPS,
    MAX_OPEN,
    THRESHOLDS,
    Figures,
    Result,
    Task,
    figures,
    measure,
    tasks,
)
from nemodiff.markdown import table
from nemodiff.model.cpu import quantise
from nemodiff.model.weights import load_model
from nemodiff.tasks.open_prompts.neutral import NEUTRAL_TEXTS
from nemodiff.tasks.open_prompts.prompts import HELD_OUT_PROMPTS
from nemodiff.training.batch_decode import BatchDecoder
from nemodiff.training.dual_stream import Backbone

#: Tasks whose answers are printed word by word.
SAMPLES = ("json_object", "markdown_table", "dataclass")

_engine: Engine | None = None


def run(
    checkpoint: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    workers: int = 2,
    per_family: int = 1,
    prompts: int = len(HELD_OUT_PROMPTS),
    out: Path | None = None,
) -> str:
    """Measure and return the tables as markdown; every result is also a line of the JSONL file `out`.

    workers: processes of one torch thread each (1: this process, with its own threads). Raises CheckpointError,
    RequestError.
    """
    began, chosen = time.monotonic(), tasks(per_family=per_family, prompts=prompts)
    engine = load(checkpoint, device=device, dtype=dtype)  # also makes sure that workers find the files
    settings: dict[str, Any] = {
        "block_length": engine.defaults.block_length,
        "threshold": engine.defaults.threshold,
    }
    results: list[Result] = []
    with JsonLines(out) as file:
        measured = _results(engine, chosen, settings, checkpoint, device, dtype, workers)
        for more in tqdm(measured, total=len(chosen), unit="task", disable=None):
            results += more
            file.write(one.to_json() for one in more)
    threads = f"{workers} processes of 1 thread" if workers > 1 else f"{torch.get_num_threads()} threads"
    head = (
        f"{engine.checkpoint} · {engine.device.split(' · ')[0]} · {threads} · {engine.dtype} · {exactness(engine)} · "
        f"greedy, linear drafts, block {settings['block_length']}, diffusion in the order {engine.defaults.order} at "
        f"threshold {settings['threshold']:g} where not said otherwise; {len(chosen)} tasks, "
        f"{(time.monotonic() - began) / 60:.0f} minutes"
    )
    return "\n\n".join((head, *tables(results, **settings), _drift(engine, results, prompts), samples(results)))


def _results(
    engine: Engine,
    chosen: list[Task],
    settings: dict[str, Any],
    checkpoint: str,
    device: str | None,
    dtype: str | None,
    workers: int,
) -> Iterable[list[Result]]:
    if workers == 1:
        yield from (list(measure(engine, task, **settings)) for task in chosen)
        return
    # Longest first, so that the processes end together.
    order = sorted(chosen, key=lambda task: (task.full, task.answer is None, len(task.answer or "")), reverse=True)
    with ProcessPoolExecutor(workers, get_context("spawn"), _open, (checkpoint, device, dtype)) as pool:
        for future in as_completed([pool.submit(_measure, task, settings) for task in order]):
            yield future.result()


def _open(checkpoint: str, device: str | None, dtype: str | None) -> None:
    global _engine  # one per process
    torch.set_num_threads(1)
    _engine = load(checkpoint, device=device, dtype=dtype)


def _measure(task: Task, settings: dict[str, Any]) -> list[Result]:
    if _engine is None:
        raise RuntimeError("this process has not been opened")
    return list(measure(_engine, task, **settings))


def tables(results: Sequence[Result], block_length: int, threshold: float) -> list[str]:
    """The markdown tables: modes by group, block lengths of self-speculation, thresholds of diffusion."""
    first = by_group(results, GROUPS, block_length, threshold)
    return [first, _blocks(results), _thresholds(results)]


def by_group(results: Sequence[Result], groups: Iterable[str], block_length: int, threshold: float) -> str:
    """A markdown table with a row for every group that has results: all modes at one setting."""
    names = ["tasks (held out)", "n", "AR exact", "self-speculation: acceptance", "TPF", "× AR", "identical to AR"]
    names += ["diffusion: TPF", "× AR", "exact", "identical to AR", "agrees with AR"]
    lines = []
    for group in groups:
        rows = [one for one in results if one.group == group]
        ar = [one for one in rows if one.mode == "ar"]
        if not ar:
            continue
        linear = figures(
            [one for one in rows if one.mode == "self-speculation" and one.block_length == block_length], ar
        )
        diffusion = figures([one for one in rows if one.mode == "diffusion" and one.threshold == threshold], ar)
        lines.append([group, len(ar), _share(figures(ar, ar).exact), *_speculation(linear), *_diffusion(diffusion)])
    return table(names, lines)


def _speculation(one: Figures) -> list[str]:
    return [f"{one.acceptance or 0:.2f}", f"{one.tpf:.2f}", f"{one.speed_up or 0:.2f}×", _share(one.identical)]


def _diffusion(one: Figures) -> list[str]:
    return [
        f"{one.tpf:.2f}",
        f"{one.speed_up or 0:.2f}×",
        _share(one.exact),
        _share(one.identical),
        _share(one.agreement),
    ]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _full(results: Sequence[Result], mode: str, group: str) -> tuple[list[Result], list[Result]]:
    """Results of a mode, and AR's, over those tasks of a group that ran at every setting."""
    rows = [one for one in results if one.group == group]
    several = {one.name for one in rows if one.mode == "diffusion" and one.threshold == THRESHOLDS[0]}
    return (
        [one for one in rows if one.mode == mode and one.name in several],
        [one for one in rows if one.mode == "ar" and one.name in several],
    )


def _blocks(results: Sequence[Result]) -> str:
    lines = []
    for group in ("instances", "open"):
        rows, ar = _full(results, "self-speculation", group)
        if not ar:
            continue
        each = [figures([one for one in rows if one.block_length == length], ar) for length in BLOCKS]
        lines += [
            (f"{group}, n {len(ar)}: acceptance", *(f"{one.acceptance or 0:.2f}" for one in each)),
            (f"{group}: TPF", *(f"{one.tpf:.2f}" for one in each)),
            (f"{group}: × AR in seconds", *(f"{one.speed_up or 0:.2f}×" for one in each)),
        ]
    return table(["self-speculation, block length", *map(str, BLOCKS)], lines)


def _thresholds(results: Sequence[Result]) -> str:
    lines: list[tuple[str, ...]] = []
    for group in ("instances", "open"):
        rows, ar = _full(results, "diffusion", group)
        if not ar:
            continue
        each = [figures([one for one in rows if one.threshold == bound], ar) for bound in THRESHOLDS]
        lines.append((f"{group}, n {len(ar)}: TPF", *(f"{one.tpf:.2f}" for one in each)))
        lines.append((f"{group}: × AR in seconds", *(f"{one.speed_up or 0:.2f}×" for one in each)))
        if group != "open":
            lines.append((f"{group}: exact", *(_share(one.exact) for one in each)))
        else:
            lines.append((f"{group}: repeated 4-grams", *(_share(one.repeated) for one in each)))
        lines.append((f"{group}: identical to AR", *(_share(one.identical) for one in each)))
        lines.append((f"{group}: agrees with AR", *(_share(one.agreement) for one in each)))
    return table(["diffusion, threshold", *(f"{bound:g}" for bound in THRESHOLDS)], lines)


def _drift(engine: Engine, results: Sequence[Result], prompts: int) -> str:
    """How far AR has moved from its base: perplexity of neutral text and of the base's own chat answers, and how much
    both repeat themselves on the open prompts. Perplexities are of weights in the same dtype."""
    floats = load_model(base_weights(), engine.model.device, torch.bfloat16)
    encode, end = engine.tokenizer.encode, engine.model.config.eos_token_ids[0]
    neutral = [(encode(text, raw=True), 1) for text in NEUTRAL_TEXTS]
    asked = [encode(prompt, raw=False) for prompt in HELD_OUT_PROMPTS[:prompts]]
    room = max(map(len, asked)) + MAX_OPEN
    answers = dict(BatchDecoder(Backbone.of(floats), end, slots=min(64, prompts), room=room).run(asked, MAX_OPEN))
    chat = [(prompt + answers[i], len(prompt)) for i, prompt in enumerate(asked)]
    # What rounding alone costs is no drift: `bench --perplexity` shows it.
    base = quantise(floats) if engine.dtype == "int8" else floats
    rows = []
    for name, texts in (
        (f"perplexity of neutral text ({len(neutral)} paragraphs)", neutral),
        (f"perplexity of the base's answers to {len(asked)} open prompts", chat),
    ):
        before, after = perplexity(base, texts), perplexity(engine.model, texts)
        rows.append((name, f"{before:.2f}", f"{after:.2f}", f"{after / before - 1:+.1%}"))
    before = fmean(map(repeated_share, answers.values()))
    after = fmean(one.repeated for one in results if one.group == "open" and one.mode == "ar")
    name = "repeated 4-grams in AR's answers to them"
    rows.append((name, f"{before:.1%}", f"{after:.1%}", f"{after - before:+.1%}"))
    return table([f"drift of AR, both in {engine.dtype}", "base", "this checkpoint", "change"], rows)


def samples(results: Sequence[Result]) -> str:
    """Answers of every mode at the default settings, word by word: the tasks of SAMPLES and one open prompt."""
    parts = ["Samples, word by word:"]
    for group, name in [("instances", name) for name in SAMPLES] + [("open", "open 1")]:
        texts: dict[str, str] = {}
        for one in results:
            if (one.group, one.name) == (group, name):
                texts.setdefault(one.mode, one.text)
        for text in dict.fromkeys(texts.values()):
            modes = " and ".join(mode for mode, own in texts.items() if own == text)
            parts.append(f"{name}, {modes}:\n\n````\n{text.strip()}\n````")  # answers may hold ``` themselves
    return "\n\n".join(parts)
