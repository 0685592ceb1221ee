"""Processes that train together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from nemodiff.errors import CheckpointError, NemodiffError
from nemodiff.training.workers import average, run_together


def work(worker: int, workers: int, folder: Path) -> None:
    """Average what differs between workers; every one writes what it has then."""
    tensors = [torch.full((2, 3), float(worker)), torch.tensor([4.0 * worker])]
    average(tensors, workers)
    torch.save((tensors, torch.get_num_threads()), folder / f"{worker}.pt")


def test_workers_average_what_they_have(tmp_path: Path) -> None:
    run_together(work, 2, tmp_path / "two", 2, tmp_path)
    for worker in range(2):
        (first, second), threads = torch.load(tmp_path / f"{worker}.pt")
        assert torch.equal(first, torch.full((2, 3), 0.5)) and second.item() == 2.0 and threads == 1
    assert not list((tmp_path / "two").iterdir())


def test_one_worker_is_this_process(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    run_together(work, 1, tmp_path / "one", 1, tmp_path)
    assert torch.load(tmp_path / "0.pt")[1] == threads == torch.get_num_threads()


def refuse(worker: int) -> None:
    """The last worker refuses, and the others wait for it."""
    if worker == 1:
        raise CheckpointError("This is no folder of mine: name another one.")
    dist.barrier()


def test_what_a_worker_refuses_is_its_sentence(tmp_path: Path) -> None:
    with pytest.raises(NemodiffError, match=r"^This is no folder of mine: name another one\.$"):
        run_together(refuse, 2, tmp_path)
    assert not list(tmp_path.iterdir())
