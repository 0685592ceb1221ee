"""One pass over [clean | noisy]: the clean stream is strictly causal, a noisy copy sees its own block both ways and,
of the text before that block, the clean stream (section 5 of the model's paper, with blocks that may start anywhere).

Nothing is padded: all sequences of a batch lie in one flat stream of tokens, their common prefix (the chat template's
system message) only once. Linear layers, norms and rotary embeddings run over the flat stream, attention runs
sequence by sequence with plain products and a softmax, whose backward is faster on a CPU than that of the fused
kernels.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nemodiff.model.transformer import Transformer
from nemodiff.training.lora import Lora

_USE_COMPILED = True


def fused(function):
    """`function` compiled at its first call where a compiler is there (several times faster on a CPU), else as it
    is."""
    compiled = torch.compile(function, dynamic=True)
    state = {"run": compiled}

    def call(*args):
        if not _USE_COMPILED:
            return function(*args)
        try:
            return state["run"](*args)
        except Exception:  # no C++ compiler or an unsupported platform: correct, only slower
            if state["run"] is function:
                raise
            state["run"] = function
            return function(*args)

    return call


@fused
def _norm_forward(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


@fused
def _norm_backward(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    inverse = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    unit = wide * inverse
    scaled = grad.float() * weight.float()
    return (inverse * (scaled - unit * (scaled * unit).mean(-1, keepdim=True))).to(x.dtype)


@fused
def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [tokens, heads, dim], halves against halves; cos, sin: [tokens, 1, dim / 2]."""
    left, right = x.float().chunk(2, -1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), -1).to(x.dtype)


