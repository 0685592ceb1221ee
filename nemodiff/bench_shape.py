"""`python -m nemodiff bench --shape 8B`: what a released shape costs on this machine, with random weights.

Forwards cost the same whatever the weights are, so nothing has to be fetched. Only how many tokens a forward brings
depends on them: that is taken from the published figures and said to be.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nemodiff.decode.lane import synchronise
from nemodiff.engine import Defaults, Engine, describe_device, pick_device, pick_dtype
from nemodiff.errors import CheckpointError, RequestError
from nemodiff.model.config import ModelConfig, RopeConfig
from nemodiff.model.memory import enough_memory, shortage
from nemodiff.model.transformer import Transformer
from nemodiff.model.weights import settle_rows
from nemodiff.request import Request
from nemodiff.tokenizer import Tokenizer

BLOCK = 32
LORA_RANK = 128
#: Positions kept before the forwards that are timed.
CONTEXT = 512


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
            tensor_prefix="encoder.",
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

    token: one row, causal. verify: a block, causal. draft: a block, bidirectional, with the draft LoRA. denoise: the
    same without. tracing: wall time a forward beyond the lane's own clock. ar: tokens/s of this engine's AR lane;
    transformers: of its generate, None where it did not fit. copy_bandwidth: bytes/s, read and written, of a copy on
    the device. weights: bytes that a forward reads.
    """

    context: int
    block: int
    token: float
    verify: float
    draft: float
    denoise: float
    tracing: float
    ar: float
    transformers: float | None
    copy_bandwidth: float
    weights: int

    @property
    def bandwidth_share(self) -> float:
        """What part of a one-token forward a machine would need that did nothing but read the weights."""
        return self.weights / self.copy_bandwidth / (self.token / 1000)


def run(name: str, device: str | None, dtype: str | None, block: int = BLOCK, new_tokens: int = 128) -> str:
    """Measure a shape and return the report. Raises CheckpointError when it does not fit, RequestError for settings."""
    Request(prompt_ids=(0,), block_length=block, max_new_tokens=new_tokens)
    if new_tokens < 2:
        raise RequestError("There is nothing to time in one token: give --max-new-tokens 2 or more.")
    target = pick_device(device)
    kind = pick_dtype(dtype, target)
    config = SHAPES[name].config()
    count = sum(parameter.numel() for parameter in Transformer(config, "meta").parameters())
    if reason := shortage(count * kind.itemsize, target):
        raise CheckpointError(f"The {name} shape does not fit: {reason}; choose a smaller --shape or another --device.")
    with enough_memory(f"measure the {name} shape"):
        costs = measure(config, target, kind, block, new_tokens)
    return report(name, costs, f"{describe_device(target)} · {str(kind).removeprefix('torch.')}")


def measure(config: ModelConfig, device: torch.device, dtype: torch.dtype, block: int, new_tokens: int) -> Costs:
    """Costs of a shape with random weights, in one run on one device."""
    prompt = torch.randint(0, config.vocab_size, (CONTEXT,), generator=torch.Generator().manual_seed(0))
    ours = _engine_figures(random_model(config, device, dtype), prompt, block, new_tokens)  # freed before the next line
    return Costs(
        context=CONTEXT,
        block=block,
        transformers=_transformers_rate(config, device, dtype, prompt, new_tokens),
        copy_bandwidth=_copy_bandwidth(device),
        **ours,
    )


def _engine_figures(model: Transformer, prompt: Tensor, block: int, new_tokens: int) -> dict[str, float]:
    cache = model.new_cache(CONTEXT + block)
    model(prompt.to(model.device), cache, causal=True, last=True)
    cache.keep(CONTEXT)

    def forward(rows: int, **how: bool) -> float:
        tokens = torch.full((rows,), model.config.mask_token_id, device=model.device)
        return _milliseconds(lambda: model(tokens, cache, **how), model.device)

    engine = Engine("random weights", model, Tokenizer(Path("no tokenizer")), Defaults(block_length=block))
    ids = tuple(prompt.tolist())
    request = Request(prompt_ids=ids, modes=("ar",), max_new_tokens=new_tokens, block_length=block, ignore_eos=True)
    engine.generate(request)  # once, so that nothing is set up while it is timed
    recorder, begin = engine.recorder(request), 0.0
    for event in engine.stream(request):
        recorder.add(event)
        if event.phase == "prefill":
            begin = time.perf_counter()
    wall = time.perf_counter() - begin
    lane = recorder.finish("stopped").lanes[0]
    decoding = lane.seconds - lane.prefill_seconds
    return {
        "token": forward(1, causal=True),
        "verify": forward(block, causal=True),
        "draft": forward(block, causal=False, adapter=True),
        "denoise": forward(block, causal=False),
        "tracing": 1000 * (wall - decoding) / lane.forwards,
        "ar": lane.forwards / decoding,
        # Of the table of embeddings only the rows in use are read.
        "weights": sum(p.nbytes for p in model.parameters()) - model.embed.weight.nbytes,
    }


