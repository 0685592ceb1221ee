"""From instances to batches: tokenised sequences, with noisy copies of their answers, in the flat stream the forward
runs over."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemodiff.tasks.structured.families import TRAINED_FAMILIES, WEIGHTS, instance
from nemodiff.training.distill import NEUTRAL, chat_ids, read_answers
from nemodiff.training.dual_stream import Span, Stream
from nemodiff.training.noisy_copies import CHAT_DECAY, DECAY, WAYS, Noisy, noisy_copy

PROMPT_WEIGHT = 0.3  # of the words of the user, which the frozen base's distribution is kept on
# Of the base's own words against those of tasks: it holds AR nearer to the base at no cost in tokens.
CHAT_WEIGHT, NEUTRAL_WEIGHT = 3.0, 5.0
# A token to which the frozen base gives less than this is hard: a draft that reaches it mostly fails there.
HARD = 0.6


@dataclass(slots=True)
class Sequence:
    """A conversation of one turn: prompt ids up to where the answer begins, answer ids, and whether these end with
    the end-of-turn id.

    chat: the base wrote the answer, and its distribution is the clean stream's target. neutral: plain text by the
    base, without a chat template and without noisy copies, there only to keep the AR mode where it was.
    """

    prompt: list[int]
    answer: list[int]
    chat: bool = False
    ended: bool = True
    neutral: bool = False


@dataclass
class Batch:
    """A packed batch. Rows are indices into the flat stream, labels are ids of the restricted vocabulary (-1: not in
    it).

    Clean rows predict answers (and, for chat, the user's words); of a clean row, `teacher` is its row in the frozen
    base's stream or -1. Noisy rows are the masked predictions; of a noisy row, `clean` is the clean row (an index
    into `clean_rows`) of the same target or -1, `blocks` the number of its block.
    """

    stream: Stream
    clean_rows: Tensor
    clean_labels: Tensor
    clean_weights: Tensor
    teacher: Tensor
    noisy_rows: Tensor
    noisy_labels: Tensor
    noisy_weights: Tensor
    noisy_clean: Tensor
    distances: Tensor
    blocks: Tensor
    base_stream: Stream | None
    answer_tokens: int
    # The frozen base's distribution [rows with a teacher, restricted vocabulary], where it is known already.
    taught: Tensor | None = None


def _masks(
    length: int, prefix: int, noisy: list[Noisy], prompt: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """Additive masks of one sequence: its clean tokens [length, prefix + length], its noisy ones [noisy, prefix +
    length + noisy].

    `length` counts clean tokens after the common prefix, `prompt` those of them before the answer.
    """
    order = torch.arange(length)
    clean = torch.cat((torch.ones(length, prefix, dtype=torch.bool), order[:, None] >= order[None, :]), 1)
    blocked = torch.zeros(clean.shape, dtype=dtype).masked_fill_(~clean, float("-inf"))
    if not noisy:
        return blocked, None
    start = torch.tensor([prompt + start for copy in noisy for start in copy.start])
    copies = torch.tensor([i for i, copy in enumerate(noisy) for _ in copy.start])
    before = order[None, :] < start[:, None]
    own = (start[:, None] == start[None, :]) & (copies[:, None] == copies[None, :])
    seen = torch.cat((torch.ones(len(start), prefix, dtype=torch.bool), before, own), 1)
    return blocked, torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))


def _stream(
    sequences: list[Sequence], prefix: int, copies: list[list[Noisy]], dtype: torch.dtype
) -> tuple[Stream, list[int], list[int]]:
    """The flat stream [prefix | clean, clean, … | noisy, noisy, …] with where each sequence's clean and noisy tokens
    begin. Neutral sequences do not begin with the prefix and do not see it."""
    tokens = next((list(s.prompt[:prefix]) for s in sequences if not s.neutral), [])
    prefix = len(tokens)
    positions, masked = list(range(prefix)), [False] * prefix
    clean_at, noisy_at = [], []
    for sequence in sequences:
        clean_at.append(len(tokens))
        shared = 0 if sequence.neutral else prefix
        whole = sequence.prompt + sequence.answer
        tokens += whole[shared:]
        positions += range(shared, len(whole))
        masked += [False] * (len(whole) - shared)
    for sequence, noisy in zip(sequences, copies, strict=True):
        noisy_at.append(len(tokens))
        for copy in noisy:
            tokens += copy.tokens
            positions += [len(sequence.prompt) + i for i in copy.index]
            masked += copy.masked
    spans = []
    if prefix:
        mask, _ = _masks(prefix, 0, [], 0, dtype)
        spans.append(Span((0, prefix), [(0, prefix)], mask))
    for sequence, noisy, first, second in zip(sequences, copies, clean_at, noisy_at, strict=True):
        shared = 0 if sequence.neutral else prefix
        prompt = len(sequence.prompt) - shared
        length = prompt + len(sequence.answer)
        clean_mask, noisy_mask = _masks(length, shared, noisy, prompt, dtype)
        keys = ([(0, shared)] if shared else []) + [(first, first + length)]
        spans.append(Span((first, first + length), keys, clean_mask))
        if noisy_mask is not None and len(noisy_mask):
            spans.append(
                Span((second, second + len(noisy_mask)), [*keys, (second, second + len(noisy_mask))], noisy_mask)
            )
    return Stream(torch.tensor(tokens), torch.tensor(positions), torch.tensor(masked), spans), clean_at, noisy_at


def common_prefix(sequences: list[Sequence]) -> int:
    """How many tokens all prompts but the neutral ones begin with, leaving each at least one of its own."""
    prompts = [sequence.prompt for sequence in sequences if not sequence.neutral] or [[0]]
    shortest = min(map(len, prompts)) - 1
    return next((i for i in range(shortest) if any(prompt[i] != prompts[0][i] for prompt in prompts)), max(shortest, 0))


def pack(
    sequences: list[Sequence],
    copies: list[list[Noisy]],
    restricted: Tensor,
    *,
    dtype: torch.dtype,
    prefix: int | None = None,
) -> Batch:
    """Sequences and their noisy copies → one Batch; `restricted` [vocabulary] maps a token id to its restricted id or
    -1. prefix: how many first tokens of the prompts are laid down once, None for all that they share."""
    prefix = common_prefix(sequences) if prefix is None else prefix
    stream, clean_at, noisy_at = _stream(sequences, prefix, copies, dtype)
    chats = [sequence for sequence in sequences if sequence.chat]
    base_stream: Stream | None = None
    base_at: list[int] = []
    if chats:
        base_stream, base_at, _ = _stream(chats, prefix, [[] for _ in chats], dtype)
    rows: list[int] = []
    labels, weights, teacher = [], [], []
    noisy_rows, noisy_labels, noisy_weights, noisy_clean, distances = [], [], [], [], []
    blocks: list[int] = []
    chat = block = 0
    for sequence, noisy, first, second in zip(sequences, copies, clean_at, noisy_at, strict=True):
        shared = 0 if sequence.neutral else prefix
        own = len(sequence.prompt) - shared
        whole = (sequence.prompt + sequence.answer)[shared:]
        full = NEUTRAL_WEIGHT if sequence.neutral else CHAT_WEIGHT if sequence.chat else 1.0
        answer_row: dict[int, int] = {}
        for i in range(0 if sequence.chat else own - 1, len(whole) - 1):
            if i >= own - 1:
                answer_row[i - own + 1] = len(rows)
            rows.append(first + i)
            labels.append(whole[i + 1])
            weights.append(full if i >= own - 1 else PROMPT_WEIGHT)
            teacher.append(base_at[chat] + i if sequence.chat else -1)
        chat += sequence.chat
        at = second
        for copy in noisy:
            for i, target in enumerate(copy.target):
                block += copy.start[i] != copy.start[i - 1] or not i
                if target >= 0:
                    noisy_rows.append(at + i)
                    noisy_labels.append(copy.label[i])
                    noisy_weights.append(copy.weight[i])
                    noisy_clean.append(answer_row.get(target, -1))
                    distances.append(copy.distance[i])
                    blocks.append(block)
            at += len(copy.tokens)
    clean_labels, masked_labels = (
        restricted[torch.tensor(labels)],
        restricted[torch.tensor(noisy_labels, dtype=torch.long)],
    )
    return Batch(
        stream,
        torch.tensor(rows),
        clean_labels,
        torch.tensor(weights) * (clean_labels >= 0),
        torch.tensor(teacher),
        torch.tensor(noisy_rows, dtype=torch.long),
        masked_labels,
        torch.tensor(noisy_weights) * (masked_labels >= 0),
        torch.tensor(noisy_clean, dtype=torch.long),
        torch.tensor(distances, dtype=torch.long),
        torch.tensor(blocks, dtype=torch.long),
        base_stream,
        sum(len(sequence.answer) for sequence in sequences),
    )


class Mixture:
    """Draws batches of structured tasks and distilled chat; a batch depends on (seed, step, worker) alone, so a
    resumed run goes on."""

    def __init__(
        self,
        tokenizer: Any,
        chat_file: Path | None,
        *,
        seed: int = 0,
        chat_share: float = 0.4,
        neutral_share: float = 0.06,
        max_answer: int = 140,
        mask_id: int = 16,
    ):
        self.tokenizer, self.seed, self.max_answer, self.mask_id = tokenizer, seed, max_answer, mask_id
        self.chat_share, self.neutral_share = chat_share, neutral_share
        self.end_id = tokenizer.eos_token_id
        self.weights = list(WEIGHTS)  # how often each trained family is drawn
        self.chat: list[Sequence] = []
        self.neutral: list[Sequence] = []
        for record in read_answers(chat_file) if chat_file else []:
            if not record["kept"]:
                continue
            ids, neutral = record["answer_ids"], record["kind"] == NEUTRAL
            prompt = record["prompt"]
            begun = tokenizer.encode(prompt, add_special_tokens=False) if neutral else chat_ids(tokenizer, prompt)
            sequence = Sequence(begun, ids, chat=True, ended=ids[-1] == self.end_id, neutral=neutral)
            (self.neutral if neutral else self.chat).append(sequence)

    def structured(self, name: str, seed: int | str, *, held_out: bool = False) -> Sequence:
        """One instance of a family as a Sequence."""
        prompt, answer = instance(name, seed, held_out=held_out)
        return Sequence(
            chat_ids(self.tokenizer, prompt), [*self.tokenizer.encode(answer, add_special_tokens=False), self.end_id]
        )

    def vocabulary(self, size: int, *, instances: int = 120, frequent: int = 4000) -> Tensor:
        """Sorted ids that the data uses, with the `frequent` lowest ids (the tokenizer's most frequent merges): the
        restricted head."""
        used = set(range(min(frequent, size)))
        for sequence in self.chat + self.neutral:
            used.update(sequence.prompt, sequence.answer)
        for name in TRAINED_FAMILIES:
            for i in range(instances):
                used.update(self.structured(name, f"vocabulary-{i}").answer)
        return torch.tensor(sorted(used))

    def sequences(self, step: int, worker: int, budget: int, copies: int) -> list[Sequence]:
        """Sequences for one batch of about `budget` stream tokens, chat and structured in the mixture's proportion of
        answer tokens, with about `neutral_share` of the stream for neutral text."""
        rng = random.Random(f"{self.seed}/{step}/{worker}")
        chosen, tokens, chat = [], 0, 0
        answers = rng.randint(0, 150)  # where the proportion starts counting: a few tokens of either kind ahead
        chat_credit = self.chat_share * answers * rng.choice((0, 2))
        if self.neutral:
            mean = sum(len(one.prompt) + len(one.answer) for one in self.neutral) / len(self.neutral)
            for _ in range(int(self.neutral_share * budget / mean + rng.random())):
                chosen.append(rng.choice(self.neutral))
                tokens += len(chosen[-1].prompt) + len(chosen[-1].answer)
        while tokens < budget:
            if self.chat and chat + chat_credit <= self.chat_share * answers:
                sequence = rng.choice(self.chat)
                chat += len(sequence.answer)
            else:
                sequence = self.structured(rng.choices(TRAINED_FAMILIES, self.weights)[0], rng.getrandbits(48))
                if len(sequence.answer) > self.max_answer:
                    continue
            answers += len(sequence.answer)
            tokens += len(sequence.prompt) + (1 + copies) * len(sequence.answer) - 20
            chosen.append(sequence)
        return chosen

    def batch(
        self,
        step: int,
        worker: int,
        restricted: Tensor,
        *,
        budget: int,
        copies: int,
        dtype: torch.dtype,
        teach: Callable[[Batch], Tensor] | None = None,
        ways: Mapping[str, int] = WAYS,
    ) -> Batch:
        """The batch of `worker` at `step`. With `teach`, which gives the frozen base's distribution for a batch's
        teacher rows, half of the chat answers' copies begin their blocks at hard tokens."""
        chosen = self.sequences(step, worker, budget, copies)
        hard: dict[int, list[bool]] = {}
        taught = None
        if teach and any(sequence.chat for sequence in chosen):
            clean = pack(chosen, [[] for _ in chosen], restricted, dtype=dtype)
            taught = teach(clean)
            hard = hard_tokens(chosen, clean, taught)
        rng = random.Random(f"{self.seed}/{step}/{worker}/noise")
        noisy = [
            [
                noisy_copy(
                    s.answer,
                    s.ended,
                    self.end_id,
                    self.mask_id,
                    rng,
                    decay=CHAT_DECAY if s.chat else DECAY,
                    hard=hard.get(i) if copy % 2 == 0 else None,
                    ways=ways,
                )
                for copy in range(0 if s.neutral else copies)
            ]
            for i, s in enumerate(chosen)
        ]
        batch = pack(chosen, noisy, restricted, dtype=dtype)
        batch.taught = taught
        return batch


def hard_tokens(sequences: list[Sequence], clean: Batch, taught: Tensor) -> dict[int, list[bool]]:
    """For each chat sequence (by its index) which tokens of its answer are hard; `clean` is their batch without noisy
    copies, `taught` the base's distribution at its teacher rows."""
    labels = clean.clean_labels[clean.teacher >= 0].cpu()
    chance = taught.cpu().float().gather(1, labels.clamp_min(0)[:, None])[:, 0]
    low = ((chance < HARD) & (labels >= 0)).tolist()
    prefix, at, hard = common_prefix(sequences), 0, {}
    for i, sequence in enumerate(sequences):
        if not sequence.chat:
            continue
        own = len(sequence.prompt) - (0 if sequence.neutral else prefix)
        rows = own + len(sequence.answer) - 1
        hard[i] = low[at + own - 1 : at + rows]
        at += rows
    return hard
