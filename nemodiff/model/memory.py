"""How much memory a device has free, and what to say when it is not enough."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from nemodiff.errors import CheckpointError, NemodiffError
from nemodiff.model.config import ModelConfig

#: Weights are not all: caches, activations and logits come on top.
HEADROOM = 1.1
#: On a GPU: tokens of a lane that are reckoned with, rows of logits in all recorded forwards and on their way, and what
#: lanes and buffers take of the weights' size where no more is known of a model.
LANE, LOGIT_ROWS, GPU_SHARE = 4096, 512, 0.25


def free_memory(device: torch.device) -> int:
    """Bytes that a new model could have on `device`; of the machine or its container, whichever is less, on a CPU."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    left = _left_in_container()
    return _available() if left is None else min(_available(), left)


def reset_peak(device: torch.device) -> None:
    """Let `peak` count from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> int | None:
    """Most bytes that were allocated on a GPU at once since `reset_peak`; None on a CPU, where only a process's whole
    life could be told."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def shortage(weights: int, device: torch.device, freed: int = 0, config: ModelConfig | None = None) -> str | None:
    """Why a model of `weights` bytes does not fit `device` once `freed` bytes more are free; None when it does.

    config: whose lanes and buffers are worked out for a GPU; without one they are a share of the weights.
    """
    beside, free = int(weights * (HEADROOM - 1)), free_memory(device) + freed
    told = ""
    if device.type == "cuda":
        beside = lanes_bytes(config, weights) if config else int(weights * GPU_SHARE)
        told = f" ({weights / 1e9:.1f} GB of weights, the rest for three lanes of {LANE:,} tokens and buffers)"
    needed = weights + beside
    if needed <= free:
        return None
    return f"it needs about {needed / 1e9:.1f} GB of memory on {device.type}{told}, and {free / 1e9:.1f} GB are free"


def lanes_bytes(config: ModelConfig, weights: int, itemsize: int = 2) -> int:
    """What a model takes on a GPU beside its weights: the prompt's cache and three lanes' of LANE tokens, logits of the
    recorded forwards and what they compute on the way, and a part for the libraries' own buffers. itemsize: of a key.
    """
    cache = 2 * config.num_layers * config.num_kv_heads * config.head_dim * itemsize * LANE
    logits = LOGIT_ROWS * config.vocab_size * 4
    return 4 * cache + logits + int(weights * 0.03)


@contextmanager
def enough_memory(what: str, kind: type[NemodiffError] = CheckpointError) -> Iterator[None]:
    """Turn a failed allocation inside into one sentence: "There is not enough memory to `what`"."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise kind(f"There is not enough memory to {what}; choose something smaller or free some.") from error
    except RuntimeError as error:
        if "allocate" not in str(error):  # how torch's CPU allocator says it
            raise
        raise kind(f"There is not enough memory to {what}; choose something smaller or free some.") from error


def _available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # no Linux: all there is, since what is free cannot be told
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def _left_in_container() -> int | None:
    """What the control group leaves; its reclaimable file cache counts as free. None without a limit."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return limit - used + int(stat.get("inactive_file", 0))
