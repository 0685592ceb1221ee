"""Processes that train together on one machine, a thread each."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import ProcessException

from nemodiff.errors import NemodiffError, RequestError


def run_together(work: Callable[..., None], workers: int, folder: Path, *args: Any) -> None:
    """work(worker, *args) in each of `workers` processes, which meet in a file of `folder`; where it is one, in this
    process and with all its threads. work: a module's function, since it travels to the processes by its name. Raises
    the NemodiffError of a worker as one of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    if workers == 1:
        work(0, *args)
        return
    meeting = folder.resolve() / f"rendezvous-{os.getpid()}"
    said = torch.multiprocessing.get_context("spawn").SimpleQueue()
    try:
        torch.multiprocessing.spawn(_join, (work, workers, str(meeting), said, args), nprocs=workers)
    except ProcessException as error:
        if said.empty():
            raise
        raise RequestError(said.get()) from error
    finally:
        meeting.unlink(missing_ok=True)


def add_up(tensor: Tensor, workers: int) -> Tensor:
    """The sum of all workers' tensors, in place and for every worker."""
    if workers > 1:
        dist.all_reduce(tensor)
    return tensor


@torch.no_grad()
def average(tensors: list[Tensor], workers: int) -> None:
    """Give every worker the mean of all workers' tensors, in place."""
    if workers == 1:
        return
    packed = add_up(torch.cat([one.flatten() for one in tensors]), workers)
    for one, mean in zip(tensors, (packed / workers).split([one.numel() for one in tensors]), strict=True):
        one.copy_(mean.view_as(one))


def _join(
    worker: int, work: Callable[..., None], workers: int, meeting: str, said: SimpleQueue[str], args: tuple[Any, ...]
) -> None:
    # torch ends a worker by an interrupt where its parent was killed; one that a shell put into the background would
    # ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=worker, world_size=workers)
    try:
        work(worker, *args)
    except NemodiffError as error:
        said.put(str(error))
        raise
    dist.destroy_process_group()
