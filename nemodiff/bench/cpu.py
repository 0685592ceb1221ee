"""`python -m nemodiff bench --cpu`: what forwards and decoding cost on this CPU in each dtype, and others beside it."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nemodiff.bench.timing import generate_rate, milliseconds, timed_ar
from nemodiff.checkpoints.catalogue import fetch_base_gguf
from nemodiff.decode import Prefill
from nemodiff.engine.devices import DTYPES
from nemodiff.engine.loading import load
from nemodiff.engine.local import Engine
from nemodiff.errors import RequestError
from nemodiff.examples import EXAMPLES, Example
from nemodiff.markdown import table
from nemodiff.model.cpu import CpuModel, int8_obstacle
from nemodiff.model.runner import Runner
from nemodiff.model.transformer import Transformer
from nemodiff.model.weights import targets_of
from nemodiff.request import Request
from nemodiff.trace.events import Lane

#: Positions kept before the forwards that are timed, and how many rows those have; tokens of the prefill.
CONTEXT, ROWS, PREFILL = 128, (1, 8, 16, 32), 512
PEERS = ("llama-cpp",)
STRUCTURED = tuple(example for example in EXAMPLES if example.structured)


@dataclass(frozen=True, slots=True)
class Costs:
    """One dtype. forwards: rows → ms. ar, transformers: tokens/s after the prefill on the first structured prompt,
    None where not run. tracing: what a traced AR run takes beyond its lane's clock, as a share of that. speculation: a
    (AR, self-speculation) pair of lanes for every structured prompt, both from one run. prefill: tokens/s of a prompt
    of PREFILL tokens. parts: in the CPU kernels, rows → where a forward's milliseconds go."""

    dtype: str
    forwards: dict[int, float]
    ar: float
    tracing: float
    transformers: float | None
    speculation: dict[Example, tuple[Lane, Lane]]
    prefill: float = 0.0
    parts: dict[int, dict[str, float]] | None = None

    @property
    def speculation_rate(self) -> float:
        """Tokens/s of self-speculation after the prefill, over all prompts together."""
        return rate(*(lane for _, lane in self.speculation.values()))

    @property
    def ar_rate(self) -> float:
        """The same of AR, on the same prompts in the same runs."""
        return rate(*(lane for lane, _ in self.speculation.values()))


class Peer(NamedTuple):
    """Tokens/s of another engine: ar after the prefill; prefill of a prompt of PREFILL tokens."""

    ar: float
    prefill: float


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
        filled = engine.fill(_request(prompts[0], new_tokens, block_length, draft=engine.defaults.draft))
    peers: dict[str, Peer] = {}
    if peer and other:
        print(f"{peer} …", file=sys.stderr, flush=True)
        peers[peer] = other(ids, new_tokens)
    drafts = f"{filled.draft} drafts" + ("" if filled.draft == "tree" else f", block {filled.block_length}")
    return report(costs, peers, f"{where} · {drafts}, greedy, at most {new_tokens} new tokens", notes)


def _request(example: Example, new_tokens: int, block_length: int | None, **more: Any) -> Request:
    return Request(prompt=example.prompt, max_new_tokens=new_tokens, block_length=block_length, **more)


def _measure(engine: Engine, prompts: Sequence[Example], new_tokens: int, block_length: int | None) -> Costs:
    single = _request(prompts[0], new_tokens, block_length, modes=("ar",), ignore_eos=True)
    # Once, so that nothing is set up while it is timed.
    engine.generate(_request(prompts[0], 4, block_length, draft=engine.defaults.draft))
    ar, wall, decoding = timed_ar(engine, single)
    pairs = {}
    for example in prompts:
        how = {"modes": ("ar", "self-speculation"), "alternatives": 0, "draft": engine.defaults.draft}
        trace = engine.generate(_request(example, new_tokens, block_length, **how))
        pairs[example] = trace["ar"], trace["self-speculation"]
    return Costs(
        dtype=engine.dtype,
        forwards=_forwards(engine),
        ar=rate(ar),
        tracing=(wall - decoding) / decoding,
        transformers=_transformers_rate(engine.model, engine.encode(single), new_tokens),
        speculation=pairs,
        prefill=_prefill(engine),
        parts=_parts(engine),
    )


def _prefill(engine: Engine) -> float:
    tokens = [token % engine.model.config.vocab_size for token in range(PREFILL)]
    return 1000 * PREFILL / min(Prefill(engine.model, tokens, PREFILL).ms for _ in range(3))


def _context(model: Runner) -> tuple[list[int], Any]:
    """Tokens, and a cache that keeps them, with room for the most rows."""
    tokens = [token % model.config.vocab_size for token in range(CONTEXT)]
    return tokens, Prefill(model, tokens, CONTEXT + max(ROWS)).copy_cache("bench")


