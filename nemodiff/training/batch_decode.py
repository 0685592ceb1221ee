"""Many texts at once on the frozen base: slots over one fixed cache, a finished text's slot is given to the next one.

Several times faster on a CPU than padded batches that grow their caches and wait for their longest member.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from nemodiff.training.dual_stream import Backbone, rotate

#: Most tokens that a sampled one is drawn from.
RANKED = 2048


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return functional.rms_norm(x, (x.shape[-1],), weight, eps)


def _sample(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> Tensor:
    """A token per row of logits [rows, vocabulary]: the most probable one at temperature 0, else drawn from the
    smallest set of tokens that holds `top_p` of the probability, of RANKED at most (sorting all of them is slow)."""
    if not temperature:
        return logits.argmax(-1)
    ranked, order = (logits.float() / temperature).softmax(-1).topk(min(RANKED, logits.shape[-1]))
    ranked[ranked.cumsum(-1) - ranked > top_p] = 0
    return order.gather(-1, torch.multinomial(ranked, 1, generator=generator))[:, 0]


class BatchDecoder:
    """AR decoding of up to `slots` texts at once, each of up to `room` tokens, prompt included.

    The cache is [layers, slots, kv heads, room, head_dim] in the backbone's dtype. A slot's text depends on its prompt
    alone, up to the rounding of its batch.
    """

    def __init__(self, backbone: Backbone, end_id: int, *, slots: int = 96, room: int = 256) -> None:
        self.backbone, self.end_id, self.slots, self.room = backbone, end_id, slots, room
        shape = (len(backbone.layers), slots, backbone.kv_heads, room, backbone.head_dim)
        dtype, device = backbone.embedding.dtype, backbone.embedding.device
        self._keys = torch.zeros(shape, dtype=dtype, device=device)
        self._values = torch.zeros(shape, dtype=dtype, device=device)

    @torch.inference_mode()
    def run(
        self,
        prompts: Iterable[list[int]],
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Iterator[tuple[int, list[int]]]:
        """Yield (index of the prompt, its answer's ids) as answers end: with the end id, or cut at `max_new_tokens`.

        Raises ValueError for a prompt that leaves no room for its answer.
        """
        generator = torch.Generator(device=self.backbone.embedding.device).manual_seed(seed)
        waiting = enumerate(prompts)
        texts: dict[int, tuple[int, list[int]]] = {}  # slot → (index of the prompt, its answer so far)
        lengths = torch.zeros(self.slots, dtype=torch.long)
        newest = torch.zeros(self.slots, dtype=torch.long)
        exhausted = False
        while True:
            free = [slot for slot in range(self.slots) if slot not in texts]
            # Prompts enter a few at a time: a forward for one alone costs nearly as much.
            if not exhausted and len(free) >= max(1, self.slots // 8):
                entering = []
                for slot in free:
                    item = next(waiting, None)
                    if item is None:
                        exhausted = True
                        break
                    index, prompt = item
                    if not 0 < len(prompt) <= self.room - max_new_tokens:
                        raise ValueError(f"A prompt of {len(prompt)} tokens does not fit: raise `room`.")
                    entering.append((slot, prompt))
                    texts[slot] = (index, [])
                if entering:
                    hidden = self._prefill(entering)
                    tokens = self._tokens(hidden, temperature, top_p, generator)
                    for (slot, prompt), token in zip(entering, tokens, strict=True):
                        lengths[slot], newest[slot] = len(prompt), token
                        texts[slot][1].append(token)
            done = [slot for slot in sorted(texts) if self._ended(texts[slot][1], max_new_tokens)]
            for slot in done:
                yield texts.pop(slot)
            if done and not exhausted:
                continue
            active = sorted(texts)
            if not active:
                if exhausted:
                    return
                continue
            # Idle slots run along, which costs less than gathering the others' caches, until few are left.
            rows = active if len(active) < self.slots // 2 else list(range(self.slots))
            hidden = self._step(torch.tensor(rows), newest, lengths.clamp_max(self.room - 1))
            for slot, token in zip(rows, self._tokens(hidden, temperature, top_p, generator), strict=True):
                if slot in texts:
                    lengths[slot] += 1
                    newest[slot] = token
                    texts[slot][1].append(token)

    def _ended(self, answer: list[int], max_new_tokens: int) -> bool:
        return answer[-1] == self.end_id or len(answer) >= max_new_tokens

    def _tokens(self, hidden: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> list[int]:
        logits = functional.linear(_norm(hidden, self.backbone.norm, self.backbone.eps), self.backbone.head)
        return _sample(logits, temperature, top_p, generator).tolist()

    def _angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        inverse = self.backbone.inverse_frequencies
        angles = positions.to(inverse.device)[:, None, None].float() * inverse
        return angles.cos(), angles.sin()

    def _prefill(self, entering: list[tuple[int, list[int]]]) -> Tensor:
        """Fill the slots' caches; hidden states [prompts, hidden] of each prompt's last token."""
        b = self.backbone
        lengths = [len(prompt) for _, prompt in entering]
        tokens = torch.tensor([token for _, prompt in entering for token in prompt], device=b.embedding.device)
        cos, sin = self._angles(torch.cat([torch.arange(length) for length in lengths]))
        x = functional.embedding(tokens, b.embedding)
        for i, layer in enumerate(b.layers):
            q, k, v = self._qkv(x, layer, cos, sin)
            mixed, first = torch.empty_like(q), 0
            for (slot, _), length in zip(entering, lengths, strict=True):
                part = slice(first, first + length)
                keys, values = k[part].transpose(0, 1), v[part].transpose(0, 1)
                self._keys[i, slot, :, :length], self._values[i, slot, :, :length] = keys, values
                mixed[part] = functional.scaled_dot_product_attention(
                    q[part].transpose(0, 1)[None], keys[None], values[None], is_causal=True, enable_gqa=True
                )[0].transpose(0, 1)
                first += length
            x = self._rest(x, mixed, layer)
        return x[torch.tensor(lengths).cumsum(0) - 1]

    def _step(self, active: Tensor, newest: Tensor, lengths: Tensor) -> Tensor:
        """One token of every active slot; hidden states [active, hidden]."""
        b = self.backbone
        at = lengths[active]
        cos, sin = self._angles(at)
        hidden_keys = torch.arange(self.room) > at[:, None]
        mask = torch.zeros(hidden_keys.shape, dtype=b.embedding.dtype).masked_fill_(hidden_keys, -1e30)
        mask = mask.to(b.embedding.device)[:, None, None]
        everyone = len(active) == self.slots
        x = functional.embedding(newest[active].to(b.embedding.device), b.embedding)
        group = b.heads // b.kv_heads
        for i, layer in enumerate(b.layers):
            q, k, v = self._qkv(x, layer, cos, sin)
            self._keys[i, active, :, at] = k
            self._values[i, active, :, at] = v
            keys, values = self._keys[i], self._values[i]  # whole: a part of them would be copied first
            if not everyone:
                keys, values = keys[active], values[active]
            grouped = q.view(len(active), b.kv_heads, group, b.head_dim) * b.head_dim**-0.5
            weights = torch.softmax(torch.matmul(grouped, keys.transpose(-1, -2)) + mask, -1)
            mixed = torch.matmul(weights, values).reshape(len(active), b.heads, b.head_dim)
            x = self._rest(x, mixed, layer)
        return x

    def _qkv(self, x: Tensor, layer: dict[str, Tensor], cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        b = self.backbone
        qkv = functional.linear(_norm(x, layer["input_norm"], b.eps), layer["qkv"]).view(len(x), -1, b.head_dim)
        qk = rotate(qkv[:, : b.heads + b.kv_heads], cos, sin)
        return qk[:, : b.heads], qk[:, b.heads :], qkv[:, b.heads + b.kv_heads :]

    def _rest(self, x: Tensor, mixed: Tensor, layer: dict[str, Tensor]) -> Tensor:
        x = x + functional.linear(mixed.reshape(len(x), -1), layer["o"])
        gate, up = functional.linear(_norm(x, layer["post_norm"], self.backbone.eps), layer["gate_up"]).chunk(2, -1)
        return x + functional.linear(functional.silu(gate) * up, layer["down"])
