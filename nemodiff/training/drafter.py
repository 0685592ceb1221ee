"""The drafter LoRA: a low-rank update of `o_proj` that is on while drafting alone, so that AR and verification keep
their bits (section 5 of the model's paper, "drafter LoRA").

The verifier is the model itself, without the update: the clean stream. Its keys and values are computed once, without
gradients; a second pass runs the noisy blocks alone, over them, with the update.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from nemodiff.engine.devices import training_dtype
from nemodiff.engine.loading import load
from nemodiff.errors import CheckpointError
from nemodiff.model.config import ModelConfig
from nemodiff.model.transformer import Transformer
from nemodiff.model.weights import lora_names
from nemodiff.training.data import Batch, Mixture
from nemodiff.training.dual_stream import Backbone, Span, Stream, attend, final_norm, glu, norm, rotary
from nemodiff.training.joint import to_device
from nemodiff.training.noisy_copies import DRAFT_WAYS
from nemodiff.training.progress import log_figures, read_state, save_state

#: Tokens of each side's best that the two distributions are compared over, and at which temperature.
TOP, TEMPERATURE = 200, 3.0


class Drafter(nn.Module):
    """Factors A [rank, heads · head_dim] and B [hidden, rank] for the o_proj of every layer; B begins at zero."""

    def __init__(self, backbone: Backbone, rank: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.rank = rank
        self.a, self.b = nn.ParameterList(), nn.ParameterList()
        for layer in backbone.layers:
            rows, columns = layer["o"].shape
            self.a.append(nn.Parameter(torch.randn(rank, columns, generator=generator) / columns**0.5))
            self.b.append(nn.Parameter(torch.zeros(rows, rank)))

    def forward(self, x: Tensor, layer: int) -> Tensor:
        """What the update adds to o_proj's output for its inputs x [rows, heads · head_dim]."""
        return functional.linear(functional.linear(x, self.a[layer].to(x.dtype)), self.b[layer].to(x.dtype))


@dataclass
class Clean:
    """The clean stream's hidden states [tokens, hidden], and each layer's keys and values [tokens, key heads, d]."""

    hidden: Tensor
    keys: list[Tensor]
    values: list[Tensor]


def _layers(
    backbone: Backbone,
    x: Tensor,
    positions: Tensor,
    spans: list[Span],
    before: Clean | None,
    update: Callable[[Tensor, int], Tensor] | None,
) -> Clean:
    """All layers over rows x [rows, hidden], which see each other and what is `before` them as the spans say."""
    angles = positions[:, None, None].float() * backbone.inverse_frequencies
    cos, sin = angles.cos(), angles.sin()
    queries, width = backbone.heads, backbone.head_dim
    rotated = queries + backbone.kv_heads
    keys, values = [], []
    for i, layer in enumerate(backbone.layers):
        qkv = functional.linear(norm(x, layer["input_norm"], backbone.eps), layer["qkv"]).view(len(x), -1, width)
        qk, v = rotary(qkv[:, :rotated], cos, sin), qkv[:, rotated:]
        k = qk[:, queries:]
        keys.append(k)
        values.append(v)
        if before is not None:
            k, v = torch.cat((before.keys[i], k)), torch.cat((before.values[i], v))
        mixed = attend(qk[:, :queries], k, v, spans).reshape(len(x), -1)
        out = functional.linear(mixed, layer["o"])
        x = x + (out if update is None else out + update(mixed, i))
        x = x + functional.linear(
            glu(functional.linear(norm(x, layer["post_norm"], backbone.eps), layer["gate_up"])), layer["down"]
        )
    return Clean(x, keys, values)


def _embedded(backbone: Backbone, stream: Stream, rows: slice) -> Tensor:
    x = functional.embedding(stream.tokens[rows], backbone.embedding)
    if backbone.mask_embedding is None:
        return x
    return torch.where(stream.masked[rows, None], backbone.mask_embedding.to(x.dtype), x)


@torch.no_grad()
def clean_pass(backbone: Backbone, stream: Stream, count: int) -> Clean:
    """The first `count` tokens of a stream, the clean ones."""
    spans = [span for span in stream.spans if span.queries[1] <= count]
    return _layers(backbone, _embedded(backbone, stream, slice(count)), stream.positions[:count], spans, None, None)


def draft_pass(backbone: Backbone, stream: Stream, clean: Clean, drafter: Drafter | None) -> Tensor:
    """Hidden states [noisy, hidden] of the noisy tokens behind the clean ones; with gradients for the drafter."""
    count = len(clean.hidden)
    spans = [
        replace(span, queries=(span.queries[0] - count, span.queries[1] - count))
        for span in stream.spans
        if span.queries[0] >= count
    ]
    x = _embedded(backbone, stream, slice(count, None))
    return _layers(backbone, x, stream.positions[count:], spans, clean, drafter).hidden


