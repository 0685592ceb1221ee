"""`python -m nemodiff bench --cpu`: what forwards and decoding cost on this CPU in each dtype, and others beside it."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from nemodiff.bench_parts import generate_rate, milliseconds
from nemodiff.checkpoints import fetch_base_gguf
from nemodiff.decode import Prefill
from nemodiff.engine import Engine
from nemodiff.errors import RequestError
from nemodiff.examples import EXAMPLES, Example
from nemodiff.loading import DTYPES, load
from nemodiff.model.cpu import int8_obstacle
from nemodiff.model.runner import Runner
from nemodiff.model.transformer import Transformer
from nemodiff.model.weights import targets_of
from nemodiff.request import Request
from nemodiff.trace import Lane

#: Positions kept before the forwards that are timed, and how many rows those have.
CONTEXT, ROWS = 128, (1, 8, 16, 32)
PEERS = ("llama-cpp",)
STRUCTURED = tuple(example for example in EXAMPLES if example.structured)


@dataclass(frozen=True, slots=True)
class Costs:
    """One dtype. forwards: rows → ms. ar, transformers: tokens/s after the prefill on the first structured prompt,
    None where not run. tracing: what a traced AR run takes beyond its lane's clock, as a share of that. speculation: a
    (AR, self-speculation) pair of lanes for every structured prompt, both from one run."""

    dtype: str
    forwards: dict[int, float]
    ar: float
    tracing: float
    transformers: float | None
    speculation: dict[Example, tuple[Lane, Lane]]

    @property
    def speculation_rate(self) -> float:
        """Tokens/s of self-speculation after the prefill, over all prompts together."""
        return rate(*(lane for _, lane in self.speculation.values()))

    @property
    def ar_rate(self) -> float:
        """The same of AR, on the same prompts in the same runs."""
        return rate(*(lane for lane, _ in self.speculation.values()))


def rate(*lanes: Lane) -> float:
    """Tokens/s after the prefill, which gives the first token, of lanes together."""
    seconds = sum(lane.seconds - lane.prefill_seconds for lane in lanes)
    return sum(len(lane.tokens) - 1 for lane in lanes) / max(seconds, 1e-9)


def run(
    checkpoint: str,
    *,
    dtypes: Sequence[str] = tuple(DTYPES),
    new_tokens: int = 128,
    block_length: int | None = None,
    peer: str | None = None,
    prompts: Sequence[Example] = STRUCTURED,
) -> str:
    """Measure and return the report. Raises RequestError for settings, CheckpointError for the checkpoint."""
    if new_tokens < 2:
        raise RequestError("There is nothing to time in one token: give --max-new-tokens 2 or more.")
    other = _peer(peer) if peer else None
    costs, notes = [], []
    for dtype in dtypes:
        if dtype == "int8" and (reason := int8_obstacle(torch.device("cpu"))):
            notes.append(f"int8 was left out: {reason}.")
            continue
        print(f"{dtype} …", file=sys.stderr, flush=True)
        engine = load(checkpoint, device="cpu", dtype=dtype)
        costs.append(_measure(engine, prompts, new_tokens, block_length))
        where = f"{engine.checkpoint} · {engine.device}"
        ids = engine.encode(_request(prompts[0], new_tokens, block_length))
        block = engine.fill(_request(prompts[0], new_tokens, block_length)).block_length
    peers = {}
    if peer and other:
        print(f"{peer} …", file=sys.stderr, flush=True)
        peers[peer] = other(ids, new_tokens)
    return report(costs, peers, f"{where} · block {block}, greedy, at most {new_tokens} new tokens", notes)


def _request(example: Example, new_tokens: int, block_length: int | None, **more: Any) -> Request:
    return Request(prompt=example.prompt, max_new_tokens=new_tokens, block_length=block_length, **more)


def _measure(engine: Engine, prompts: Sequence[Example], new_tokens: int, block_length: int | None) -> Costs:
    single = _request(prompts[0], new_tokens, block_length, modes=("ar",), ignore_eos=True)
    engine.generate(_request(prompts[0], 4, block_length))  # so that nothing is set up while it is timed
    recorder, begin = engine.recorder(single), 0.0
    for event in engine.stream(single):
        recorder.add(event)
        if event.phase == "prefill":
            begin = time.perf_counter()
    wall = time.perf_counter() - begin
    ar = recorder.finish("stopped").lanes[0]
    decoding = ar.seconds - ar.prefill_seconds
    pairs = {}
    for example in prompts:
        both = _request(example, new_tokens, block_length, modes=("ar", "self-speculation"), alternatives=0)
        trace = engine.generate(both)
        pairs[example] = trace["ar"], trace["self-speculation"]
    return Costs(
        dtype=engine.dtype,
        forwards=_forwards(engine),
        ar=rate(ar),
        tracing=(wall - decoding) / decoding,
        transformers=_transformers_rate(engine.model, engine.encode(single), new_tokens),
        speculation=pairs,
    )


def _forwards(engine: Engine) -> dict[int, float]:
    model = engine.model
    tokens = [token % model.config.vocab_size for token in range(CONTEXT)]
    cache = Prefill(model, tokens, CONTEXT + max(ROWS)).copy_cache("bench")

    def cost(rows: int) -> float:
        return milliseconds(lambda: model(torch.tensor(tokens[:rows]), cache, causal=True), model.device)

    return {rows: cost(rows) for rows in ROWS}


def _transformers_rate(model: Runner, ids: list[int], new_tokens: int) -> float | None:
    """Tokens/s of transformers' own generate over this model's weights, which it shares; prefill taken out.

    None for shapes other than Llama's, and for int8, which it does not have.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = model.config
    if not isinstance(model, Transformer) or config.tensor_prefix == "encoder." or config.rope.factor != 1:
        return None
    settings = LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        rms_norm_eps=config.rms_norm_eps,
        tie_word_embeddings=config.tie_word_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope.theta},
    )
    with torch.device("meta"):
        reference: Any = LlamaForCausalLM(settings)
        reference = reference.to(model.dtype)
    reference.load_state_dict(targets_of(model), assign=True, strict=False)
    reference.tie_weights()
    reference.model.rotary_emb = type(reference.model.rotary_emb)(settings)  # frequencies are no weights
    return generate_rate(reference, torch.tensor([ids]), new_tokens)


