"""Speed of light: how few forwards could reproduce what one-position-a-step denoising writes (paper, appendix).

The target of a block is what serial denoising makes of it: one commit a forward, the most confident position. An
oracle then commits, at every step, the largest set of positions after which serial denoising still ends in the target.
It knows the target, so it is no sampler: it bounds what a better one could reach.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from nemodiff.checkpoints.catalogue import DEFAULT
from nemodiff.command import refuse_unused
from nemodiff.decode import LaneRun
from nemodiff.engine.loading import load
from nemodiff.engine.local import Engine
from nemodiff.errors import RequestError
from nemodiff.evaluate.agreement import agreement
from nemodiff.examples import EXAMPLES
from nemodiff.request import Request
from nemodiff.trace.events import Lane
from nemodiff.trace.oracle import Block, Ceiling

#: Forwards that simulations of a block may take, a position of the block.
BUDGET = 8

State = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: answer tokens settled, of at most `most`; model forwards run; the block that was just finished."""

    tokens: int
    most: int
    forwards: int
    block: Block | None = None


def speed_of_light(engine: Engine, request: Request, budget: int | None = None) -> Generator[Progress, None, None]:
    """The oracle's run of a request's diffusion lane; yields after every piece of the prompt, every model forward and
    with every block.

    What Blocks come to is a `nemodiff.trace.oracle.Ceiling`. budget: simulated forwards a block (default BUDGET times
    its length). Close the generator to stop within one forward. A thinking budget and a
    time limit of the request are left out. Raises RequestError before it starts.
    """
    filled = dataclasses.replace(
        engine.fill(request),
        modes=("diffusion",),
        draft="linear",
        acceptance="match",
        ar_weight=1.0,
        alternatives=0,
        max_thinking_tokens=None,
        time_limit=None,
    )
    if budget is not None and budget < 1:
        raise RequestError(f"The budget must be 1 forward or more, not {budget}.")
    engine.encode(filled)
    return _run(engine, filled, budget or BUDGET * engine.defaults.block_length_of(filled))


def _run(engine: Engine, request: Request, budget: int) -> Generator[Progress, None, None]:
    with closing(engine.lane(request, "diffusion")) as prefilling:
        for lane in prefilling:
            if lane is None:
                yield Progress(0, request.max_new_tokens, 0)
            else:
                yield from _blocks(lane, request.max_new_tokens, budget)


def _blocks(lane: LaneRun, most: int, budget: int) -> Generator[Progress, None, None]:
    start, seed = 0, lane.first().tokens[0]
    while True:
        search = Search(lane, seed, start, budget)
        for _ in search.run():
            yield Progress(start + 1, most, lane.forwards)
        block = search.block
        if block.refreshed:
            guess = lane.forward(list(block.tokens), start + len(block.tokens), causal=True, rows=slice(-1, None))
            lane.cache.keep(len(block.tokens))
            seed = guess.tokens[0]
        start += len(block.tokens)
        yield Progress(start, most, lane.forwards, block)
        if not block.refreshed:
            return


