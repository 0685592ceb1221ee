"""`python -m nemodiff train draft-head`: a draft head learns from what groups of masks guess along AR's own answers."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor

from nemodiff.decode import Prefill
from nemodiff.decode.drafts import guessed
from nemodiff.engine.loading import load
from nemodiff.engine.local import Engine
from nemodiff.model.draft_head import CANDIDATES, DraftHead, Guessed, HeadConfig, load_head, save_head, weighed
from nemodiff.model.layout import groups
from nemodiff.model.output import Output
from nemodiff.request import Request
from nemodiff.samplers.trained import principal_components
from nemodiff.training.sampler import descend
from nemodiff.training.sampler_run import prompts_of
from nemodiff.training.stacked import Stacked, kept

#: Masks of a group; tokens of an answer that one forward takes, each with its group.
MASKS, TOGETHER = 7, 8
#: Of the time that prompts are collected in: the share of open ones, and of held-out ones.
OPEN_SHARE, HELD_OUT_SHARE = 0.6, 0.15
#: Which of the candidates is right where the answer has none.
ELSEWHERE = -100
#: Largest learning rate of a new head.
RATE = 2e-3
#: How much more often training draws a group that decoding would use than another one.
_USED = 2


@dataclass(slots=True)
class DraftStates(Stacked):
    """Groups of masks behind tokens of AR's answers, stacked.

    text: int32 [n, 2 + masks], the token that a group stands behind and those that follow it, -1 after the answer's
    end. predicted_tokens, predicted_shares: [n, candidates], what the verifier's row of that token said of the next
    one. tokens, log_shares: [n, masks, candidates], what the masks said of those after it. Tokens are int32, shares
    logarithms in fp16.
    """

    text: Tensor
    predicted_tokens: Tensor
    predicted_shares: Tensor
    tokens: Tensor
    log_shares: Tensor

    @property
    def has(self) -> Tensor:
        """Which places of groups the answers have: bool [n, masks]."""
        return self.text[:, 2:] >= 0

    @property
    def guesses(self) -> Guessed:
        """[n, 1 + masks, candidates]: what a DraftHead takes."""
        tokens = torch.cat((self.predicted_tokens[:, None], self.tokens), 1)
        shares = torch.cat((self.predicted_shares[:, None], self.log_shares), 1)
        return Guessed(tokens.long(), shares.float())


def collect(
    engine: Engine,
    requests: Iterable[Request],
    *,
    seconds: float = math.inf,
    report: Callable[[str], None] = lambda line: None,
) -> DraftStates:
    """Groups along the answers to as many requests as fit into `seconds`. Raises ValueError where no answer is long
    enough."""
    parts: list[DraftStates] = []
    began = time.monotonic()
    for done, request in enumerate(requests, 1):
        parts += _along(engine, request)
        if done % 20 == 0:
            report(f"{done} prompts, {sum(map(len, parts)):,} groups")
        if time.monotonic() - began > seconds:
            break
    if not parts:
        raise ValueError("no answer has three tokens")
    return DraftStates.join(parts)


def _along(engine: Engine, request: Request) -> list[DraftStates]:
    answer, ids, model = engine.generate(request).lanes[0].tokens, engine.encode(request), engine.model
    layout = groups(TOGETHER - 1, MASKS, again=False, device=model.device)
    cache = Prefill(model, ids, len(ids) + len(answer) + layout.rows).cache
    padded, states = [*answer, *[-1] * (TOGETHER + 1 + MASKS)], []
    aligned = not model.config.shift_logits
    for start in range(0, len(answer) - 2, TOGETHER):
        block = [max(token, 0) for token in padded[start : start + TOGETHER]]
        inputs = torch.tensor(block + [model.config.mask] * (TOGETHER * MASKS), device=model.device)
        output = model.forward(inputs, cache, layout=layout, few=CANDIDATES)
        real = min(TOGETHER, len(answer) - 2 - start)
        states.append(_states(output, padded[start:], real, model.config.mask, aligned))
        cache.keep(min(TOGETHER, len(answer) - start))
    return states


def _states(output: Output, text: Sequence[int], real: int, mask: int, aligned: bool) -> DraftStates:
    """Of one forward over TOGETHER tokens and their groups, the first `real`. Where logits are aligned a group's first
    mask guesses the place that the verifier decides, and nothing is learned from it."""
    first, own = guessed(output[:TOGETHER], CANDIDATES, None), guessed(output[TOGETHER:], CANDIDATES, mask)
    shape = (TOGETHER, MASKS, own.tokens.shape[-1])
    tokens, log_shares = own.tokens.view(shape)[:real, aligned:], own.log_shares.view(shape)[:real, aligned:]
    width = 2 + tokens.shape[1]
    return DraftStates(
        torch.tensor([text[row : row + width] for row in range(real)], dtype=torch.int32),
        first.tokens[:real].int().cpu(),
        first.log_shares[:real].half().cpu(),
        tokens.int().cpu(),
        log_shares.half().cpu(),
    )


def new_head(embedding: Tensor, seed: int = 0, **sizes: int) -> DraftHead:
    """A head of these sizes for a model's embedding table [vocab, hidden], which changes nothing yet: its weights of
    all pairs are 1."""
    torch.manual_seed(seed)
    head = DraftHead(HeadConfig(*embedding.shape, **sizes))
    table = embedding.detach().float().cpu()
    head.mean, head.projection = principal_components(table, head.config.components)
    for weight in (head.out.weight, head.out.bias, head.pair.weight):
        torch.nn.init.zeros_(weight)
    head.attach(embedding)
    return head


def log_shares_of(head: DraftHead | None, states: DraftStates) -> tuple[Tensor, Tensor]:
    """(log shares [n, masks, candidates + 1] of the guesses for places, behind the answer's own tokens; which of them
    are the answer's next [n, masks], ELSEWHERE where it has ended). The last column is all that is no candidate. head:
    None leaves the guesses as they are."""
    text, guesses = states.text.long(), states.guesses
    own = Guessed(guesses.tokens[:, 1:], guesses.log_shares[:, 1:])
    log_shares = own.log_shares
    if head is not None:
        before, tokens = Guessed(guesses.tokens[:, :-1], guesses.log_shares[:, :-1]), text[:, 1:-1].clamp_min(0)
        parents = Guessed(tokens[..., None], before.of(tokens)[..., None])
        log_shares = weighed(own, head(guesses, parents, text[:, :2]))[:, :, 0]
    rest = (1 - log_shares.exp().sum(-1, keepdim=True)).clamp_min(1e-6).log()
    hit = own.tokens == text[:, 2:, None]
    found = torch.where(hit.any(-1), hit.int().argmax(-1), hit.shape[-1])
    return torch.cat((log_shares, rest), -1), found.where(states.has, ELSEWHERE)


def train_head(
    head: DraftHead,
    kinds: Sequence[DraftStates],
    *,
    steps: int = 1500,
    batch: int = 256,
    rate: float = RATE,
    seed: int = 0,
) -> list[float]:
    """Fit the head by cross-entropy over the candidates and all that is none; the loss of every step. Every kind of
    states gives as many groups to a step, those that decoding uses more often than others. A place counts the less the
    further it is, as it is reached less often."""
    generator = torch.Generator().manual_seed(seed)
    often = [torch.cat((torch.arange(len(states)), *[used(states).nonzero()[:, 0]] * (_USED - 1))) for states in kinds]
    optimizer = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=0.02)
    losses: list[float] = []
    head.train().requires_grad_(True)
    for step in range(steps):
        loss = torch.zeros(())
        for states, known in zip(kinds, often, strict=True):
            chosen = states[known[torch.randint(len(known), (batch // len(kinds),), generator=generator)]]
            log_shares, found = log_shares_of(head, chosen)
            counts = chosen.has * torch.arange(1, 1 + found.shape[1]).rsqrt()
            each = F.nll_loss(log_shares.transpose(1, 2), found, reduction="none", ignore_index=ELSEWHERE)
            loss = loss + (each * counts).sum() / counts.sum() / len(kinds)
        descend(optimizer, loss, rate, step, steps)
        losses.append(loss.item())
    head.eval().requires_grad_(False)
    return losses


def used(states: DraftStates) -> Tensor:
    """Which groups decoding would use: bool [n]. A cycle goes on behind the last draft that it accepts (here of a chain
    without a head), and the groups behind those before it are thrown away. So the used ones stand where drafts fail."""
    _, lengths = _accepted(None, states)
    goes_on = [False, *(states.text[1:, :-1] == states.text[:-1, 1:]).all(1).tolist()]  # the same answer
    found, start = [], 0
    for index, length in enumerate(lengths.tolist()):
        if not goes_on[index]:
            start = index
        found.append(index == start)
        if index == start:
            start += int(length) + 1
    return torch.tensor(found)


@torch.no_grad()
def _accepted(head: DraftHead | None, states: DraftStates) -> tuple[Tensor, Tensor]:
    """(of every place whether its likeliest draft is the answer's token, bool [n, masks]; of every group how many of
    its drafts are accepted, [n])."""
    right = []
    for start in range(0, len(states), 1024):
        log_shares, found = log_shares_of(head, states[start : start + 1024])
        right.append(log_shares[..., :-1].argmax(-1) == found)
    grid = torch.cat(right)
    return grid, grid.float().cumprod(1).sum(1)


def hits(head: DraftHead | None, states: DraftStates) -> tuple[list[float], float]:
    """(of the places at every distance the share whose likeliest draft is the answer's token, behind the answer's own
    one before it; how many drafts of a chain are accepted, on average over groups whose places the answer all has)."""
    right, lengths = _accepted(head, states)
    shares = (right.float().sum(0) / states.has.sum(0)).tolist()
    return shares, float(lengths[states.has.all(1)].mean())


def run(
    checkpoint: str,
    out: Path,
    *,
    minutes: float,
    steps: int,
    states_file: Path | None = None,
    device: str | None = None,
    dtype: str | None = None,
    seed: int = 0,
    start: Path | None = None,
) -> str:
    """Collect groups for `minutes`, train, save; returns what it reports.

    states_file: where the groups are kept; those of an earlier run are used in place of new ones. start: folder of a
    head to go on from, at a quarter of the rate. Raises CheckpointError for one of another model.
    """
    engine = load(checkpoint, device=device, dtype=dtype, report=print)
    parts = kept(states_file, DraftStates, lambda: _collected(engine, minutes, seed))
    trained, held_out = parts[:2], {"structured": parts[2], "open": parts[3]}
    if start:
        head = load_head(start)
        head.attach(engine.model.embed.weight)
    else:
        head = new_head(engine.model.embed.weight, seed)
    losses = train_head(head, trained, steps=steps, seed=seed, rate=RATE / 4 if start else RATE)
    figures: dict[str, object] = {
        "groups": sum(map(len, trained)),
        "steps": steps,
        "loss": round(fmean(losses[-50:]), 4),
    }
    for kind, states in held_out.items():
        for name, one in (("", head), ("_without", None)):
            shares, accepted = hits(one, states)
            figures[f"{kind}_hits{name}"] = [round(share, 3) for share in shares]
            figures[f"{kind}_accepted{name}"] = round(accepted, 3)
    path = save_head(head, out, {"checkpoint": engine.checkpoint, "trained": figures})
    return f"{json.dumps(figures, indent=2)}\n{path} ({path.stat().st_size / 1e6:.2f} MB)"


def _collected(engine: Engine, minutes: float, seed: int) -> list[DraftStates]:
    """Structured and open groups to learn from, then held-out ones of both kinds."""
    parts = []
    for held_out, of_all in ((False, 1 - HELD_OUT_SHARE), (True, HELD_OUT_SHARE)):
        for open_share, share in ((0.0, 1 - OPEN_SHARE), (1.0, OPEN_SHARE)):
            prompts = prompts_of(100_000 if not held_out else 10_000, seed, held_out=held_out, open_share=open_share)
            asked = (Request(prompt=prompt, modes=("self-speculation",), draft="tree") for prompt in prompts)
            parts.append(collect(engine, asked, seconds=60 * minutes * of_all * share, report=print))
    return parts