def random_model(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Transformer:
    """A Transformer of this shape, weights and draft LoRA drawn from a normal distribution of deviation 0.02."""
    model = Transformer(config, device, dtype)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.normal_(0, 0.02)
    for layer in model.layers:
        a = torch.empty(LORA_RANK, layer.o.in_features, device=device, dtype=dtype).normal_(0, 0.02)
        b = torch.empty(layer.o.out_features, LORA_RANK, device=device, dtype=dtype).normal_(0, 0.02)
        layer.draft_lora = (a, b)
    settle_rows(model)
    return model.eval()


def _transformers_rate(
    config: ModelConfig, device: torch.device, dtype: torch.dtype, prompt: Tensor, new_tokens: int
) -> float | None:
    """Tokens/s of transformers' own generate on the same shape, its prefill included; None where it does not fit."""
    from transformers import AutoModelForCausalLM, Ministral3Config

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
        reference = AutoModelForCausalLM.from_config(settings, dtype=dtype)
    if shortage(sum(p.nbytes for p in reference.parameters()), device):
        return None
    with torch.device(device):
        reference = AutoModelForCausalLM.from_config(settings, dtype=dtype).eval()
    ids = prompt[None].to(device)
    how = {"attention_mask": torch.ones_like(ids), "do_sample": False, "pad_token_id": 0}
    how |= {"min_new_tokens": new_tokens, "max_new_tokens": new_tokens}
    reference.generate(ids, **how)
    synchronise(device)
    begin = time.perf_counter()
    reference.generate(ids, **how)
    synchronise(device)
    return new_tokens / (time.perf_counter() - begin)


def _copy_bandwidth(device: torch.device) -> float:
    """Bytes/s, read and written together, of a copy much larger than any cache."""
    size = 2**30 if device.type == "cuda" else 2**28
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / (_milliseconds(lambda: target.copy_(source), device) / 1000)


def _milliseconds(call: Callable[[], object], device: torch.device) -> float:
    """The median time of twenty calls, after three that do not count."""
    times = []
    for _ in range(23):
        synchronise(device)
        begin = time.perf_counter()
        call()
        synchronise(device)
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times[3:])


def report(name: str, costs: Costs, where: str) -> str:
    """The costs as markdown, forwards beside seconds."""
    c, block = costs, costs.block
    theirs = f"{c.transformers:.1f}" if c.transformers else "no room beside"
    rows = [
        ("1 token, causal (AR)", c.token),
        (f"{block} tokens, causal (verify, refresh)", c.verify),
        (f"{block} tokens, bidirectional with LoRA (draft)", c.draft),
        (f"{block} tokens, bidirectional (denoise)", c.denoise),
        ("tracing, a forward", c.tracing),
    ]
    lines = [
        f"{name} shape, random weights · {where} · after {c.context} tokens\n",
        "| forward | ms | × a 1-token forward |\n| --- | --- | --- |",
        *(f"| {label} | {ms:.2f} | {ms / c.token:.2f} |" for label, ms in rows),
        f"\nAR {c.ar:.1f} tokens/s; transformers' generate {theirs} tokens/s (its prefill included).",
        f"A 1-token forward reads {c.weights / 1e9:.2f} GB of weights; at the measured copy bandwidth of "
        f"{c.copy_bandwidth / 1e9:.0f} GB/s that alone takes {c.bandwidth_share:.0%} of its time.",
    ]
    if SHAPES[name].tpf and block == BLOCK:
        diffusion, speculation = SHAPES[name].tpf
        rate = 1000 * diffusion / c.denoise
        cycle = 1000 * speculation / ((c.draft + c.verify) / 2)
        lines.append(
            f"At the published tokens per forward (not measured here): diffusion {diffusion} → {rate:.1f} tokens/s, "
            f"self-speculation {speculation} → {cycle:.1f} tokens/s."
        )
    return "\n".join(lines)
