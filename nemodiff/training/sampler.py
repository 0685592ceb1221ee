"""Training of the sampler on a checkpoint's own denoising trajectories."""

import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nemodiff.engine import Engine
from nemodiff.samplers.trained import SIZES, SamplerConfig, TrainedSampler, principal_components
from nemodiff.training.trajectories import States, trajectories


def new_sampler(engine: Engine, size: str, seed: int = 0) -> TrainedSampler:
    """An untrained sampler for this engine's model, its embedding compression ready."""
    torch.manual_seed(seed)
    embedding = engine.model.embed.weight
    layers, width, heads = SIZES[size]
    sampler = TrainedSampler(SamplerConfig(layers, width, heads, *embedding.shape))
    sampler.mean, sampler.projection = principal_components(embedding.cpu(), sampler.config.components)
    sampler.attach(embedding)
    return sampler


def collect(
    engine: Engine,
    prompts: list[str],
    block_length: int,
    table: Tensor,
    *,
    max_new_tokens: int = 96,
    seconds: float = math.inf,
    report: Callable[[str], None] = lambda line: None,
) -> States:
    """States of the prompts' trajectories, of as many prompts as fit into `seconds`."""
    parts, began = [], time.monotonic()
    for done, prompt in enumerate(prompts, 1):
        parts += trajectories(engine, prompt, block_length, table, max_new_tokens=max_new_tokens)
        if done % 20 == 0:
            report(f"{done} of {len(prompts)} prompts, {sum(map(len, parts)):,} forwards")
        if time.monotonic() - began > seconds:
            break
    return States.join(parts)


def train_sampler(
    sampler: TrainedSampler, states: States, *, steps: int = 2000, batch: int = 256, rate: float = 1e-3, seed: int = 0
) -> list[float]:
    """Fit the sampler to `states` by binary cross-entropy over the counted positions; the loss of every step."""
    generator = torch.Generator().manual_seed(seed)
    flat = states.features[states.masked].float()
    sampler.spread[0], sampler.spread[1] = flat.mean(0), flat.std(0).clamp_min(1e-3)
    optimizer = torch.optim.AdamW(sampler.parameters(), lr=rate, weight_decay=0.01)
    losses = []
    sampler.train().requires_grad_(True)
    for step in range(steps):
        chosen = torch.randint(len(states), (batch,), generator=generator)
        loss = _loss(sampler, states, chosen)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(sampler.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    sampler.eval().requires_grad_(False)
    return losses


def _loss(sampler: TrainedSampler, states: States, chosen: Tensor) -> Tensor:
    logits = sampler(states.features[chosen].float(), states.masked[chosen])
    counted = states.counted[chosen]
    return F.binary_cross_entropy_with_logits(logits[counted], states.right[chosen][counted].float())


@torch.no_grad()
def scores(sampler: TrainedSampler, states: States) -> tuple[Tensor, Tensor, Tensor]:
    """(logit, confidence, right) of every counted position, each [n]."""
    logits = torch.cat(
        [
            sampler(features.float(), masked)
            for features, masked in zip(states.features.split(512), states.masked.split(512), strict=True)
        ]
    )
    return logits[states.counted], states.confidence.float()[states.counted], states.right[states.counted]


def calibrate(sampler: TrainedSampler, states: States) -> None:
    """Scale and shift the logits so that on held-out states their probabilities are right on average (Platt)."""
    logits, _, right = scores(sampler, states)
    values = torch.tensor([1.0, 0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([values], max_iter=100)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(logits * values[0] + values[1], right.float())
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    scale, bias = values.tolist()
    sampler.bias.mul_(scale).add_(bias)
    sampler.scale.mul_(scale)
