"""The draft head: how probable a draft is once the token before it is known.

A diffusion forward guesses every masked place by itself, so its guesses for neighbouring places need not fit together.
The head weighs the likeliest of one place anew for every token that the place before may hold, by two compressed
embeddings and by what the forward said of both places: a chain or a tree of drafts then hangs together. It only
proposes: the verifier decides what is accepted. Heads that see the drafts before theirs: Hydra (arXiv 2402.05109).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nemodiff.errors import CheckpointError
from nemodiff.network_files import load_network, save_network

#: Of every place the likeliest drafts, which are weighed; the others keep what they have.
CANDIDATES = 32
#: Of every place the likeliest tokens, behind which the next place is weighed; behind others it is as it was guessed.
PARENTS = 12
#: Distances from the token that a group stands behind; further ones are weighed as the last.
DISTANCES = 8
#: Figures beside the embeddings, see `DraftHead.forward`.
_FIGURES = 5
#: Embeddings that it sees at a place: what was said of it, of the two before and of the next, and the newest token.
AROUND = 5
#: Log shares below count as this.
FLOOR = -12.0
#: A weight is between exp(-MOST) and exp(MOST).
MOST = 20.0
#: Layers whose input is a token's embedding alone.
_TABLES = ("before", "pair", "candidate")
#: Of training: the share of embeddings' components, and of the hidden layer, that a step leaves out.
_DROPOUT = 0.3


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """Sizes. components: that an embedding is compressed to. width: of the hidden layer. rank: of what weighs pairs.
    vocab_size, hidden_size: of the model it was trained on."""

    vocab_size: int
    hidden_size: int
    components: int = 192
    width: int = 128
    rank: int = 64


#: Sizes that no head reaches.
_LARGEST = {"vocab_size": 2**24, "hidden_size": 2**20, "components": 4096, "width": 4096, "rank": 1024}


@dataclass(frozen=True, slots=True)
class Guessed:
    """The likeliest tokens of some places, best first: tokens int64, log_shares fp32, each [..., count]."""

    tokens: Tensor
    log_shares: Tensor

    def __getitem__(self, places: slice) -> Guessed:
        return Guessed(self.tokens[places], self.log_shares[places])

    def of(self, tokens: Tensor) -> Tensor:
        """Log shares of one token [...] per place, -inf where it is none of the likeliest."""
        return self.log_shares.where(self.tokens == tokens[..., None], -torch.inf).amax(-1)

    @property
    def batch(self) -> Guessed:
        """The same with a dimension of length 1 before the others."""
        return Guessed(self.tokens[None], self.log_shares[None])

    @classmethod
    def join(cls, *parts: Guessed) -> Guessed:
        return cls(torch.cat([part.tokens for part in parts]), torch.cat([part.log_shares for part in parts]))


@dataclass(frozen=True, slots=True)
class Drawn:
    """What the noise of a request makes of a group's places: tokens, the likeliest given it, best first, with the
    logarithms of what they have without it and given it (at the temperature). Each [places, candidates]."""

    tokens: Tensor
    plain: Tensor
    log_shares: Tensor
    temperature: float


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """So little work that to wake a second thread of torch's takes longer than the work."""
    count = torch.get_num_threads() if device.type == "cpu" else 1
    if count == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


class WeighsDrafts(Protocol):
    """A draft head that does not learn: a `DraftHead`, or one in kernels of our own."""

    def drafts(
        self, guesses: Guessed, older: int, newest: int, count: int, drawn: Drawn | None = None
    ) -> tuple[Tensor, Tensor]:
        """(tokens int64, probabilities fp32) of the `count` likeliest drafts of a group's places behind each token that
        may stand before them, best first: each [places, parents, count].

        guesses: [1 + places, candidates], as `DraftHead.forward` takes them. older, newest: the token that the group
        stands behind, and the one in the place before its first. Behind that one all drafts of the first place stand;
        the parents of the others are the first of those that are weighed for the place before them. drawn: what is
        weighed at a temperature, in place of the guesses.
        """