def _peer(name: str) -> Callable[[list[int], int], float]:
    """What measures another engine's AR: (prompt's token ids, new tokens) → tokens/s after the prefill."""
    if name not in PEERS:
        raise RequestError(f"Unknown peer {name!r}: choose {' or '.join(PEERS)}.")
    try:
        from llama_cpp import Llama
    except (ImportError, OSError, RuntimeError) as error:
        raise RequestError(
            f"llama.cpp cannot be run here ({error}): pip install llama-cpp-python, or leave --peer out."
        ) from error

    def measure(ids: list[int], new_tokens: int) -> float:
        with tempfile.TemporaryDirectory(prefix="nemodiff-") as folder:
            file = fetch_base_gguf(Path(folder), lambda line: print(line, file=sys.stderr, flush=True))
            threads = torch.get_num_threads()
            room = len(ids) + new_tokens + 1
            model = Llama(str(file), n_ctx=room, n_threads=threads, n_threads_batch=threads, verbose=False)
            for _ in islice(model.generate(ids, temp=0.0), 3):  # once before it is timed
                pass
            times = [time.perf_counter() for _ in islice(model.generate(ids, temp=0.0), new_tokens)]
            model.close()
        return (new_tokens - 1) / (times[-1] - times[0])

    return measure


def report(costs: Sequence[Costs], peers: dict[str, float], where: str, notes: Sequence[str]) -> str:
    """The figures as markdown: a row a dtype, self-speculation by prompt in the fastest, and what they amount to."""
    fastest = max(costs, key=lambda one: one.ar)
    counts = " | ".join(f"{rows} rows, ms" for rows in ROWS)
    lines = [
        "\n".join([where, *notes, ""]),
        f"| dtype | {counts} | 16 rows ÷ 1 | AR, tokens/s | tracing | transformers' generate "
        "| AR on the prompts below, tokens/s | self-speculation on them, tokens/s | ratio |",
        f"| --- |{' --- |' * (len(ROWS) + 7)}",
    ]
    for one in costs:
        cells = [
            one.dtype,
            *(f"{ms:.1f}" for ms in one.forwards.values()),
            f"{one.forwards[16] / one.forwards[1]:.2f}",
            f"{one.ar:.1f}",
            f"{one.tracing:.1%}",
            "" if one.transformers is None else f"{one.transformers:.1f}",
            f"{one.ar_rate:.1f}",
            f"{one.speculation_rate:.1f}",
            f"{one.speculation_rate / max(one.ar_rate, 1e-9):.2f}×",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        f"\nForwards are causal, after {CONTEXT} tokens. Rates leave the prefill out; those of several "
        "prompts are over all of them together.\n",
        f"| prompt, {fastest.dtype} | tokens | AR, tokens/s | self-speculation, tokens/s "
        "| acceptance length | TPF | ratio of tokens/s | identical to AR |",
        f"| --- |{' --- |' * 7}",
    ]
    for example, (ar, fast) in fastest.speculation.items():
        lengths = fast.acceptance_lengths or [1]
        cells = [
            example.label,
            str(len(ar.tokens)),
            f"{rate(ar):.1f}",
            f"{rate(fast):.1f}",
            f"{statistics.fmean(lengths):.2f}",
            f"{fast.tpf or 0:.2f}",
            f"{rate(fast) / max(rate(ar), 1e-9):.2f}×",
            "yes" if fast.tokens == ar.tokens else "no",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    best = max(costs, key=lambda one: one.speculation_rate)
    said = [f"Our fastest AR ({fastest.dtype}) makes {fastest.ar:.1f} tokens/s"]
    if theirs := [one.transformers for one in costs if one.transformers]:
        said.append(f"{fastest.ar / max(theirs):.2f}× transformers' fastest generate ({max(theirs):.1f})")
    for name, tokens in peers.items():
        said.append(f"{fastest.ar / tokens:.2f}× {name}'s AR on the base GGUF file ({tokens:.1f})")
    text = f"\n{', '.join(said)}. Self-speculation ({best.dtype}) on these prompts makes {best.speculation_rate:.1f}: "
    text += f"{best.speculation_rate / fastest.ar:.2f}× our fastest AR"
    text += "".join(f", {best.speculation_rate / tokens:.2f}× {name}'s AR" for name, tokens in peers.items())
    return "\n".join([*lines, f"{text}."])
