"""Parts a and b: whether the device computes what a CPU computes, and how exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from nemodiff.bench.shape import SHAPES
from nemodiff.engine.local import Engine
from nemodiff.model.cuda.check import checked_runner
from nemodiff.model.cuda.fixed_attention import flash_attention
from nemodiff.model.cuda.row_shapes import find_row_shapes
from nemodiff.model.transformer import Transformer
from nemodiff.model.weights import load_model
from nemodiff.pictures import Picture
from nemodiff.request import Request
from nemodiff.trace.events import Trace, first_difference
from tests.helpers.official import random_ministral, write_nvidia
from tests.helpers.vlm import write_vlm
from tools.first_light.report import Findings
from tools.first_light.where import Where

PROMPT = tuple(i * 5 % 99 for i in range(40))


def requests(sees: bool, small: bool) -> dict[str, Request]:
    """What is asked of every engine, by what it tries. small: short answers."""
    tokens = 10 if small else 32
    if sees:
        noise = torch.randint(0, 256, (40, 48, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        picture = Picture.of(Image.fromarray(noise.numpy()))
        seen = Request(prompt="w5 w6", images=(picture,), max_new_tokens=tokens, block_length=8, ignore_eos=True)
        return {"a picture": seen, "a picture, quadratic": replace(seen, draft="quadratic")}
    plain = Request(prompt_ids=PROMPT, max_new_tokens=tokens, block_length=8, threshold=0.3, ignore_eos=True)
    return {
        "linear": plain,
        "linear, no LoRA": replace(plain, adapter=False),
        "quadratic": replace(plain, draft="quadratic"),
        "tree": replace(plain, draft="tree", rows=16),
        "temperature 0.8": replace(plain, temperature=0.8, seed=3),
        "a long prompt": replace(plain, prompt_ids=tuple(i * 7 % 99 for i in range(300 if small else 700))),
    }


def tokens(found: Findings, where: Where) -> None:
    """Part a: random checkpoints in NVIDIA's layout, with a LoRA and with a tower, on the device and on the CPU."""
    folders = {
        False: write_nvidia(random_ministral(), where.scratch / "nvidia", lora=True),
        True: write_vlm(where.scratch / "vlm", tokenizer=True),
    }
    for sees, folder in folders.items():
        for dtype in ("float32", "bfloat16"):
            asked_of_all = requests(sees, where.rehearsal)
            reference = {name: _engine(folder, dtype).generate(asked) for name, asked in asked_of_all.items()}
            for graphs in (False, True):
                try:
                    engine = where.open(folder, dtype, graphs)
                except Exception as error:  # noqa: BLE001 - the rest is still of use
                    found.notes.append(f"{folder.name}, {dtype}, graphs {graphs}: {error}")
                    continue
                for name, asked in asked_of_all.items():
                    row = {"checkpoint": folder.name, "dtype": dtype, "graphs": graphs, "request": name}
                    try:
                        found.rows.append(row | _compared(engine.generate(asked), reference[name]))
                    except Exception as error:  # noqa: BLE001
                        found.notes.append(f"{row}: {type(error).__name__}: {error}")
    whole = [row for row in found.rows if row["dtype"] == "float32"]
    found.notes.append(
        f"float32: {sum(bool(row['same as the CPU']) for row in whole)} of {len(whole)} runs have the CPU's tokens and "
        "NFE in all modes. bfloat16 is rounded differently on another device: there texts may part."
    )


def _engine(folder: Path, dtype: str) -> Engine:
    from nemodiff.engine.loading import load

    return load(str(folder), device="cpu", dtype=dtype, graphs="off")


def _compared(trace: Trace, reference: Trace) -> dict[str, object]:
    same, parts = True, {}
    for lane, other in zip(trace.lanes, reference.lanes, strict=True):
        place = first_difference(lane.tokens, other.tokens)
        same = same and place is None and lane.nfe == other.nfe
        told = "same" if place is None else f"from token {place}"
        parts[lane.mode] = f"{told}, NFE {lane.nfe}" + ("" if lane.nfe == other.nfe else f" (CPU: {other.nfe})")
    ar, speculation = trace.lane("ar"), trace.lane("self-speculation")
    return {
        "same as the CPU": same,
        **parts,
        "AR = self-speculation": ar is not None and speculation is not None and ar.tokens == speculation.tokens,
        "exact": trace.exact,
    }


def exactness(found: Findings, where: Where) -> None:
    """Part b: the check on loading, row counts that round alike, what attention and noise run in."""
    folder = write_nvidia(random_ministral(), where.scratch / "nvidia-b", lora=True)
    device = torch.device(where.device)
    for dtype in (torch.float32, torch.bfloat16):
        model = load_model(folder, device, dtype)
        flash, broken = flash_attention(device, dtype)
        runner, failures = checked_runner(model)
        found.rows.append(
            {
                "dtype": str(dtype).removeprefix("torch."),
                "flash-attn": "loads" if flash else broken or "not used",
                "the check on loading": "passed" if runner else "failed",
                "runs": runner.attention if runner else model.attention,
                "exact in eager torch": model.exact,
                "exact in graphs": bool(runner and runner.exact),
                "row counts that round alike": _counts(model),
            }
        )
        found.notes += failures
    shape = SHAPES["tiny" if where.rehearsal else "3B"].config()
    linears = [
        (shape.qkv_size, shape.hidden_size),
        (shape.hidden_size, shape.num_heads * shape.head_dim),
        (2 * shape.intermediate_size, shape.hidden_size),
        (shape.hidden_size, shape.intermediate_size),
        (shape.vocab_size, shape.hidden_size),
    ]
    kind = torch.float32 if where.rehearsal else torch.bfloat16
    counts = find_row_shapes(linears, device, kind).counts
    found.notes.append(f"{'The tiny' if where.rehearsal else 'The 3B'} shape in {kind}: rows {counts} round alike.")


def _counts(model: Transformer) -> str:
    return " ".join(map(str, model.rows.counts)) if model.rows else "none"
