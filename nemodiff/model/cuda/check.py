"""Whether forwards in fixed shapes may stand in for eager torch on this machine: both are run, and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from nemodiff.model.cuda.fixed_attention import flash_attention
from nemodiff.model.cuda.graph_runner import BUDGETS, GraphRunner
from nemodiff.model.layout import Layout, groups, tree
from nemodiff.model.transformer import Transformer

#: How far a row's logits may lie apart, as a share of their own spread: what a dtype rounds off, added up over layers.
ROUNDING = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.08}
#: Tokens of the prompt, and tokens that follow it one by one.
PROMPT, STEPS = 24, 8


class Disagreement(Exception):
    """What is wrong, as the end of a sentence."""


def checked_runner(
    model: Transformer, make: Callable[..., GraphRunner] = GraphRunner
) -> tuple[GraphRunner | None, list[str]]:
    """(a runner that passed `compare`, None where none did; what was tried and failed, a line each).

    flash-attn is tried where it loads, then torch's SDPA. make: takes the model and flash-attn's function.
    """
    flash, broken = flash_attention(model.device, model.dtype)
    failures = [f"{broken}." if broken else ""]
    for attention in (flash, None) if flash else (None,):
        name = "flash-attn in CUDA graphs" if attention else "CUDA graphs"
        try:
            runner = make(model, attention)
            compare(runner)
        except Disagreement as error:
            failures.append(f"{name} failed the check on loading: {error}.")
        except torch.OutOfMemoryError:
            failures.append(f"{name} failed the check on loading: there is not enough memory on the GPU for it.")
        except Exception as error:  # noqa: BLE001 - whatever a driver, a kernel or an extension raises
            failures.append(f"{name} failed the check on loading: {_first_line(error)}.")
        else:
            return runner, [line for line in failures if line]
        if model.device.type == "cuda":
            torch.cuda.empty_cache()
    return None, [line for line in failures if line]


@torch.inference_mode()
def compare(runner: GraphRunner) -> None:
    """Run a short prompt and what follows in all kinds of forwards, through `runner` and through its model in eager
    torch. Raises Disagreement where greedy tokens differ, or logits by more than their dtype rounds off."""
    model, config = runner.model, runner.config
    vocabulary, device, mask = config.vocab_size, model.device, config.mask_token_id
    block = min(config.block_size, BUDGETS[-1])
    prompt = (torch.arange(PROMPT, device=device) * 7919 + 11) % vocabulary
    cache = model.new_cache(PROMPT + STEPS + 2 * BUDGETS[-1])
    newest = model.forward(prompt, cache, rows=slice(-1, None)).logits[0].argmax(-1, keepdim=True)
    cache.keep(PROMPT)
    eager, fixed = cache.copy(), runner.lane_cache(cache, "check")

    def both(
        what: str, tokens: Tensor, layout: Layout | None = None, causal: bool = True, adapter: bool = False
    ) -> Tensor:
        with _plain(model):
            theirs = model.forward(tokens, eager, causal=causal, layout=layout, adapter=adapter).logits
        ours = runner.forward(tokens, fixed, causal=causal, layout=layout, adapter=adapter, few=1)
        verified = layout.plain if layout else len(tokens) if causal else 0
        best = ours.best.tokens[:, 0].to(device) if ours.best else ours.logits.argmax(-1)
        _hold(what, ours.logits, best, theirs, verified, mask)
        return theirs

    for _ in range(STEPS):
        newest = both("one token", newest)[0].argmax(-1, keepdim=True)
        for kept in (eager, fixed):
            kept.keep(1)
    tokens = (torch.arange(block, device=device) * 31 + 5) % vocabulary
    masked = tokens.clone()
    if mask is not None:
        masked[1:] = mask
        both("a block to denoise", masked, causal=False)
        both("a draft", masked, causal=False, adapter=True)
    both("a block to verify", tokens)
    for kept in (eager, fixed):
        kept.keep(min(3, block))
    if mask is not None:
        layout = groups(2, 4, again=False, device=device)
        rows = torch.cat((tokens[:3], torch.full((layout.rows - 3,), mask, device=device)))
        both("a quadratic draft", rows, layout, adapter=True)
        layout = tree((-1, 0, 0, 1, 1), (3,), 4, device)
        rows = torch.cat((tokens[:5], torch.full((layout.rows - 5,), mask, device=device)))
        both("a tree of drafts", rows, layout, adapter=True)
        for kept in (eager, fixed):
            kept.keep([0, 1, 3])
    both("one token after all of these", newest)
    runner.forget("check")


@contextmanager
def _plain(model: Transformer) -> Iterator[None]:
    """Eager torch in natural shapes with its own attention: fixed-shape products round more in half precision."""
    exact, model.exact = model.exact, False
    try:
        yield
    finally:
        model.exact = exact


def _hold(what: str, ours: Tensor, best: Tensor, theirs: Tensor, verified: int, mask: int | None) -> None:
    """Raises Disagreement. ours, theirs: [rows, vocab]; best: the tokens that were read off ours; verified: how
    many rows, the first, may propose the mask."""
    a, b = ours.float(), theirs.float()
    if not bool(torch.isfinite(b).all()):
        raise Disagreement(f"eager torch gave values that are no numbers for {what}")
    spread = (b - b.mean(-1, keepdim=True)).norm(dim=-1).clamp_min(1e-6)
    apart = float(((a - b).norm(dim=-1) / spread).max())
    most = ROUNDING[ours.dtype]
    if not apart <= most:  # also where it is no number
        raise Disagreement(
            f"the logits of {what} differ from eager torch's by {apart:.1%} of their spread, and "
            f"{str(ours.dtype).removeprefix('torch.')} rounds off {most:.1%} at most"
        )
    if mask is not None:
        b[verified:, mask] = -torch.inf
    wanted = b.argmax(-1, keepdim=True)
    # Two tokens closer than the rounding are equals: either may be the best one.
    lead = (b.gather(1, wanted) - b.gather(1, best[:, None]))[:, 0]
    if bool((lead > 2 * most * spread / b.shape[-1] ** 0.5).any()):
        raise Disagreement(f"the greedy tokens of {what} are not eager torch's")


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return (text.splitlines()[0].rstrip(".")[:200] if text else "") or type(error).__name__
