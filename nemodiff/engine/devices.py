"""What a model runs on: device, dtype, and whether its forwards become CUDA graphs."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from functools import cache

import torch

from nemodiff.errors import CheckpointError
from nemodiff.model.cpu import int8_obstacle
from nemodiff.model.cuda import noise
from nemodiff.model.cuda.check import checked_runner
from nemodiff.model.runner import Runner
from nemodiff.model.transformer import Transformer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
GRAPHS = ("auto", "on", "off")
_GRAPH_NAMES = {**{name: name for name in GRAPHS}, "1": "on", "0": "off", "true": "on", "false": "off"}


def pick_device(name: str | None, report: Callable[[str], None] = lambda line: None) -> torch.device:
    """The device to run on. Raises CheckpointError when a GPU is asked for and there is none that works.

    report: called with a line where there is a GPU that cannot be used and nobody asked for it.
    """
    if name is None:
        reason = cuda_obstacle() if torch.cuda.is_available() else gpu_left_out()
        if torch.cuda.is_available() and not reason:
            return torch.device("cuda")
        if reason:
            report(f"The model runs on the CPU: {reason}.")
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CheckpointError(f"Unknown device {name!r}: choose cpu or cuda.") from error
    if device.type not in ("cpu", "cuda"):
        raise CheckpointError(f"There is no {name} device on this machine: choose cpu.")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            reason = gpu_left_out()
            raise CheckpointError(
                f"There is no {name} device on this machine{f' ({reason})' if reason else ''}: choose cpu."
            )
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise CheckpointError(f"There is no {name} device on this machine: choose cpu or cuda.")
        if reason := cuda_obstacle():
            raise CheckpointError(f"The GPU cannot be used: {reason}; or choose --device cpu.")
    return device


@cache
def gpu_left_out() -> str | None:
    """Why torch sees no GPU although it was built for one and the machine has a driver; None where there is no reason
    to look for one, or where one is seen."""
    if torch.version.cuda is None or torch.cuda.is_available():
        return None
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        text = str(error)
    else:
        return None
    if "too old" in text:
        return f"the NVIDIA driver is too old for this torch, which was built for CUDA {torch.version.cuda}: update it"
    if "no NVIDIA driver" in text or "no CUDA-capable device" in text:
        return None
    return f"CUDA does not start ({text.strip().splitlines()[0][:200]})"


@cache
def cuda_obstacle() -> str | None:
    """Why the GPU that torch sees cannot compute, None where it can."""
    if lent():  # there is none in this process
        return None
    try:
        (torch.ones(2, device="cuda") + 1).sum().item()
    except (RuntimeError, AssertionError) as error:
        text = str(error).strip().splitlines()[0]
        if "no kernel image" in text:
            card = torch.cuda.get_device_name()
            return f"this torch has no kernels for {card}: install one that was built for it"
        if "driver" in text and ("too old" in text or "insufficient" in text):
            return f"the NVIDIA driver is too old for this torch (CUDA {torch.version.cuda}): update it"
        return f"its first sum failed ({text[:200]})"
    return None


def pick_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """The dtype to run in. Raises CheckpointError when there is no such one, or the device cannot run it.

    By default int8 on a CPU, where it halves the bytes that a forward reads; else bfloat16 in hardware.
    """
    if name is None:
        if device.type == "cpu" and int8_obstacle(device) is None:
            return torch.int8
        return torch.bfloat16 if fast_bfloat16(device) else torch.float32
    if name not in DTYPES:
        raise CheckpointError(f"Unknown dtype {name!r}: choose {' or '.join(DTYPES)}.")
    if name == "int8" and (reason := int8_obstacle(device)):
        raise CheckpointError(f"{reason[0].upper()}{reason[1:]}: choose float32 or bfloat16.")
    if name == "bfloat16" and device.type == "cuda" and not fast_bfloat16(device):
        raise CheckpointError(f"{torch.cuda.get_device_name(device)} does not compute in bfloat16: choose float32.")
    return DTYPES[name]


def loaded_dtype(kind: torch.dtype) -> torch.dtype:
    """What weights are read in: int8 ones are made of bfloat16 ones."""
    return torch.bfloat16 if kind is torch.int8 else kind


def fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is computed in hardware here; emulated, it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


def training_dtype(device: str) -> str:
    """What training computes in, as torch names it: bfloat16 where that is done in hardware, else float32."""
    return "bfloat16" if fast_bfloat16(torch.device(device)) else "float32"


def pick_graphs(choice: str | bool, device: torch.device) -> str:
    """auto, on or off, of whatever stands for one of them. Raises CheckpointError."""
    chosen = _GRAPH_NAMES.get(str(choice).lower())
    if chosen is None:
        raise CheckpointError(f"Unknown graphs {choice!r}: choose {', '.join(GRAPHS[:-1])} or {GRAPHS[-1]}.")
    if chosen == "on" and device.type != "cuda":
        raise CheckpointError("CUDA graphs need a GPU, and the model runs on a CPU: leave graphs at auto.")
    return "off" if lent() else chosen


def lent() -> bool:
    """Whether this is a ZeroGPU Space, where the GPU comes with a fork for a single run: too short to capture for."""
    return os.environ.get("SPACES_ZERO_GPU", "").strip().lower() in ("1", "true", "yes", "on")


def torch_runner(model: Transformer, graphs: str, report: Callable[[str], None]) -> Runner:
    """What runs a model's forwards in torch: CUDA graphs on a GPU, where they pass the check, else `model` itself.

    graphs: as `pick_graphs` gives it. report: called with a line about whatever failed. Raises CheckpointError where
    graphs must be on and fail.
    """
    if model.device.type != "cuda":
        return model
    if not lent() and (reason := noise.compiled(model.device)[1]):
        report(f"{reason}.")
    if graphs == "off":
        return model
    return settled(checked_runner(model), model, graphs, report)


def settled(
    checked: tuple[Runner | None, list[str]], model: Transformer, graphs: str, report: Callable[[str], None]
) -> Runner:
    """What comes of a check: see `torch_runner`."""
    runner, failures = checked
    if runner is None and graphs == "on":
        raise CheckpointError(f"{failures[-1]} Load it with graphs auto or off.")
    for line in failures:
        report(line if runner else f"{line} The model runs in eager torch.")
    return runner or model


def describe_device(device: torch.device) -> str:
    """A name a reader can compare by: the GPU's, or the CPU's with torch's thread count."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_cpu_name()} · {threads} thread{'s' if threads != 1 else ''}"


def _cpu_name() -> str:
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip() + " CPU"
    return f"{platform.processor() or platform.machine()} CPU"
