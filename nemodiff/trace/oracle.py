"""Ceiling: how few forwards an oracle needs for what serial denoising writes, block by block."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: A ceiling from a file may be anybody's.
MAX_BLOCKS, MAX_LENGTH = 8192, 4096


@dataclass(frozen=True, slots=True)
class Block:
    """One block: its first answer position, the target's tokens from there on (the seed included, none after an EOS),
    and the answer positions that each forward of the oracle commits.

    serial: forwards of serial denoising. simulated: further forwards that the search ran, of `budget` it might have.
    exhausted: the budget ended the search of some step early, so that fewer forwards may be possible. refreshed: a
    causal forward follows, for the next seed.
    """

    start: int
    tokens: tuple[int, ...]
    commits: tuple[tuple[int, ...], ...]
    serial: int
    simulated: int
    budget: int
    exhausted: bool
    refreshed: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "start": self.start,
            "tokens": list(self.tokens),
            "commits": [list(step) for step in self.commits],
            "serial": self.serial,
            "simulated": self.simulated,
            "budget": self.budget,
            "exhausted": self.exhausted,
            "refreshed": self.refreshed,
        }


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: answer tokens settled, of at most `most`; model forwards run; the block that was just finished."""

    tokens: int
    most: int
    forwards: int
    block: Block | None = None

    def to_json(self) -> dict[str, Any]:
        block = {"block": self.block.to_json()} if self.block else {}
        return {"tokens": self.tokens, "most": self.most, "forwards": self.forwards} | block

    @classmethod
    def from_json(cls, data: Any) -> Progress:
        """Read progress that a replica tells of. Raises ValueError when it is none."""
        tokens, most, forwards = _numbers([data.get(name) for name in ("tokens", "most", "forwards")])
        return cls(tokens, most, forwards, _read_block(data["block"]) if "block" in data else None)


@dataclass(slots=True)
class Ceiling:
    """The blocks of an answer and what they come to."""

    blocks: list[Block] = field(default_factory=list)

    @property
    def tokens(self) -> list[int]:
        return [token for block in self.blocks for token in block.tokens]

    @property
    def denoising(self) -> int:
        """The oracle's denoising forwards."""
        return sum(len(block.commits) for block in self.blocks)

    @property
    def forwards(self) -> int:
        """Forwards after the prefill as a diffusion lane counts them: denoising and refreshes."""
        return self.denoising + sum(block.refreshed for block in self.blocks)

    @property
    def serial(self) -> int:
        """What serial denoising takes, refreshes included."""
        return sum(block.serial + block.refreshed for block in self.blocks)

    @property
    def tpf(self) -> float | None:
        """Tokens per forward, refreshes included; None when the prompt alone gave the answer."""
        return len(self.tokens) / self.forwards if self.forwards else None

    @property
    def per_denoising(self) -> float | None:
        """Tokens a denoising forward, as the paper counts."""
        return len(self.tokens) / self.denoising if self.denoising else None

    def kept_counts(self) -> list[int]:
        """Tokens of the answer that stand after the prefill and after every forward."""
        length = len(self.tokens)
        counts = [1]
        for block in self.blocks:
            for step in block.commits:
                counts.append(counts[-1] + sum(place < length for place in step))
            if block.refreshed:
                counts.append(counts[-1] + 1)
        return counts

    def to_json(self) -> dict[str, Any]:
        return {"blocks": [block.to_json() for block in self.blocks]}

    @classmethod
    def from_json(cls, data: Any) -> Ceiling:
        """Read an untrusted ceiling. Raises ValueError when it is none."""
        blocks = data.get("blocks") if isinstance(data, dict) else None
        if not isinstance(blocks, list) or not 1 <= len(blocks) <= MAX_BLOCKS:
            raise ValueError("no blocks")
        return cls([_read_block(block) for block in blocks])


def _read_block(data: Any) -> Block:
    if not isinstance(data, dict) or not all(type(data.get(name)) is bool for name in ("exhausted", "refreshed")):
        raise ValueError("no block")
    commits = data.get("commits")
    if not isinstance(commits, list) or len(commits) > MAX_LENGTH:
        raise ValueError("no commits")
    start, serial, simulated, budget = _numbers([data.get(name) for name in ("start", "serial", "simulated", "budget")])
    tokens = _numbers(data.get("tokens"))
    if not tokens:
        raise ValueError("no tokens")
    steps = tuple(_numbers(step) for step in commits)
    return Block(start, tokens, steps, serial, simulated, budget, data["exhausted"], data["refreshed"])


def _numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or len(values) > MAX_LENGTH:
        raise ValueError("no list of numbers")
    if not all(type(value) is int and 0 <= value < 2**31 for value in values):
        raise ValueError("no list of numbers")
    return tuple(values)
