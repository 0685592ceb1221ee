"""The draft head: how probable a draft is once the token before it is known.

A diffusion forward guesses every masked place by itself, so its guesses for neighbouring places need not fit together.
The head weighs the likeliest of one place anew for every token that the place before may hold, by two compressed
embeddings and by what the forward said of both places: a chain or a tree of drafts then hangs together. It only
proposes: the verifier decides what is accepted. Heads that see the drafts before theirs: Hydra (arXiv 2402.05109).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nemodiff.errors import CheckpointError
from nemodiff.network_files import load_network, save_network

#: Of every place the likeliest drafts, which are weighed; the others keep what they have.
CANDIDATES = 32
#: Distances from the token that a group stands behind; further ones are weighed as the last.
DISTANCES = 8
#: Figures beside the embeddings, see `DraftHead.forward`.
_FIGURES = 4
#: Log shares below count as this.
_FLOOR = -12.0
#: A weight is between exp(-_MOST) and exp(_MOST).
_MOST = 20.0
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
    """The likeliest tokens of some places, best first: tokens int64, log_shares fp32, each [places, count]."""

    tokens: Tensor
    log_shares: Tensor

    def __getitem__(self, places: slice) -> Guessed:
        return Guessed(self.tokens[places], self.log_shares[places])

    @classmethod
    def join(cls, *parts: Guessed) -> Guessed:
        return cls(torch.cat([part.tokens for part in parts]), torch.cat([part.log_shares for part in parts]))


class DraftHead(nn.Module):
    """Weights for pairs of tokens at neighbouring places. fp32.

    `projection` [hidden, components] and `mean` [hidden] compress the model's token embeddings.
    """

    projection: Tensor
    mean: Tensor

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        size, width = config.components, config.width
        self.before = nn.Linear(size, width)
        self.older = nn.Linear(size, width, bias=False)
        self.said_before = nn.Linear(size, width, bias=False)
        self.said = nn.Linear(size, width, bias=False)
        self.figures = nn.Linear(_FIGURES, width, bias=False)
        self.distance = nn.Embedding(DISTANCES, width)
        self.out = nn.Linear(width, config.rank)
        self.pair = nn.Linear(size, config.rank, bias=False)
        self.candidate = nn.Linear(size, config.rank)
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
        self._ready = {name: self._made(name) for name in ("before", "pair", "candidate")} if ready else {}
        return self

    @torch.no_grad()
    def _made(self, name: str) -> Tensor:
        layer, table = getattr(self, name), self._attached
        return torch.cat([layer(part).half() for part in table.split(8192)])

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

    def forward(self, tokens: Tensor, before: Guessed, own: Guessed, older: Tensor, distance: Tensor) -> Tensor:
        """Logarithms of the weights of `own` guesses behind each token that may stand before them: [places, tokens,
        candidates].

        tokens: int64 [places, tokens], those that may stand in the place before. before, own: what was guessed for
        that place and for this one. older: int64 [places], the token two places before, -1 where it is not known.
        distance: int64 [places], from the token that the group stands behind, 1 for its first place. Raises ValueError
        before `attach`.
        """
        table = self._attached
        shares = own.log_shares.exp()
        said = (shares[..., None] * table[own.tokens]).sum(-2)
        said_before = (before.log_shares.exp()[..., None] * table[before.tokens]).sum(-2)
        earlier = table[older.clamp_min(0)] * (older >= 0)[:, None]
        place = self.said(said) + self.said_before(said_before) + self.older(earlier)
        place = place + self.distance((distance - 1).clamp(0, DISTANCES - 1))
        # How sure this place was, how sure the one before, and how much the token there surprises.
        found = before.tokens[:, None, :] == tokens[:, :, None]
        surprise = torch.where(found, before.log_shares[:, None, :], _FLOOR).amax(-1).clamp_min(_FLOOR) / 4
        of_place = (-(shares * own.log_shares.clamp_min(_FLOOR)).sum(-1), own.log_shares[:, 0], before.log_shares[:, 0])
        figures = torch.stack((surprise, *(part[:, None].expand_as(surprise) for part in of_place)), -1)
        hidden = F.gelu(self._of("before", tokens) + place[:, None] + self.figures(figures.clamp_min(_FLOOR)))
        hidden = F.dropout(hidden, _DROPOUT, self.training)
        pairs = (self.out(hidden) + self._of("pair", tokens)) @ self._of("candidate", own.tokens).transpose(1, 2)
        return (pairs / self.config.rank**0.5).clamp(-_MOST, _MOST)


def weighed(own: Guessed, weights: Tensor) -> Tensor:
    """Log shares of `own` guesses after weighing, [places, tokens, candidates]; the mass of tokens that are no
    candidates keeps its weight. weights: what a DraftHead gave."""
    log_shares = own.log_shares[:, None]
    grown = log_shares + weights
    rest = (1 - own.log_shares.exp().sum(-1)).clamp_min(1e-6).log()
    return grown - torch.logaddexp(grown.logsumexp(-1), rest[:, None])[..., None]


def save_head(head: DraftHead, folder: Path, notes: dict) -> Path:
    """Write draft_head.safetensors (fp16) and draft_head_config.json into `folder`; `notes` say how it was made."""
    return save_network(head, folder, "draft_head", asdict(head.config) | notes)


def load_head(folder: Path) -> DraftHead:
    """Read what `save_head` wrote. Raises CheckpointError."""
    return load_network(folder, "draft_head", "draft head", _LARGEST, lambda sizes, _: DraftHead(HeadConfig(**sizes)))
