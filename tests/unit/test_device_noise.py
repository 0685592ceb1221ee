"""The noise that a GPU draws: its source, compiled for a CPU, against torch's generator; and how a lane takes it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import pytest
import torch

from nemodiff.decode.noise import Noise
from nemodiff.model.cuda import noise

SHIM = """
#include <cmath>
#define __global__
#define __device__ static
#define __shared__ static
#define __syncthreads()
static struct { int x; } threadIdx = {0}, blockDim = {1}, blockIdx = {0};
"""
RUN = """
extern "C" void run(const long long* seeds, float* out, int size, int rows) {
    for (blockIdx.x = 0; blockIdx.x < rows; blockIdx.x++) gumbel(seeds, out, size);
}
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """The kernel's source with one thread per block, which then does the work of all of them in order."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler here")
    folder = tmp_path_factory.mktemp("noise")
    (folder / "noise.cpp").write_text(SHIM + noise.SOURCE + RUN)
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", folder / "noise.so", folder / "noise.cpp"], check=True)
    library = ctypes.CDLL(str(folder / "noise.so"))

    def run(grid, block, args):
        seeds, out, size = args
        library.run(ctypes.c_void_p(seeds.data_ptr()), ctypes.c_void_p(out.data_ptr()), size, grid[0])

    return run


@pytest.mark.parametrize("size", [1, 311, 312, 313, 5000])
def test_the_numbers_are_those_of_torchs_generator(kernel, size):
    seeds = [0, 5, 2**32 - 1, 5 + 7 * 2**32, 2**62]
    found = noise.draw(seeds, size, torch.device("cpu"), kernel)
    expected = torch.stack([noise.on_cpu(seed, size) for seed in seeds])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 3, 2**32 - 1, 2**40])
def test_a_lane_draws_on_the_device_what_it_would_draw_on_the_cpu(kernel, monkeypatch, seed):
    like, places, drawn = torch.zeros(1, 700), [4, 9, 4, 2], []
    expected = [Noise(seed).gumbel(purpose, places, like) for purpose in ("token", "draft")]
    monkeypatch.setattr(noise, "compiled", lambda device: (lambda **how: (drawn.append(1), kernel(**how)), None))
    lane = Noise(seed)
    found = [lane.gumbel(purpose, places, like) for purpose in ("token", "draft")]
    again = lane.gumbel("token", [2, 9], like)
    assert len(drawn) == (2 if seed < 2**32 else 0)  # a larger one is numpy's to draw
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert torch.equal(again, found[0][[3, 1]])


def test_a_device_without_it_says_why(monkeypatch):
    noise.compiled.cache_clear()
    assert noise.compiled(torch.device("cpu")) == (None, None)

    def broken(source, name):
        raise RuntimeError("nvrtc: error: failed to open libnvrtc-builtins.so\nmore")

    monkeypatch.setattr(torch.cuda, "_compile_kernel", broken, raising=False)
    kernel, reason = noise.compiled(torch.device("cuda"))
    assert kernel is None
    assert reason == "Noise is drawn on the CPU: nvrtc: error: failed to open libnvrtc-builtins.so"
    noise.compiled.cache_clear()
    with pytest.raises(RuntimeError, match="not drawn on this device"):
        noise.draw([1], 4, torch.device("cpu"))