@dataclass
class Drafts:
    """Logits of drafts and of the verifier at the same targets [targets, words], and the block of each target."""

    draft: Tensor
    verifier: Tensor
    blocks: Tensor

    @property
    def counted(self) -> Tensor:
        """The targets that a cycle reaches: those before the first one of their block that is rejected, and it."""
        hits = (self.draft.argmax(-1) == self.verifier.argmax(-1)).tolist()
        reached, alive, last = [], True, None
        for hit, block in zip(hits, self.blocks.tolist(), strict=True):
            alive, last = alive or block != last, block
            reached.append(alive)
            alive = alive and hit
        return torch.tensor(reached, dtype=torch.bool, device=self.draft.device)

    def accepted(self) -> tuple[int, int]:
        """(drafts accepted, blocks) under greedy verification, teacher-forced."""
        hits = self.draft.argmax(-1) == self.verifier.argmax(-1)
        return int((hits & self.counted).sum()), len(self.blocks.unique())


def drafts_of(backbone: Backbone, batch: Batch, head: Tensor, drafter: Drafter | None) -> Drafts:
    """What is drafted in a batch's noisy blocks, beside what the clean stream says there."""
    stream = batch.stream
    noisy = [span.queries[0] for span in stream.spans if bool(stream.masked[slice(*span.queries)].any())]
    count = min(noisy, default=len(stream.tokens))
    chosen = batch.noisy_clean >= 0  # ends of text after the end have no verifier
    clean = clean_pass(backbone, stream, count)
    rows = batch.clean_rows[batch.noisy_clean[chosen]]
    with torch.no_grad():
        verifier = (final_norm(backbone, clean.hidden[rows]) @ head.t()).float()
    hidden = draft_pass(backbone, stream, clean, drafter)
    draft = (final_norm(backbone, hidden[batch.noisy_rows[chosen] - count]) @ head.t()).float()
    return Drafts(draft, verifier, batch.blocks[chosen])


def drafter_loss(drafts: Drafts) -> Tensor:
    """Mean over the targets that a cycle reaches of λ · KL + (1 - λ) · L1 / 2 between verifier and draft at temperature
    3, over the union of the 200 best tokens of both, and of the cross-entropy with the verifier's best token.
    λ = exp(-0.5 · the share of the two distributions that overlaps), so that L1, which is what speculative sampling
    rejects by, counts for more where a draft is nearly right."""
    counted = drafts.counted
    draft, verifier = drafts.draft[counted], drafts.verifier[counted]
    top = min(TOP, draft.shape[-1])
    union = torch.zeros_like(verifier, dtype=torch.bool)
    union.scatter_(1, verifier.topk(top).indices, True).scatter_(1, draft.detach().topk(top).indices, True)
    p = (verifier / TEMPERATURE).masked_fill(~union, -torch.inf).log_softmax(-1)
    q = (draft / TEMPERATURE).masked_fill(~union, -torch.inf).log_softmax(-1)
    with torch.no_grad():
        overlap = torch.minimum(verifier.softmax(-1), draft.softmax(-1)).sum(-1)
        share = torch.exp(-0.5 * overlap)
    kl = (p.exp() * (p - q).masked_fill(~union, 0.0)).sum(-1)
    l1 = (p.exp() - q.exp()).abs().sum(-1)
    hard = functional.cross_entropy(draft, verifier.argmax(-1), reduction="none")
    return (share * kl + (1 - share) * l1 / 2 + hard).mean()


def export_drafter(drafter: Drafter, config: ModelConfig, folder: Path, trained: dict[str, Any]) -> Path:
    """Write the update in PEFT's layout, in bfloat16: adapter_model.safetensors and adapter_config.json."""
    tensors = {}
    for layer, (a, b) in enumerate(zip(drafter.a, drafter.b, strict=True)):
        for name, factor in zip(lora_names(config, layer), (a, b), strict=True):
            tensors[name] = factor.detach().bfloat16().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"peft_type": "LORA", "r": drafter.rank, "lora_alpha": drafter.rank, "target_modules": ["o_proj"]}
    (folder / "adapter_config.json").write_text(
        json.dumps({**settings, "bias": "none", "trained": trained}, indent=2) + "\n", encoding="utf-8"
    )
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder / "adapter_model.safetensors"


@dataclass(slots=True)
class Settings:
    """One run; stored in its state. budget: stream tokens per step."""

    checkpoint: str
    out: str
    chat: str | None = None
    minutes: float = 30.0
    rank: int = 16
    budget: int = 2400
    learning_rate: float = 1e-3
    seed: int = 0
    device: str = "cpu"
    save_minutes: float = 3.0


