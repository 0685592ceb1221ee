"""Block diffusion: denoise a block with the prefix cached, refresh it causally, seed the next."""

from __future__ import annotations

from collections.abc import Generator

from nemodiff.decode.lane import Guesses, LaneRun
from nemodiff.samplers import Proposal
from nemodiff.trace.events import Event, Position


def diffusion(lane: LaneRun) -> Generator[Event, None, None]:
    """Yield the prefill (whose last logits give the first seed), denoise events, and a refresh between blocks.

    As released: the block is [seed, MASK × (B - 1)]; denoising forwards are bidirectional and write nothing; a
    finished block runs once causally, which extends the cache and gives the next seed. A block ends early at an EOS
    with no mask before it; the last block is not refreshed, nothing would read it. A block in which the thinking
    budget ends starts with </think> in that place; where the model then commits one before it, the forced one is taken
    back, and something else comes in its place.
    """
    length = lane.settings.block_length
    start, phase, guess = 0, "prefill", lane.first()
    while True:
        block: list[int | None] = [guess.tokens[0], *[None] * (length - 1)]
        positions, given = [guess.position(0, start, "seed")], []
        finish = lane.ends(guess.tokens[0], start)
        forced = None if finish else lane.forced(start + 1, length - 1)
        if forced:
            offset, token = forced
            block[1 + offset] = token
            given = [Position(start + 1 + offset, token, "committed")]
        if forced and None not in block:  # a block of two, whose second token is forced
            positions, given, finish = positions + given, [], lane.ends(forced[1], start + 1)
        yield lane.event(phase, start, len(positions), positions, finish)
        step, masks, barred = 0, block.count(None), None
        while finish is None and None in block:
            positions, finish = _denoise(lane, block, start, step, masks, forced, barred)
            step += 1
            yield lane.event("denoise", start, length, given + positions, finish)
            given = []
            if forced and block[1 + forced[0]] != forced[1]:
                forced, barred = None, forced
        if finish:
            return
        guess = lane.forward(_tokens(block), start + length, causal=True, rows=slice(-1, None))
        lane.cache.keep(length)
        start, phase = start + length, "refresh"


def _denoise(
    lane: LaneRun,
    block: list[int | None],
    start: int,
    step: int,
    masks: int,
    forced: tuple[int, int] | None,
    barred: tuple[int, int] | None,
) -> tuple[list[Position], str | None]:
    """Run one denoising forward and commit into `block`, which started with `masks` masks.

    forced: (row, </think>) as the block has it; masked again when </think> is committed before it. barred: see
    `LaneRun.forward`. Returns what it left of every position that was masked, and of a forced one that is again.
    """
    sampler, mask = lane.settings.sampler, lane.model.config.mask
    tokens = [mask if token is None else token for token in block]
    masked = [offset for offset, token in enumerate(block) if token is None]
    hidden, measure = [token is None for token in block[1:]], sampler.measure
    guesses = lane.denoise(
        tokens, start, measure=measure and (lambda probabilities: measure(probabilities, hidden)), barred=barred
    )
    proposal = Proposal(
        confidence=[guesses.confidence[offset - 1] for offset in masked],
        measured=[guesses.measured[offset - 1] for offset in masked] if measure else [],
        step=step,
        block_masks=masks,
    )
    committed = {masked[i] for i in sampler.choose(proposal)}
    scores = dict(zip(masked, proposal.measured, strict=False))  # empty without a measure
    for offset in committed:
        block[offset] = guesses.tokens[offset - 1]
    if forced and forced[1] in block[1 : 1 + forced[0]]:
        block[1 + forced[0]] = None
        masked.append(1 + forced[0])
    finish, kept = _finished(lane, block, start)
    states = {offset: "committed" if offset in committed else "masked" for offset in masked}
    if finish:
        states |= dict.fromkeys(range(kept, len(block)), "discarded")
    return [
        _position(guesses, block, start, offset, state, scores.get(offset)) for offset, state in sorted(states.items())
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