class Search:
    """The oracle on one block. A state is the block's tokens, None where it is masked; its forward runs only once.

    Generators here yield once a model forward, so that whoever drives them can stop there.
    """

    #: What `run` finds.
    block: Block

    def __init__(self, lane: LaneRun, seed: int, start: int, budget: int) -> None:
        self._lane, self._seed, self._start, self._budget = lane, seed, start, budget
        self._first: State = (seed, *[None] * (lane.settings.block_length - 1))
        self._seen: dict[State, tuple[list[float], list[int]]] = {}
        self._safe: dict[State, bool] = {}
        self._serial = self._simulated = 0
        self._exhausted = False
        self._goal: tuple[int, ...] = ()

    def run(self) -> Iterator[None]:
        """Fill `block`."""
        serial = yield from self._target()
        self._goal = tuple(token for token in serial[-1][: self._kept(serial[-1])] if token is not None)
        self._serial = len(self._seen)
        path = [self._first]
        while not self._reached(path[-1]):
            path.append((yield from self._largest(path[-1])))
        if len(path) > len(serial):  # large steps behind an EOS may gain nothing
            path = serial
        commits = [
            tuple(self._start + i for i, token in enumerate(after) if token != before[i])
            for before, after in zip(path, path[1:], strict=False)
        ]
        self.block = Block(
            start=self._start,
            tokens=self._goal,
            commits=tuple(commits),
            serial=self._serial,
            simulated=len(self._seen) - self._serial,
            budget=self._budget,
            exhausted=self._exhausted,
            refreshed=not self._ends(self._goal[-1], len(self._goal) - 1),
        )

    def _target(self) -> Generator[None, None, list[State]]:
        """The states of serial denoising, until the block is full or an ending has no mask before it."""
        path = [self._first]
        while self._kept(path[-1]) is None:
            order, tokens = yield from self._ranked(path[-1])
            path.append(_with(path[-1], order[:1], tokens))
        return path

    def _largest(self, state: State) -> Generator[None, None, State]:
        """The state after the largest safe step from a safe `state`: correct guesses by falling confidence, as many
        as still lead to the target, by bisection. One is always safe: it is serial denoising's own step."""
        order, tokens = yield from self._ranked(state)
        right = [i for i in order if i >= len(self._goal) or tokens[i] == self._goal[i]]
        safe, unsafe, tried = 1, len(right) + 1, len(right)
        while unsafe - safe > 1:
            if (yield from self._is_safe(_with(state, right[:tried], tokens))):
                safe = tried
            else:
                unsafe = tried
            tried = (safe + unsafe) // 2
        return _with(state, right[:safe], tokens)

    def _is_safe(self, state: State) -> Generator[None, None, bool]:
        """Whether serial denoising from `state` ends in the target; taken to be not when the budget ends first."""
        path = []
        while state not in self._safe:
            if self._reached(state):
                self._safe[state] = True
                break
            if state not in self._seen and len(self._seen) - self._serial >= self._budget:
                self._exhausted = True
                return False
            order, tokens = yield from self._ranked(state)
            path.append(state)
            if order[0] < len(self._goal) and tokens[order[0]] != self._goal[order[0]]:
                self._safe[state] = False
                break
            state = _with(state, order[:1], tokens)
        self._safe |= dict.fromkeys(path, self._safe[state])
        return self._safe[state]

    def _ranked(self, state: State) -> Generator[None, None, tuple[list[int], list[int]]]:
        """Masked offsets by falling confidence, and the guessed token of every offset."""
        if state not in self._seen:
            mask = self._lane.model.config.mask
            block = [mask if token is None else token for token in state]
            guesses = self._lane.denoise(block, self._start)
            self._seen[state] = guesses.confidence, [self._seed, *guesses.tokens]
            yield
        confidence, tokens = self._seen[state]
        masked = [i for i, token in enumerate(state) if token is None]
        return sorted(masked, key=lambda i: -confidence[i - 1]), tokens

    def _reached(self, state: State) -> bool:
        return state[: len(self._goal)] == self._goal

    def _kept(self, state: State) -> int | None:
        """How many tokens of the block stay: all when it is full, fewer when the answer ends before its first mask;
        None when neither is so yet."""
        for offset, token in enumerate(state):
            if token is None:
                return None
            if self._ends(token, offset):
                return offset + 1
        return len(state)

    def _ends(self, token: int, offset: int) -> bool:
        settings = self._lane.settings
        return token in settings.eos or self._start + offset + 1 >= settings.max_new_tokens