class Run:
    """The drafter in training, and the file in which it is kept."""

    def __init__(self, settings: Settings, *, resume: bool = False) -> None:
        from transformers import AutoTokenizer

        self.settings, self.out = settings, Path(settings.out)
        engine = load(settings.checkpoint, device=settings.device, dtype=training_dtype(settings.device))
        model = engine.model
        if not isinstance(model, Transformer):
            raise CheckpointError("Training needs weights in floats: choose bfloat16 or float32.")
        self.config, self.checkpoint = model.config, engine.checkpoint
        self.backbone = Backbone.of(model)
        self.data = Mixture(
            AutoTokenizer.from_pretrained(engine.tokenizer.folder),
            Path(settings.chat) if settings.chat else None,
            seed=settings.seed,
            mask_id=model.config.mask,
            neutral_share=0.0,
        )
        vocabulary = self.data.vocabulary(len(self.backbone.head))
        self.restricted = torch.full((len(self.backbone.head),), -1, dtype=torch.long)
        self.restricted[vocabulary] = torch.arange(len(vocabulary))
        self.head = self.backbone.head[vocabulary.to(settings.device)].contiguous()
        self.drafter = Drafter(self.backbone, settings.rank, settings.seed).to(settings.device)
        self.optimizer = torch.optim.AdamW(
            self.drafter.parameters(), settings.learning_rate, (0.9, 0.98), weight_decay=0
        )
        self.step, self.seconds = 0, 0.0
        if resume and (self.out / "state.pt").exists():
            state = read_state(self.out / "state.pt", settings.device, rank=settings.rank)
            self.drafter.load_state_dict(state["drafter"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = state["step"], state["seconds"]

    def batch(self, step: int, worker: int = 0) -> Batch:
        """The drafts of one step; worker 1's are never trained on."""
        budget, dtype = self.settings.budget, self.head.dtype
        batch = self.data.batch(step, worker, self.restricted, budget=budget, copies=2, dtype=dtype, ways=DRAFT_WAYS)
        return to_device(batch, self.settings.device)

    def train_step(self) -> dict[str, float]:
        """One step: its loss, and drafts accepted per block."""
        drafts = drafts_of(self.backbone, self.batch(self.step), self.head, self.drafter)
        loss = drafter_loss(drafts)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.drafter.parameters(), 1.0)
        progress = min(1.0, self.seconds / (60 * self.settings.minutes))
        fall = 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * progress))
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * min(1.0, (self.step + 1) / 20) * fall
        self.optimizer.step()
        accepted, blocks = drafts.accepted()
        return {"loss": round(loss.item(), 4), "accepted": round(accepted / max(blocks, 1), 3)}

    @torch.no_grad()
    def measure(self, batches: int = 8) -> dict[str, float]:
        """Drafts accepted per block in batches that training never draws, without the update and with it."""
        sums = {"without": [0, 0], "with": [0, 0]}
        for step in range(batches):
            batch = self.batch(step, worker=1)
            for name, drafter in (("without", None), ("with", self.drafter)):
                accepted, blocks = drafts_of(self.backbone, batch, self.head, drafter).accepted()
                sums[name][0] += accepted
                sums[name][1] += blocks
        return {name: round(accepted / max(blocks, 1), 3) for name, (accepted, blocks) in sums.items()}

    def save(self) -> None:
        """Write state.pt, whole or not at all."""
        state = {
            "settings": asdict(self.settings),
            "drafter": self.drafter.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        save_state(self.out, state)

    def train(self, report: Callable[[str], None] = print) -> None:
        """Train until the minutes, those before a resumption included, are over."""
        self.out.mkdir(parents=True, exist_ok=True)
        # Processor time, where there is such: a busy machine takes no minutes.
        clock = time.process_time if self.settings.device == "cpu" else time.monotonic
        saved = time.monotonic()
        while self.seconds < 60 * self.settings.minutes:
            began = clock()
            figures = self.train_step()
            self.step += 1
            self.seconds += clock() - began
            if self.step % 10 == 0:
                log_figures(self.out, {"step": self.step, "seconds": round(self.seconds, 1), **figures}, report)
            if time.monotonic() - saved > 60 * self.settings.save_minutes:
                self.save()
                saved = time.monotonic()
        self.save()

    def export(self, folder: Path) -> Path:
        """Write the update beside the adapter, where loading finds it."""
        trained = {"checkpoint": self.checkpoint, "steps": self.step, "minutes": round(self.seconds / 60, 1)}
        return export_drafter(self.drafter, self.config, folder, trained)