def _parts(engine: Engine) -> dict[int, dict[str, float]] | None:
    """The forward of median length of 21, split, for every row count."""
    model = engine.model
    if not isinstance(model, CpuModel):
        return None
    tokens, cache = _context(model)
    parts = {}
    for rows in ROWS:
        made = [model.profile(torch.tensor(tokens[:rows]), cache, causal=True) for _ in range(21)]
        parts[rows] = sorted(made, key=lambda one: sum(one.values()))[len(made) // 2]
    return parts


def _forwards(engine: Engine) -> dict[int, float]:
    model = engine.model
    tokens, cache = _context(model)

    def cost(rows: int) -> float:
        return milliseconds(lambda: model.forward(torch.tensor(tokens[:rows]), cache), model.device)

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


def _peer(name: str) -> Callable[[list[int], int], Peer]:
    """What measures another engine: (prompt's token ids, new tokens) → its figures, with the threads that torch has."""
    if name not in PEERS:
        raise RequestError(f"Unknown peer {name!r}: choose {' or '.join(PEERS)}.")
    try:
        import xllamacpp
    except (ImportError, OSError, RuntimeError) as error:
        raise RequestError(
            f"llama.cpp cannot be run here ({error}): pip install xllamacpp, or leave --peer out."
        ) from error

    def measure(ids: list[int], new_tokens: int) -> Peer:
        with tempfile.TemporaryDirectory(prefix="nemodiff-") as folder:
            settings = xllamacpp.CommonParams()
            settings.model.path = str(
                fetch_base_gguf(Path(folder), lambda line: print(line, file=sys.stderr, flush=True))
            )
            settings.n_ctx = max(len(ids) + new_tokens, PREFILL) + 64
            settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = torch.get_num_threads()
            settings.n_parallel = 1
            server = xllamacpp.Server(settings)

            def timings(prompt: list[int], tokens: int) -> dict[str, float]:
                how = {"temperature": 0.0, "cache_prompt": False, "ignore_eos": True}
                return server.handle_completions({"prompt": prompt, "n_predict": tokens, **how})["timings"]

            timings(ids, 3)  # once before it is timed
            prompt = [1000 + token for token in range(PREFILL)]
            return Peer(
                ar=max(timings(ids, new_tokens)["predicted_per_second"] for _ in range(3)),
                prefill=max(timings(prompt, 1)["prompt_per_second"] for _ in range(3)),
            )

    return measure


def report(costs: Sequence[Costs], peers: dict[str, Peer], where: str, notes: Sequence[str]) -> str:
    """The figures as markdown: a row per dtype, self-speculation by prompt in the fastest, and what they amount to."""
    fastest = max(costs, key=lambda one: one.ar)
    lines = [
        "\n".join([where, *notes, ""]),
        _by_dtype(costs),
        f"\nForwards are causal, after {CONTEXT} tokens. Rates leave the prefill out; those of several "
        "prompts are over all of them together.\n",
        _by_prompt(fastest),
        *(f"\n{_by_part(one.parts)}" for one in costs if one.parts),
    ]
    best = max(costs, key=lambda one: one.speculation_rate)
    said = [f"Our fastest AR ({fastest.dtype}) makes {fastest.ar:.1f} tokens/s"]
    if theirs := [one.transformers for one in costs if one.transformers]:
        said.append(f"{fastest.ar / max(theirs):.2f}× transformers' fastest generate ({max(theirs):.1f})")
    for name, figures in peers.items():
        said.append(f"{fastest.ar / figures.ar:.2f}× {name}'s AR on the base GGUF file ({figures.ar:.1f})")
    text = f"\n{', '.join(said)}. Self-speculation ({best.dtype}) on these prompts makes {best.speculation_rate:.1f}: "
    text += f"{best.speculation_rate / fastest.ar:.2f}× our fastest AR"
    text += "".join(f", {best.speculation_rate / one.ar:.2f}× {name}'s AR" for name, one in peers.items())
    quickest = max(costs, key=lambda one: one.prefill)
    top = quickest.prefill
    text += f". A prompt of {PREFILL} tokens is read at {top:.0f} tokens/s ({quickest.dtype})"
    text += "".join(
        f", {quickest.prefill / one.prefill:.2f}× {name} ({one.prefill:.0f})" for name, one in peers.items()
    )
    return "\n".join([*lines, f"{text}."])


def _by_dtype(costs: Sequence[Costs]) -> str:
    names = ["dtype", *(f"{rows} rows, ms" for rows in ROWS), "8 ÷ 1", "16 ÷ 1", f"prefill of {PREFILL}, tokens/s"]
    names += ["AR, tokens/s", "tracing", "transformers' generate", "AR on the prompts below, tokens/s"]
    rows = [
        (
            one.dtype,
            *(f"{ms:.1f}" for ms in one.forwards.values()),
            *(f"{one.forwards[rows] / one.forwards[1]:.2f}" for rows in (8, 16)),
            f"{one.prefill:.0f}",
            f"{one.ar:.1f}",
            f"{one.tracing:.1%}",
            "" if one.transformers is None else f"{one.transformers:.1f}",
            f"{one.ar_rate:.1f}",
            f"{one.speculation_rate:.1f}",
            f"{one.speculation_rate / max(one.ar_rate, 1e-9):.2f}×",
        )
        for one in costs
    ]
    return table([*names, "self-speculation on them, tokens/s", "ratio"], rows)


def _by_prompt(costs: Costs) -> str:
    names = [f"prompt, {costs.dtype}", "tokens", "AR, tokens/s", "self-speculation, tokens/s", "acceptance length"]
    rows = [
        (
            example.label,
            len(ar.tokens),
            f"{rate(ar):.1f}",
            f"{rate(fast):.1f}",
            f"{statistics.fmean(fast.acceptance_lengths or [1]):.2f}",
            f"{fast.tpf or 0:.2f}",
            f"{rate(fast) / max(rate(ar), 1e-9):.2f}×",
            "yes" if fast.tokens == ar.tokens else "no",
        )
        for example, (ar, fast) in costs.speculation.items()
    ]
    return table([*names, "TPF", "ratio of tokens/s", "identical to AR"], rows)


def _by_part(parts: dict[int, dict[str, float]]) -> str:
    names = list(next(iter(parts.values())))
    rows = [(f"{rows} rows", *(f"{spent[name]:.2f}" for name in names)) for rows, spent in parts.items()]
    return table(["where an int8 forward's time goes", *(f"{name}, ms" for name in names)], rows)