@fused
def _glu_forward(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.float().chunk(2, -1)
    return (gate * torch.sigmoid(gate) * up).to(gate_up.dtype)


@fused
def _glu_backward(grad: Tensor, gate_up: Tensor) -> Tensor:
    gate, up = gate_up.float().chunk(2, -1)
    wide, sigmoid = grad.float(), torch.sigmoid(gate)
    return torch.cat((wide * up * sigmoid * (1 + gate * (1 - sigmoid)), wide * gate * sigmoid), -1).to(gate_up.dtype)


class _Norm(torch.autograd.Function):
    """RMS norm with a frozen weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return _norm_forward(x, weight, eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _norm_backward(grad, *ctx.saved_tensors, ctx.eps), None, None


class _Rotary(torch.autograd.Function):
    """Rotary embedding of x [tokens, heads, head_dim] with cos, sin [tokens, 1, head_dim / 2]; the backward turns the
    other way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return rotate(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return rotate(grad, cos, -sin), None, None


class _Glu(torch.autograd.Function):
    """silu(gate) · up of [tokens, 2 · mlp], gate first."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        return _glu_forward(gate_up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (_glu_backward(grad, *ctx.saved_tensors),)


@dataclass
class Span:
    """Queries [start, end) of the flat stream, the ranges of keys they look at, and an additive mask [queries, keys]
    (0 or -inf)."""

    queries: tuple[int, int]
    keys: list[tuple[int, int]]
    mask: Tensor


def _gather(x: Tensor, ranges: list[tuple[int, int]]) -> Tensor:
    """x [tokens, heads, d] → [heads, keys, d]."""
    parts = [x[start:end] for start, end in ranges]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).transpose(0, 1)


def _group(x: Tensor, heads: int) -> Tensor:
    """Queries [rows, query heads, d] → [key heads, group · rows, d]: query heads that share a key head become rows."""
    rows, query_heads, width = x.shape
    return x.view(rows, heads, query_heads // heads, width).permute(1, 2, 0, 3).reshape(heads, -1, width)


def _ungroup(x: Tensor, rows: int) -> Tensor:
    heads, grouped, width = x.shape
    return x.view(heads, grouped // rows, rows, width).permute(2, 0, 1, 3).reshape(rows, -1, width)


class _SpanAttention(torch.autograd.Function):
    """softmax(q kᵀ / √d + mask) v, span by span: q [tokens, query heads, d], k and v [tokens, key heads, d]."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, spans: list[Span]) -> Tensor:
        scale = q.shape[-1] ** -0.5
        out = torch.empty_like(q)
        heads, weights = k.shape[1], []
        for span in spans:
            start, end = span.queries
            rows = end - start
            scores = torch.bmm(_group(q[start:end] * scale, heads), _gather(k, span.keys).transpose(1, 2))
            scores.view(heads, -1, rows, scores.shape[-1]).add_(span.mask)
            weight = torch.softmax(scores, -1)
            weights.append(weight)
            out[start:end] = _ungroup(torch.bmm(weight, _gather(v, span.keys)), rows)
        ctx.save_for_backward(q, k, v, *weights)
        ctx.spans = spans
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *weights = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        heads = k.shape[1]
        for span, weight in zip(ctx.spans, weights, strict=True):
            start, end = span.queries
            rows = end - start
            grad_out = _group(grad[start:end], heads)
            values = torch.bmm(weight.transpose(1, 2), grad_out).transpose(0, 1)
            grad_weight = torch.bmm(grad_out, _gather(v, span.keys).transpose(1, 2))
            grad_scores = torch._softmax_backward_data(grad_weight, weight, -1, weight.dtype)
            grad_q[start:end] = _ungroup(torch.bmm(grad_scores, _gather(k, span.keys)), rows) * scale
            keys = torch.bmm(grad_scores.transpose(1, 2), _group(q[start:end] * scale, heads)).transpose(0, 1)
            offset = 0
            for first, last in span.keys:
                grad_k[first:last] += keys[offset : offset + last - first]
                grad_v[first:last] += values[offset : offset + last - first]
                offset += last - first
        return grad_q, grad_k, grad_v, None


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMS norm of x [tokens, hidden] with a frozen weight."""
    return _Norm.apply(x, weight, eps)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [tokens, heads, head_dim] turned to its positions; cos, sin: [tokens, 1, head_dim / 2]."""
    return _Rotary.apply(x, cos, sin)


def glu(gate_up: Tensor) -> Tensor:
    """silu(gate) · up [tokens, mlp] of [tokens, 2 · mlp], gate first."""
    return _Glu.apply(gate_up)


def attend(q: Tensor, k: Tensor, v: Tensor, spans: list[Span]) -> Tensor:
    """Attention span by span: q [tokens, query heads, d]; k, v [keys, key heads, d] → [tokens, query heads, d]."""
    return _SpanAttention.apply(q, k, v, spans)


@dataclass
class Stream:
    """A flat stream: tokens and positions int64 [tokens], where the mask embedding goes (bool [tokens]) and the
    attention spans."""

    tokens: Tensor
    positions: Tensor
    masked: Tensor
    spans: list[Span]


@dataclass
class Backbone:
    """The frozen transformer as training sees it: plain tensors, no modules."""

    embedding: Tensor  # [vocabulary, hidden]
    layers: list[dict[str, Tensor]]  # qkv, o, gate_up, down, input_norm, post_norm
    norm: Tensor  # [hidden]
    head: Tensor  # [vocabulary, hidden]
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    rope_theta: float
    mask_embedding: Tensor | None = None  # [hidden], of a model that has one
    inverse_frequencies: Tensor = field(init=False)  # [head_dim / 2]

    def __post_init__(self) -> None:
        exponents = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=self.embedding.device) / self.head_dim
        self.inverse_frequencies = 1.0 / self.rope_theta**exponents

    @classmethod
    def of(cls, model: Transformer) -> "Backbone":
        """The weights of a `nemodiff.model.transformer.Transformer`, shared and not copied."""
        config = model.config
        layers = [
            {
                "qkv": layer.qkv.weight.detach(),
                "o": layer.o.weight.detach(),
                "gate_up": layer.gate_up.weight.detach(),
                "down": layer.down.weight.detach(),
                "input_norm": layer.input_norm.detach(),
                "post_norm": layer.post_norm.detach(),
            }
            for layer in model.layers
        ]
        embedding = model.embed.weight.detach()
        head = embedding if config.tie_word_embeddings else model.head.weight.detach()
        return cls(
            embedding,
            layers,
            model.norm.detach(),
            head,
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
            config.rms_norm_eps,
            config.rope.theta,
            model.mask_embedding,
        )


def forward(
    backbone: Backbone, stream: Stream, lora: Lora | None = None, seen: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Hidden states before the final norm, [tokens, hidden]; without `lora` the frozen model, in which tokens may be
    masked where it has a mask embedding. seen: rows of the stream, and what is there in place of embeddings
    [rows, hidden], through which gradients pass."""
    x = functional.embedding(stream.tokens, backbone.embedding)
    mask = backbone.mask_embedding if lora is None else lora.mask_embedding
    if mask is not None:
        x = torch.where(stream.masked[:, None], mask.to(x.dtype), x)
    if seen is not None:
        x = x.index_copy(0, seen[0], seen[1].to(x.dtype))
    angles = stream.positions[:, None, None].float() * backbone.inverse_frequencies
    cos, sin = angles.cos(), angles.sin()
    queries, width = backbone.heads, backbone.head_dim
    rotated = queries + backbone.kv_heads
    for i, layer in enumerate(backbone.layers):

        def linear(value: Tensor, name: str, i: int = i, layer: dict[str, Tensor] = layer) -> Tensor:
            return functional.linear(value, layer[name]) if lora is None else lora.linear(value, i, name)

        qkv = linear(norm(x, layer["input_norm"], backbone.eps), "qkv").view(len(x), -1, width)
        qk = rotary(qkv[:, :rotated], cos, sin)
        mixed = attend(qk[:, :queries], qk[:, queries:], qkv[:, rotated:], stream.spans)
        x = x + linear(mixed.reshape(len(x), -1), "o")
        gated = glu(linear(norm(x, layer["post_norm"], backbone.eps), "gate_up"))
        x = x + linear(gated, "down")
    return x


def final_norm(backbone: Backbone, x: Tensor) -> Tensor:
    """Hidden states as the head wants them, [rows, hidden]."""
    return norm(x, backbone.norm, backbone.eps)
