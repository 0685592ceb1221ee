"""`python -m nemodiff bench --samplers`: every sampler's tokens per forward against agreement with serial denoising."""

from __future__ import annotations

from collections.abc import Sequence

from tqdm import tqdm

from nemodiff.engine.loading import load
from nemodiff.engine.local import Engine
from nemodiff.evaluate.ranking_metrics import ENTROPY_BOUNDS, THRESHOLDS, Point, pareto, tpf_at
from nemodiff.markdown import table
from nemodiff.training.sampler_run import prompts_of

#: Agreements with serial denoising at which samplers are compared.
LEVELS = (0.99, 0.97, 0.95, 0.9, 0.8)


def run(
    checkpoint: str,
    *,
    prompts: int = 32,
    max_new_tokens: int = 96,
    block_length: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> str:
    """Run every sampler at every setting on held-out prompts; the tables as markdown. Raises CheckpointError,
    RequestError."""
    engine = load(checkpoint, device=device, dtype=dtype)
    return compare(engine, prompts, block_length or engine.defaults.block_length, max_new_tokens)


def compare(engine: Engine, prompts: int, length: int, max_new_tokens: int) -> str:
    """The same for a loaded engine."""
    samplers = ["confidence", "entropy", *(["trained"] if engine.sampler else [])]
    total = 1 + sum(len(ENTROPY_BOUNDS) if name == "entropy" else len(THRESHOLDS) for name in samplers)
    points = pareto(engine, prompts_of(prompts, held_out=True), samplers, length, max_new_tokens)
    shown = tqdm(points, desc="samplers", total=total, unit="setting", disable=None)
    return tables(engine, list(shown), prompts, length)


def tables(engine: Engine, points: Sequence[Point], prompts: int, block_length: int) -> str:
    """What every setting gave, and each sampler's tokens per forward at equal agreement."""
    names = list(dict.fromkeys(point.sampler for point in points[1:]))
    serial = points[0]
    lines = [
        f"{engine.checkpoint} · {engine.device} · {engine.dtype} · {prompts} held-out prompts, block {block_length}, "
        f"order best; serial denoising: TPF {serial.tpf:.2f}, {1000 * serial.seconds:.1f} ms per token",
        "TPF: tokens per forward; a prompt's first token is the prefill's, which counts as no forward.",
        "",
    ]
    rows = []
    for name in names:
        reached = [tpf_at(points, name, level) for level in LEVELS]
        rows.append([f"{name}: TPF", *("" if tpf is None else f"{tpf:.2f}" for tpf in reached)])
    lines += [table(["at an agreement with serial denoising of", *(f"{level:.0%}" for level in LEVELS)], rows), ""]
    settings = [
        (
            p.sampler,
            f"{p.setting:g}",
            f"{p.tpf:.2f}",
            f"{1000 * p.seconds:.1f}",
            f"{p.agreement:.1%}",
            f"{p.identical:.0%}",
        )
        for p in points[1:]
    ]
    lines.append(table(["sampler", "setting", "TPF", "ms per token", "agreement", "identical"], settings))
    return "\n".join(lines)
