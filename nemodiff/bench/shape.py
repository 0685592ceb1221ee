"""`python -m nemodiff bench --shape 8B`: what a released shape costs on this machine, with random weights.

Forwards cost the same whatever the weights are, so nothing has to be fetched. Only how many tokens a forward brings
depends on them: that is taken from the published figures and said to be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemodiff.bench.timing import generate_rate, milliseconds, timed_ar
from nemodiff.checkpoints.tokenizer import Tokenizer
from nemodiff.decode.prefill import Prefill
from nemodiff.engine.devices import describe_device, loaded_dtype, pick_device, pick_dtype, pick_graphs, torch_runner
from nemodiff.engine.interface import Defaults
from nemodiff.engine.local import Engine
from nemodiff.errors import CheckpointError, RequestError
from nemodiff.markdown import table
from nemodiff.model.config import ModelConfig, RopeConfig
from nemodiff.model.cpu import quantise
from nemodiff.model.memory import enough_memory, shortage
from nemodiff.model.runner import ForwardShape, Runner
from nemodiff.model.transformer import Transformer
from nemodiff.model.weights import settle_rows, targets_of
from nemodiff.request import Request

BLOCK = 32
LORA_RANK = 128
#: Positions kept before the forwards that are timed.
CONTEXT = 512
#: Causal forwards that are timed besides.
ROWS = (1, 8, 32, 64)


@dataclass(frozen=True, slots=True)
class Shape:
    """Layers and widths of a release. tpf: published tokens per forward of diffusion and of linear self-speculation
    with LoRA, means of ten tasks, blocks of 32 (arXiv 2607.05722); None where there are none."""

    layers: int
    hidden: int
    mlp: int
    tpf: tuple[float, float] | None = None
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    vocabulary: int = 131072

    def config(self) -> ModelConfig:
        rope = RopeConfig(theta=1e6, factor=16.0, original_context=16384, query_beta=0.1)
        return ModelConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.mlp,
            num_layers=self.layers,
            num_heads=self.heads,
            num_kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            rms_norm_eps=1e-5,
            tie_word_embeddings=False,
            context_length=262144,
            rope=rope,
            mask_token_id=100,
            block_size=BLOCK,
        )


#: 14B is Ministral 3 14B's shape, which has the published number of parameters; the others are the model cards'.
SHAPES = {
    "tiny": Shape(2, 64, 96, heads=4, kv_heads=2, head_dim=16, vocabulary=199),
    "3B": Shape(26, 3072, 9216, (1.91, 4.36)),
    "8B": Shape(34, 4096, 14336, (2.57, 5.99)),
    "14B": Shape(40, 5120, 16384, (2.74, 5.96)),
}


@dataclass(frozen=True, slots=True)
class Costs:
    """Milliseconds of a forward after `context` kept positions, and what they are held against.

    attention: what ran. token: one row, causal. verify: a block, causal. draft: a block, bidirectional, with the draft
    LoRA. denoise: the same without. tracing: wall time per forward beyond the lane's own clock. ar: tokens/s of this
    engine's AR lane; transformers: of its generate over the same weights, both without the prefill. copies, reads:
    bytes/s of a copy on the device, read and written, and of a sum. weights: bytes that a forward reads. by_rows:
    causal forwards of so many rows.
    """

    context: int
    block: int
    attention: str
    token: float
    verify: float
    draft: float
    denoise: float
    tracing: float
    ar: float
    transformers: float
    copies: float
    reads: float
    weights: int
    by_rows: dict[int, float] = field(default_factory=dict)

    @property
    def limit(self) -> float:
        """Tokens/s, one per forward, of a machine that did nothing but read the weights as fast as it was seen to."""
        return max(self.copies, self.reads) / self.weights


def run(
    name: str,
    device: str | None,
    dtype: str | None,
    block: int = BLOCK,
    new_tokens: int = 128,
    context: int = CONTEXT,
    graphs: str = "auto",
    say: Callable[[str], None] = lambda line: None,
) -> str:
    """Measure a shape and return the report. graphs, say: `graphs` and `report` of `nemodiff.load`.

    Raises CheckpointError when it does not fit, RequestError for settings.
    """
    Request(prompt_ids=(0,), block_length=block, max_new_tokens=new_tokens)
    if new_tokens < 2:
        raise RequestError("There is nothing to time in one token: give --max-new-tokens 2 or more.")
    if not 1 <= context <= 65_536:
        raise RequestError(f"context must be 1 to 65,536 tokens, not {context}.")
    target = pick_device(device)
    kind, graphs = pick_dtype(dtype, target), pick_graphs(graphs, target)
    loaded = loaded_dtype(kind)
    config = SHAPES[name].config()
    count = sum(parameter.numel() for parameter in Transformer(config, "meta").parameters())
    if reason := shortage(count * loaded.itemsize, target, config=config):
        raise CheckpointError(f"The {name} shape does not fit: {reason}; choose a smaller --shape or another --device.")
    with enough_memory(f"measure the {name} shape"):
        costs = measure(config, target, kind, block, new_tokens, context, graphs, say)
    return report(name, costs, f"{describe_device(target)} · {str(kind).removeprefix('torch.')}")


def measure(
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    block: int,
    new_tokens: int,
    context: int = CONTEXT,
    graphs: str = "auto",
    say: Callable[[str], None] = lambda line: None,
) -> Costs:
    """Costs of a shape with random weights, in one run on one device. graphs, say: as for `run`.

    int8 weights are made of bfloat16 ones, which is what transformers then runs.
    """
    prompt = torch.randint(0, config.vocab_size, (context,), generator=torch.Generator().manual_seed(0))
    model = random_model(config, device, loaded_dtype(dtype))
    theirs = _transformers_rate(model, prompt, new_tokens)
    runner = quantise(model) if dtype is torch.int8 else torch_runner(model, graphs, say)
    copies, reads = _bandwidths(device)
    figures = _engine_figures(runner, prompt, block, new_tokens)
    return Costs(context=context, block=block, copies=copies, reads=reads, transformers=theirs, **figures)


def _engine_figures(model: Runner, prompt: Tensor, block: int, new_tokens: int) -> dict[str, Any]:
    engine = Engine("random weights", model, Tokenizer(Path("no tokenizer")), Defaults(block_length=block))
    ids = tuple(prompt.tolist())
    request = Request(prompt_ids=ids, modes=("ar",), max_new_tokens=new_tokens, block_length=block, ignore_eos=True)
    engine.generate(replace(request, max_new_tokens=2))  # so that nothing is set up while it is timed
    lane, wall, decoding = timed_ar(engine, request)
    cache = Prefill(model, list(ids), len(ids) + max(block, *ROWS)).copy_cache("bench")

    def forward(rows: int, *, causal: bool, adapter: bool = False) -> float:
        tokens = torch.full((rows,), model.config.mask, device=model.device)
        model.prepare(cache, [ForwardShape(rows, causal, adapter)])
        return milliseconds(lambda: model.forward(tokens, cache, causal=causal, adapter=adapter), model.device)

    return {
        "attention": engine.attention,
        "token": forward(1, causal=True),
        "verify": forward(block, causal=True),
        "by_rows": {rows: forward(rows, causal=True) for rows in ROWS},
        "draft": forward(block, causal=False, adapter=True),
        "denoise": forward(block, causal=False),
        "tracing": 1000 * (wall - decoding) / lane.forwards,
        "ar": lane.forwards / decoding,
        # Of the table of embeddings only the rows in use are read; the draft LoRA is for drafts.
        "weights": model.nbytes - model.embed.weight.nbytes - model.lora_bytes,
    }


def random_model(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Transformer:
    """A Transformer of this shape, weights and draft LoRA drawn from a normal distribution of deviation 0.02.

    A large matrix repeats a few million draws: what they are costs nothing, drawing billions of them minutes.
    """
    draws = torch.empty(2**22, device=device).normal_(0, 0.02).to(dtype)

    def fill(tensor: Tensor) -> Tensor:
        flat = tensor.view(-1)
        for start in range(0, flat.numel(), draws.numel()):
            part = flat[start : start + draws.numel()]
            part.copy_(draws[: part.numel()])
        return tensor

    model = Transformer(config, device, dtype)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            fill(parameter.data)
    for layer in model.layers:
        a = fill(torch.empty(LORA_RANK, layer.o.in_features, device=device, dtype=dtype))
        b = fill(torch.empty(layer.o.out_features, LORA_RANK, device=device, dtype=dtype))
        layer.draft_lora = (a, b)
    settle_rows(model)
    return model.eval()


def _transformers_rate(model: Transformer, prompt: Tensor, new_tokens: int) -> float:
    """Tokens/s of transformers' own generate over this model's weights, which it shares; prefill taken out."""
    from transformers import AutoModelForCausalLM, Ministral3Config

    config = model.config
    settings = Ministral3Config(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        reference = AutoModelForCausalLM.from_config(settings, dtype=model.dtype)
    reference.load_state_dict(targets_of(model), assign=True)
    with torch.device(model.device):  # its frequencies are no weights, so they are made once more
        reference.model.rotary_emb = type(reference.model.rotary_emb)(settings)
    return generate_rate(reference, prompt[None].to(model.device), new_tokens)


def _bandwidths(device: torch.device) -> tuple[float, float]:
    """Bytes/s of a copy (read and written together) and of a sum, both much larger than any cache."""
    size = 2**30 if device.type == "cuda" else 2**28
    source = torch.zeros(size // 4, device=device)
    target = torch.empty_like(source)
    copy = milliseconds(lambda: target.copy_(source), device)
    read = milliseconds(lambda: source.sum(), device)
    return 2 * size / (copy / 1000), size / (read / 1000)


def report(name: str, costs: Costs, where: str) -> str:
    """The costs as markdown, forwards beside seconds."""
    c, block = costs, costs.block
    rows = [
        ("1 token, causal (AR)", c.token),
        (f"{block} tokens, causal (verify, refresh)", c.verify),
        (f"{block} tokens, bidirectional with LoRA (draft)", c.draft),
        (f"{block} tokens, bidirectional (denoise)", c.denoise),
        *((f"{rows} tokens, causal", ms) for rows, ms in c.by_rows.items() if rows not in (1, block)),
        ("tracing, a forward", c.tracing),
    ]
    lines = [
        f"{name} shape, random weights · {where} · {c.attention} · after {c.context} tokens\n",
        table(
            ["forward", "ms", "× a 1-token forward"],
            ((label, f"{ms:.2f}", f"{ms / c.token:.2f}") for label, ms in rows),
        ),
        f"\nAR {c.ar:.2f} tokens/s, transformers' generate over the same weights as floats {c.transformers:.2f} "
        f"tokens/s, both without the prefill: {c.ar / c.transformers:.2f}×.",
        f"A 1-token forward reads {c.weights / 1e9:.2f} GB of weights. Here a copy moves {c.copies / 1e9:.1f} GB/s and "
        f"a sum reads {c.reads / 1e9:.1f} GB/s (both measured in this run): at the larger of them the weights alone "
        f"allow {c.limit:.2f} tokens/s, of which AR reaches {c.ar / c.limit:.0%}.",
    ]
    published = SHAPES[name].tpf
    if published and block == BLOCK:
        diffusion, speculation = published
        rate = 1000 * diffusion / c.denoise
        cycle = 1000 * speculation / ((c.draft + c.verify) / 2)
        lines.append(
            f"At the published tokens per forward (not measured here): diffusion {diffusion} → {rate:.2f} tokens/s "
            f"({rate / c.ar:.2f}× AR), self-speculation {speculation} → {cycle:.2f} tokens/s ({cycle / c.ar:.2f}× AR)."
        )
    return "\n".join(lines)
