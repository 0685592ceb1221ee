"""Speed of light: how few forwards could reproduce what one-position-a-step denoising writes (paper, appendix).

The target of a block is what serial denoising makes of it: one commit per forward, the most confident position. An
oracle then commits, at every step, the largest set of positions after which serial denoising still ends in the target.
It knows the target, so it is no sampler: it bounds what a better one could reach.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from nemodiff.decode.lane import LaneRun
from nemodiff.trace.oracle import Block, Progress

#: Forwards that simulations of a block may take, a position of the block.
BUDGET = 8

State = tuple[int | None, ...]


def speed_of_light(lane: LaneRun, most: int, budget: int) -> Generator[Progress, None, None]:
    """The oracle on a lane after its prefill, block by block; yields after every model forward and with every block.

    most: new tokens at most. budget: simulated forwards per block.
    """
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

    Generators here yield once per model forward, so that whoever drives them can stop there.
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
            refreshed=not any(self._ends(token, offset) for offset, token in enumerate(self._goal)),
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
        settings, index = self._lane.settings, self._start + offset
        return self._lane.stops(token, index) or token in settings.eos or index + 1 >= settings.max_new_tokens


def _with(state: State, offsets: list[int], tokens: list[int]) -> State:
    return tuple(tokens[i] if i in offsets else token for i, token in enumerate(state))
