"""Block diffusion: denoise a block with the prefix cached, refresh it causally, seed the next."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from nemodiff.decode.lane import Guesses, LaneRun
from nemodiff.samplers import Proposal
from nemodiff.trace import Event, Position


def diffusion(lane: LaneRun) -> Generator[Event, None, None]:
    """Yield the prefill (whose last logits give the first seed), denoise events, and a refresh between blocks.

    As released: the block is [seed, MASK × (B - 1)]; denoising forwards are bidirectional and write nothing; a
    finished block runs once causally, which extends the cache and gives the next seed. A block ends early at an EOS
    with no mask before it; the last block is not refreshed, nothing would read it. A block in which the thinking
    budget ends starts with </think> in that place.
    """
    length = lane.settings.block_length
    start, guess = 0, lane.first()
    finish = lane.ends(guess.tokens[0], 0)
    yield lane.event("prefill", 0, 1, [guess.position(0, 0, "seed")], finish)
    while finish is None:
        block: list[int | None] = [guess.tokens[0], *[None] * (length - 1)]
        step, given = 0, []
        if forced := lane.forced(start + 1, length - 1):
            offset, token = forced
            block[1 + offset] = token
            given = [Position(start + 1 + offset, token, "committed")]
        masks = block.count(None)
        while finish is None and None in block:
            positions, finish = _denoise(lane, block, start, step, masks)
            step += 1
            yield lane.event("denoise", start, length, given + positions, finish)
            given = []
        if finish is None:
            guess = lane.forward(_tokens(block), start + length, causal=True, rows=slice(-1, None))
            lane.cache.keep(length)
            start += length
            finish = lane.ends(guess.tokens[0], start)
            yield lane.event("refresh", start, 1, [guess.position(0, start, "seed")], finish)


def _denoise(
    lane: LaneRun, block: list[int | None], start: int, step: int, masks: int
) -> tuple[list[Position], str | None]:
    """Run one denoising forward and commit into `block`, which started with `masks` masks.

    Returns what it left of every position that was masked.
    """
    sampler, mask = lane.settings.sampler, lane.model.config.mask
    tokens = [mask if token is None else token for token in block]
    masked = [offset for offset, token in enumerate(block) if token is None]
    hidden, measure = [token is None for token in block[1:]], sampler.measure
    guesses = lane.denoise(tokens, start, measure=measure and (lambda probabilities: measure(probabilities, hidden)))
    proposal = Proposal(
        confidence=[guesses.confidence[offset - 1] for offset in masked],
        measured=[guesses.measured[offset - 1] for offset in masked] if measure else [],
        step=step,
        block_masks=masks,
    )
    committed = {masked[i] for i in sampler.choose(proposal)}
    scores: Sequence[float | None] = proposal.measured or [None] * len(masked)
    for offset in committed:
        block[offset] = guesses.tokens[offset - 1]
    finish, kept = _finished(lane, block, start)
    states = {offset: "committed" if offset in committed else "masked" for offset in masked}
    if finish:
        states |= dict.fromkeys(range(kept, len(block)), "discarded")
    return [
        _position(guesses, block, start, offset, state, scores[masked.index(offset)] if offset in masked else None)
        for offset, state in sorted(states.items())
    ], finish


def _position(
    guesses: Guesses, block: list[int | None], start: int, offset: int, state: str, score: float | None
) -> Position:
    position = guesses.position(offset - 1, start + offset, state, score=score)
    held = block[offset]
    if held is None or held == position.token:
        return position
    return Position(start + offset, held, state)  # committed earlier, thrown away now: not this forward's guess


def _tokens(block: list[int | None]) -> list[int]:
    """The tokens of a block that has no mask left."""
    return [token for token in block if token is not None]


def _finished(lane: LaneRun, block: list[int | None], start: int) -> tuple[str | None, int]:
    """(reason, tokens of the block that stay) if the answer ends inside the filled head of the block."""
    for offset, token in enumerate(block):
        if token is None:
            break
        if reason := lane.ends(token, start + offset):
            return reason, offset + 1
    return None, len(block)
