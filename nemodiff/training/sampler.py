"""Training of the sampler on a checkpoint's own denoising trajectories."""

import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nemodiff.engine.local import Engine
from nemodiff.request import ORDERS
from nemodiff.samplers.trained import FIGURES, SIZES, SamplerConfig, TrainedSampler, principal_components, with_logs
from nemodiff.training.trajectories import States, trajectories

#: Steps of training between two looks at the tuning states.
CHECK = 50


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
    """States of the prompts' trajectories, the orders taking turns, of as many prompts as fit into `seconds`."""
    parts: list[States] = []
    began = time.monotonic()
    for done, prompt in enumerate(prompts, 1):
        order = ORDERS[done % len(ORDERS)]
        parts += trajectories(engine, prompt, block_length, table, max_new_tokens=max_new_tokens, order=order)
        if done % 20 == 0:
            report(f"{done} of {len(prompts)} prompts, {sum(len(part) for part in parts):,} forwards")
        if time.monotonic() - began > seconds:
            break
    return States.join(parts)


def train_sampler(
    sampler: TrainedSampler,
    states: States,
    *,
    tuning: States | None = None,
    steps: int = 600,
    batch: int = 256,
    rate: float = 1e-3,
    seed: int = 0,
) -> list[float]:
    """Fit the sampler to `states` by binary cross-entropy over the counted positions; the loss of every step.

    tuning: states whose loss, taken every CHECK steps, decides which weights are kept (without: the last ones). Half of
    the states hide their embeddings and the others' are blurred: a few thousand blocks would be learned by heart.
    """
    generator = torch.Generator().manual_seed(seed)
    flat = with_logs(states.features[states.masked].float())
    sampler.spread[0], sampler.spread[1] = flat.mean(0), flat.std(0).clamp_min(1e-3)
    optimizer = torch.optim.AdamW(sampler.parameters(), lr=rate, weight_decay=0.05)
    losses: list[float] = []
    best: tuple[float, dict[str, Tensor]] = (math.inf, {})
    sampler.train().requires_grad_(True)
    for step in range(steps):
        chosen = torch.randint(len(states), (batch,), generator=generator)
        features = _blurred(sampler, states.features[chosen].float(), generator)
        logits, counted = sampler(features, states.masked[chosen]), states.counted[chosen]
        loss = F.binary_cross_entropy_with_logits(logits[counted], states.right[chosen][counted].float())
        descend(optimizer, loss, rate, step, steps)
        losses.append(loss.item())
        if tuning and (step + 1) % CHECK == 0:
            logits, _, right = scores(sampler, tuning)
            held_out = F.binary_cross_entropy_with_logits(logits, right.float()).item()
            if held_out < best[0]:
                best = held_out, {name: tensor.clone() for name, tensor in sampler.state_dict().items()}
    if best[1]:
        sampler.load_state_dict(best[1])
    sampler.eval().requires_grad_(False)
    return losses


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float, step: int, steps: int) -> None:
    """One step of training at a learning rate that rises to `rate` within 50 steps and falls as a cosine."""
    for group in optimizer.param_groups:
        group["lr"] = rate * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([one for group in optimizer.param_groups for one in group["params"]], 1.0)
    optimizer.step()


def _blurred(sampler: TrainedSampler, features: Tensor, generator: torch.Generator) -> Tensor:
    """features [batch, positions, features] whose embeddings are noisy, and those of half the batch their mean."""
    width = sampler.config.features - FIGURES
    mean, deviation = sampler.spread[:, :width]
    noisy = features[..., :width] + deviation * torch.randn(*features.shape[:-1], width, generator=generator)
    hidden = torch.rand(len(features), 1, 1, generator=generator) < 0.5
    return torch.cat((torch.where(hidden, mean, noisy), features[..., width:]), -1)


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
