"""Processes that train together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
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


def stay(worker: int, folder: Path) -> None:
    """Tell that this worker is here, and work on until somebody ends it."""
    (folder / f"{worker}.pid").write_text(str(os.getpid()), encoding="utf-8")
    while True:
        time.sleep(0.05)


def is_there(pid: int) -> bool:
    """Whether a process works on; one that has ended and that nobody has taken note of does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death is told to its children on Linux alone")
def test_workers_end_with_a_parent_that_was_killed_in_the_background(tmp_path: Path) -> None:
    """As `nohup … &` begins it, which has interrupts ignored."""
    script = f"import pathlib, {__name__} as own; own.run_together(own.stay, 2, pathlib.Path('run'), pathlib.Path('.'))"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        parent = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=environment)
    finally:
        signal.signal(signal.SIGINT, before)
    files = [tmp_path / f"{worker}.pid" for worker in range(2)]
    try:
        while not all(file.exists() and file.read_text() for file in files):
            assert parent.poll() is None
            time.sleep(0.05)
    finally:
        parent.terminate()
        parent.wait()
    pids = [int(file.read_text()) for file in files]
    for _ in range(1200):
        if not any(map(is_there, pids)):
            return
        time.sleep(0.05)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    pytest.fail("a worker goes on without its parent")
