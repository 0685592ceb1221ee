"""The noise of a temperature, drawn on the GPU: the very numbers that torch's generator draws on a CPU.

That generator is a Mersenne Twister, made anew for every answer position; its numbers follow one another, so each row
of noise is one block of threads that twists the state as far as the vocabulary goes. Not run on a GPU by this project:
the same source, compiled for a CPU, is held against torch by the tests, and on a GPU it is before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

#: Threads of a block.
_THREADS = 256
#: How far numbers may lie apart: logarithms are rounded differently.
_CLOSE = 1e-4

SOURCE = r"""
__device__ unsigned twisted(unsigned upper, unsigned lower, unsigned far) {
    unsigned mixed = (upper & 0x80000000u) | (lower & 0x7fffffffu);
    return far ^ (mixed >> 1) ^ ((lower & 1u) ? 0x9908b0dfu : 0u);
}

__device__ unsigned tempered(unsigned y) {
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

/* -log of exponentially distributed numbers, a row of `size` per block, of generators seeded with seeds[row]. */
extern "C" __global__ void gumbel(const long long* seeds, float* out, int size) {
    __shared__ unsigned states[2][624];
    unsigned* old = states[0];
    unsigned* made = states[1];
    int thread = threadIdx.x, threads = blockDim.x;
    float* row = out + (long long)blockIdx.x * size;
    if (thread == 0) {
        old[0] = (unsigned)(seeds[blockIdx.x] & 0xffffffffLL);
        for (int i = 1; i < 624; i++) old[i] = 1812433253u * (old[i - 1] ^ (old[i - 1] >> 30)) + i;
    }
    __syncthreads();
    for (int base = 0; base < size; base += 312) {
        for (int i = thread; i < 227; i += threads) made[i] = twisted(old[i], old[i + 1], old[i + 397]);
        __syncthreads();
        for (int i = 227 + thread; i < 454; i += threads) made[i] = twisted(old[i], old[i + 1], made[i - 227]);
        __syncthreads();
        for (int i = 454 + thread; i < 623; i += threads) made[i] = twisted(old[i], old[i + 1], made[i - 227]);
        if (thread == 0) made[623] = twisted(old[623], made[0], made[396]);
        __syncthreads();
        for (int i = thread; i < 312 && base + i < size; i += threads) {
            unsigned long long bits = tempered(made[2 * i]);
            bits = (bits << 32) | tempered(made[2 * i + 1]);
            double uniform = (double)(bits & ((1ULL << 53) - 1)) * (1.0 / 9007199254740992.0);
            row[base + i] = -logf((float)(-log1p(-uniform)));
        }
        unsigned* swapped = old;
        old = made;
        made = swapped;
    }
}
"""


def draw(seeds: Sequence[int], size: int, device: torch.device, kernel: Callable[..., None] | None = None) -> Tensor:
    """Gumbel noise [seeds, size] on a GPU: a row a seed of torch's CPU generator. kernel: `compiled(device)`."""
    out = torch.empty(len(seeds), size, device=device)
    given = torch.tensor(list(seeds), dtype=torch.long, device=device)
    run = kernel or compiled(device)[0]
    if run is None:
        raise RuntimeError("noise is not drawn on this device")
    run(grid=(len(seeds), 1, 1), block=(_THREADS, 1, 1), args=[given, out, size])
    return out


@cache
def compiled(device: torch.device) -> tuple[Any | None, str | None]:
    """(the kernel, None where it cannot be used; why not, as a sentence's beginning). Held against torch's draws."""
    if device.type != "cuda":
        return None, None
    try:
        kernel = torch.cuda._compile_kernel(SOURCE, "gumbel")
        seeds, size = (5, 2**32 - 1), 1000
        found = draw(seeds, size, device, kernel).cpu()
    except Exception as error:  # noqa: BLE001 - whatever a compiler or a driver raises
        text = str(error).strip() or type(error).__name__
        return None, f"Noise is drawn on the CPU: {text.splitlines()[0].rstrip('.')[:200]}"
    apart = float((found - torch.stack([on_cpu(seed, size) for seed in seeds])).abs().max())
    if not apart <= _CLOSE:
        return None, f"Noise is drawn on the CPU: the GPU drew other numbers (apart by {apart:.2g})"
    return kernel, None


def on_cpu(seed: int, size: int) -> Tensor:
    """A row of `draw` as torch draws it: [size]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(size, dtype=torch.float32).exponential_(generator=generator).log_().neg_()