class DraftHead(nn.Module):
    """Weights for pairs of tokens at neighbouring places of groups of masks. fp32.

    `projection` [hidden, components] and `mean` [hidden] compress the model's token embeddings.
    """

    projection: Tensor
    mean: Tensor

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        size, width, rank = config.components, config.width, config.rank
        self.before = nn.Linear(size, width)
        self.around = nn.Linear(AROUND * size, width, bias=False)
        self.figures = nn.Linear(_FIGURES, width, bias=False)
        self.distance = nn.Embedding(DISTANCES, width)
        self.out = nn.Linear(width, rank)
        self.pair = nn.Linear(size, rank, bias=False)
        self.candidate = nn.Linear(size, rank)
        self.register_buffer("projection", torch.zeros(config.hidden_size, size))
        self.register_buffer("mean", torch.zeros(config.hidden_size))
        self.table: Tensor | None = None
        #: Of every token what `before`, `pair` and `candidate` make of it, fp16; of a head that does not learn.
        self._ready: dict[str, Tensor] = {}

    def attach(self, embedding: Tensor) -> None:
        """Compress the model's embedding table [vocab, hidden] once. Raises CheckpointError when it is another
        model's."""
        if tuple(embedding.shape) != (self.config.vocab_size, self.config.hidden_size):
            raise CheckpointError("The draft head was trained for another model: fetch the checkpoint again.")
        self.to(embedding.device)
        self.table = torch.cat([(part.float() - self.mean) @ self.projection for part in embedding.split(8192)])
        self.train(self.training)

    def train(self, mode: bool = True) -> DraftHead:
        super().train(mode)
        ready = self.table is not None and not mode
        self._ready = {name: self._made(name).half() for name in _TABLES} if ready else {}
        return self

    @property
    def tables(self) -> dict[str, Tensor]:
        """The compressed embeddings [vocab, components], and of every token what three layers make of it. fp32."""
        return {"table": self._attached} | {name: self._made(name) for name in _TABLES}

    @torch.no_grad()
    def _made(self, name: str) -> Tensor:
        return getattr(self, name)(self._attached)

    @property
    def _attached(self) -> Tensor:
        if self.table is None:
            raise ValueError("attach the head to a model first")
        return self.table

    def _of(self, name: str, tokens: Tensor) -> Tensor:
        """What the layer `name` makes of tokens' embeddings, [..., width]."""
        if self.training:
            return getattr(self, name)(F.dropout(self._attached[tokens], _DROPOUT))
        return self._ready[name][tokens].float()

    @torch.inference_mode()
    def drafts(
        self, guesses: Guessed, older: int, newest: int, count: int, drawn: Drawn | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `WeighsDrafts`."""
        with _one_thread(guesses.tokens.device):
            drawn = drawn or Drawn(guesses.tokens[1:], guesses.log_shares[1:], guesses.log_shares[1:], 1.0)
            before = Guessed.join(guesses[:1], Guessed(drawn.tokens, drawn.plain)[:-1])
            tokens, log_shares = before.tokens[:, :PARENTS].clone(), before.log_shares[:, :PARENTS].clone()
            known = torch.tensor([[older, newest]], device=tokens.device)
            tokens[0], log_shares[0] = newest, guesses[:1].of(known[:, 1])
            weights = self(guesses.batch, Guessed(tokens, log_shares).batch, known, drawn.tokens[None])[0]
            weights = (weights / drawn.temperature).clamp(-MOST, MOST)
            count = min(count, drawn.tokens.shape[1])
            values, order = weighed(Guessed(drawn.tokens, drawn.log_shares), weights).topk(count, dim=-1)
            return drawn.tokens[:, None].expand_as(weights).gather(-1, order), values.exp()

    def forward(self, guesses: Guessed, parents: Guessed, known: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Logarithms of the weights of candidates behind each token that may stand before them: [groups, places,
        parents, candidates].

        guesses: [groups, 1 + places, candidates], what the verifier's row said of the place before a group's first and
        what the group said of its own. parents: [groups, places, parents], tokens that may stand in the place before
        each, and what they had there. known: int64 [groups, 2], the token that a group stands behind and the one in
        the place before its first. candidates: int64 [groups, places, candidates]; the guesses where it is None.
        Raises ValueError before `attach`.
        """
        table, shares = self._attached, guesses.log_shares.exp()
        flat = guesses.tokens.flatten(0, 1)
        said = F.embedding_bag(flat, table, mode="sum", per_sample_weights=shares.flatten(0, 1))
        said = said.view(*guesses.tokens.shape[:2], -1)
        first = table[known]
        own, before, behind = said[:, 1:], said[:, :-1], F.pad(said[:, 2:], (0, 0, 0, 1))
        count = own.shape[1]
        two_before = torch.cat((first, said[:, 1:-2]), 1)[:, :count]
        newest = first[:, 1:].expand_as(own)
        place = self.around(torch.cat((own, before, two_before, behind, newest), -1))
        place = place + self.distance(torch.arange(count, device=table.device).clamp_max(DISTANCES - 1))
        # How sure this place was, how sure the one before, and how much the tokens there surprise.
        floored = guesses.log_shares.clamp_min(FLOOR)
        entropy = -(shares * floored).sum(-1)[:, 1:]
        surprise = parents.log_shares.clamp_min(FLOOR) / 4
        of_place = (entropy, floored[:, 1:, 0], floored[:, :-1, 0], surprise[:, :1, 0].expand_as(entropy))
        figures = torch.stack((surprise, *(part[:, :, None].expand_as(surprise) for part in of_place)), -1)
        hidden = F.silu(self._of("before", parents.tokens) + place[:, :, None] + self.figures(figures))
        hidden = F.dropout(hidden, _DROPOUT, self.training)
        pairs = self.out(hidden) + self._of("pair", parents.tokens)
        candidates = guesses.tokens[:, 1:] if candidates is None else candidates
        weights = pairs @ self._of("candidate", candidates).transpose(-1, -2)
        return (weights / self.config.rank**0.5).clamp(-MOST, MOST)


def weighed(own: Guessed, weights: Tensor) -> Tensor:
    """Log shares of `own` guesses [..., candidates] after weighing, [..., tokens, candidates]; the mass of tokens that
    are no candidates keeps its weight. weights: what a DraftHead gave."""
    log_shares = own.log_shares.unsqueeze(-2)
    grown = log_shares + weights
    rest = (1 - log_shares.exp().sum(-1)).clamp_min(1e-6).log()
    return grown - torch.logaddexp(grown.logsumexp(-1), rest).unsqueeze(-1)


def save_head(head: DraftHead, folder: Path, notes: dict) -> Path:
    """Write draft_head.safetensors (fp16) and draft_head_config.json into `folder`; `notes` say how it was made."""
    return save_network(head, folder, "draft_head", asdict(head.config) | notes)


def load_head(folder: Path) -> DraftHead:
    """Read what `save_head` wrote. Raises CheckpointError."""
    return load_network(folder, "draft_head", "draft head", _LARGEST, lambda sizes, _: DraftHead(HeadConfig(**sizes)))
