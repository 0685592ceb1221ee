"""FixedForward: one shape of forward over one lane's cache, which also reads the best tokens off its logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nemodiff.model.cache import KVCache
from nemodiff.model.cuda.fixed_attention import FixedAttention
from nemodiff.model.layout import Layout
from nemodiff.model.output import Best, Output
from nemodiff.model.transformer import Transformer
from nemodiff.samplers.topk import largest

#: Best tokens of a row that every forward reads off: as many as a request may ask to see.
FEW = 20


@dataclass(frozen=True, slots=True)
class Kind:
    """What is fixed. rows: how many run. sees: causal, all (each other) or layout (what `visible` says)."""

    rows: int
    sees: Literal["causal", "all", "layout"]
    adapter: bool = False


class Inputs:
    """What changes from forward to forward, in buffers on the device.

    tokens, offsets: int64 [rows]; a row's position is the kept length plus its offset. length: int64 [1]. visible: bool
    [rows, rows]. plain: bool [rows, 1], rows that verify: they run without the adapter and may propose the mask.
    """

    def __init__(self, kind: Kind, device: torch.device) -> None:
        rows = kind.rows
        self._rows = torch.arange(rows, device=device)
        self.tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self.length = torch.zeros(1, dtype=torch.long, device=device)
        self.offsets = self._rows.clone()
        alone = torch.eye(rows, dtype=torch.bool, device=device)
        self.visible = {
            "causal": torch.ones_like(alone).tril(),
            "all": torch.ones_like(alone),
            "layout": alone.clone(),
        }[kind.sees]
        self._alone = alone
        self.plain = torch.full((rows, 1), kind.sees == "causal", device=device)

    def fill(self, tokens: Tensor, length: int, layout: Layout | None) -> None:
        """Set them for `tokens` [any number up to rows]; further rows see themselves and are read by nobody."""
        count = len(tokens)
        self.tokens[:count] = tokens
        self.length.fill_(length)
        if layout is not None:
            self.offsets[:count] = layout.positions
            self.visible.copy_(self._alone)
            self.visible[:count, :count] = layout.visible
            torch.lt(self._rows[:, None], layout.plain, out=self.plain)

    @property
    def all(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """As `FixedForward.compute` takes them."""
        return self.tokens, self.length, self.offsets, self.visible, self.plain


class FixedForward:
    """Calls nothing that reads a tensor on the host, and makes no tensor from host values.

    logits [rows, vocab] and read [rows, 2 * few + 1] float64 (the best tokens, their logits, the logarithm of the sum
    of all exponentials) are buffers of its own: they hold until this very forward runs again.
    """

    def __init__(self, model: Transformer, cache: KVCache, kind: Kind, attention: FixedAttention) -> None:
        self._model, self.kind, self._attention = model, kind, attention
        self._few = min(FEW, model.config.vocab_size)
        self._places = torch.arange(kind.rows, device=model.device)
        self._rotary = model.rotary(cache.capacity)
        self._shapes = model.rows if model.exact else None
        self.inputs = Inputs(kind, model.device)
        self.logits = torch.zeros(kind.rows, model.config.vocab_size, device=model.device, dtype=model.dtype)
        self.read = torch.zeros(kind.rows, 2 * self._few + 1, device=model.device, dtype=torch.float64)

    def compute(
        self, tokens: Tensor, length: Tensor, offsets: Tensor, visible: Tensor, plain: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(logits [rows, vocab], what was read off them [rows, 2 * few + 1]); the arguments are described in Inputs."""
        model, config, kind = self._model, self._model.config, self.kind
        rotation = self._rotary.at_each(length + offsets)
        attend = self._attention.at(length, length + self._places, visible)
        without: Tensor | int = 0
        if kind.sees == "layout":
            without = torch.nn.functional.pad(plain, (0, 0, 0, self._padded - kind.rows), value=True)
        x = model.run_layers(
            model.embeddings(tokens), rotation, attend, self._shapes, adapter=kind.adapter, plain=without
        )
        logits = model.head.normed(x, model.norm, config.rms_norm_eps, self._shapes)[: kind.rows]
        return logits, self._best(logits, plain)

    @property
    def _padded(self) -> int:
        return self._shapes.padded(self.kind.rows) if self._shapes else self.kind.rows

    def _best(self, logits: Tensor, plain: Tensor) -> Tensor:
        floats = logits.to(torch.float32, copy=True)
        sums = floats.logsumexp(-1, keepdim=True)
        mask = self._model.config.mask_token_id
        if mask is not None:
            floats[:, mask] = floats[:, mask].masked_fill(~plain[:, 0], -torch.inf)
        # Of equals the first is chosen, which only argmax promises: it is put before whatever else is large.
        first = floats.argmax(-1, keepdim=True)
        value = floats.gather(1, first)
        floats.scatter_(1, first, torch.inf)
        values, tokens = largest(floats, self._few)
        parts = (first, tokens[:, 1:], value, values[:, 1:], sums)
        return torch.cat([part.double() for part in parts], 1)

    @torch.inference_mode()
    def __call__(self) -> None:
        """Run it over what the inputs hold."""
        logits, read = self.compute(*self.inputs.all)
        self.logits.copy_(logits)
        self.read.copy_(read)

    def output(self, rows: slice, few: int) -> Output:
        """What the last run said of `rows`; few: 0 where nobody asks for the best tokens, so that nothing is copied."""
        if not few:
            return Output(self.logits[rows])
        read = self.read[rows].cpu()  # the one copy to the host; it also waits for the device
        tokens, values = read[:, : self._few].long(), read[:, self._few : -1].float()
        return Output(self.logits[rows], Best(tokens, values, read[:, -1].float()))