def _with(state: State, offsets: list[int], tokens: list[int]) -> State:
    return tuple(tokens[i] if i in offsets else token for i, token in enumerate(state))


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("speed-of-light", help="the fewest forwards that could write serial denoising's text")
    parser.add_argument("--checkpoint", default=DEFAULT, help="a name of `checkpoints`, a folder or a hub id")
    parser.add_argument("--block-lengths", default="4,8,16,32")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--prompts", type=int, help=f"how many of the example prompts (default: {len(EXAMPLES)})")
    parser.add_argument("--prompt", help="this text instead of the example prompts")
    parser.add_argument("--budget", type=int, help=f"simulated forwards a block (default: {BUDGET} a position)")
    parser.add_argument("--dtype")
    parser.add_argument("--device")
    parser.add_argument("--json", action="store_true", help="print one JSON object a block length")
    parser.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    try:
        lengths = [int(part) for part in args.block_lengths.split(",")]
    except ValueError:
        raise RequestError(
            f"--block-lengths takes whole numbers separated by commas, not {args.block_lengths!r}."
        ) from None
    if args.prompt is not None:
        refuse_unused(args, "--prompt", ("prompts",), "they are other prompts")
    count = len(EXAMPLES) if args.prompts is None else args.prompts
    if not 1 <= count <= len(EXAMPLES):
        raise RequestError(f"--prompts must be from 1 to {len(EXAMPLES)}, not {count}.")
    spread = [EXAMPLES[i * len(EXAMPLES) // count].prompt for i in range(count)]
    prompts = spread if args.prompt is None else [args.prompt]
    settings: dict[str, Any] = {"modes": ("diffusion",), "max_new_tokens": args.max_new_tokens, "alternatives": 0}
    plan = {length: [Request(prompt=one, block_length=length, **settings) for one in prompts] for length in lengths}
    engine = load(args.checkpoint, device=args.device, dtype=args.dtype)
    if not args.json:
        threshold = engine.fill(plan[lengths[0]][0]).threshold
        print(heading(engine, len(prompts), args.max_new_tokens, threshold))
    for length, requests in plan.items():
        figures = row(engine, length, requests, args.budget)
        print(json.dumps(figures) if args.json else line(figures), flush=True)
    return 0


_HEAD = """\
{engine.checkpoint} · {engine.device} · {engine.dtype} · {prompts} prompts, at most {tokens} new tokens; sampler: \
confidence >= {threshold}
TPF: tokens a forward; a prompt's first token is the prefill's, which counts as no forward.

| block | serial TPF | sampler TPF | ceiling TPF | sampler / ceiling | ceiling, tokens a denoising forward | \
simulated forwards a block | searches cut | sampler agrees with serial | seconds |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def heading(engine: Engine, prompts: int, tokens: int, threshold: float | None) -> str:
    """What stands above the lines."""
    return _HEAD.format(engine=engine, prompts=prompts, tokens=tokens, threshold=threshold)


def row(engine: Engine, length: int, requests: list[Request], budget: int | None) -> dict[str, float]:
    """Sums over the prompts, as figures of one block length."""
    begin = time.perf_counter()
    ceilings, lanes = [], []
    for done, request in enumerate(requests):
        ceiling = Ceiling()
        for step in speed_of_light(engine, request, budget):
            if step.block:
                ceiling.blocks.append(step.block)
            if sys.stderr.isatty():
                place = f"block {length}: prompt {done + 1} of {len(requests)}, {step.tokens} tokens"
                print(f"\r\033[K{place}, {step.forwards} forwards", end="\r", file=sys.stderr, flush=True)
        ceilings.append(ceiling)
        lanes.append(engine.generate(request).lanes[0])
    blocks = [block for ceiling in ceilings for block in ceiling.blocks]
    tokens = sum(len(ceiling.tokens) for ceiling in ceilings)
    sampled = sum(len(lane.tokens) for lane in lanes) / max(sum(lane.forwards for lane in lanes), 1)
    reached = tokens / max(sum(ceiling.forwards for ceiling in ceilings), 1)
    return {
        "block_length": length,
        "serial_tpf": round(tokens / max(sum(ceiling.serial for ceiling in ceilings), 1), 4),
        "sampler_tpf": round(sampled, 4),
        "ceiling_tpf": round(reached, 4),
        "share": round(sampled / reached, 4),
        "ceiling_per_denoising": round(tokens / max(sum(ceiling.denoising for ceiling in ceilings), 1), 4),
        "simulated": round(sum(block.simulated for block in blocks) / len(blocks), 2),
        "exhausted": round(sum(block.exhausted for block in blocks) / len(blocks), 4),
        "agreement": round(sum(_agreement(*pair) for pair in zip(lanes, ceilings, strict=True)) / len(ceilings), 4),
        "seconds": round(time.perf_counter() - begin, 1),
    }


def _agreement(lane: Lane, ceiling: Ceiling) -> float:
    return agreement(lane, Lane("diffusion", tokens=ceiling.tokens))


def line(row: dict[str, float]) -> str:
    """A row of the table."""
    return (
        f"| {row['block_length']} | {row['serial_tpf']:.2f} | {row['sampler_tpf']:.2f} | {row['ceiling_tpf']:.2f} | "
        f"{row['share']:.0%} | {row['ceiling_per_denoising']:.2f} | {row['simulated']:.0f} | {row['exhausted']:.0%} | "
        f"{row['agreement']:.0%} | {row['seconds']:.0f} |"
    )
