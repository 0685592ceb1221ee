"""The trained sampler: a small transformer over the block that says of every masked position how likely the model's
top-1 is what the block will finally hold (appendix A of the model's paper, whose weights were never released)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nemodiff.errors import CheckpointError
from nemodiff.json_fields import Fields
from nemodiff.network_files import load_network, save_network
from nemodiff.samplers.topk import largest

#: How many predictions a position's features describe.
TOP = 3
#: Figures beside the embeddings: top-1 probability, margin, mass of the top 3, entropy, place, share still masked.
FIGURES = 6
#: Figures that the network itself adds (see `with_logs`).
LOGS = 2
MAX_BLOCK_LENGTH = 64


@dataclass(frozen=True, slots=True)
class SamplerConfig:
    """Sizes of the network. components: dimensions that a predicted token's embedding is compressed to (3 * 46 and
    6 figures are the paper's 144 features). vocab_size, hidden_size: of the model it was trained on."""

    layers: int
    width: int
    heads: int
    vocab_size: int
    hidden_size: int
    components: int = 46

    @property
    def features(self) -> int:
        return TOP * self.components + FIGURES


#: Sizes that no network of this kind reaches.
_LARGEST = {
    "layers": 64,
    "width": 4096,
    "heads": 64,
    "vocab_size": 2**24,
    "hidden_size": 2**20,
    "components": 1024,
}
#: The paper's size (about 4.8 M parameters in its layers), and one whose cost vanishes beside a small model's forward.
SIZES = {"paper": (4, 384, 6), "small": (2, 64, 2)}


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.post_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, hidden: Tensor | None) -> Tensor:
        batch, rows, width = x.shape
        q, k, v = self.qkv(self.norm(x)).view(batch, rows, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=hidden)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, rows, width))
        return x + self.down(F.gelu(self.up(self.post_norm(x))))


class TrainedSampler(nn.Module):
    """Features of a block's positions → logits that each position's top-1 is right. fp32.

    `projection` [hidden, components] and `mean` [hidden] compress the model's token embeddings (PCA); `scale` and
    `bias` calibrate the logits; `spread` [2, features + LOGS] centres and scales the features and their logarithms.
    """

    projection: Tensor
    mean: Tensor
    spread: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, config: SamplerConfig) -> None:
        super().__init__()
        self.config = config
        inputs = config.features + LOGS
        self.input = nn.Linear(inputs, config.width)
        self.place = nn.Embedding(MAX_BLOCK_LENGTH, config.width)
        self.known = nn.Embedding(2, config.width)
        self.layers = nn.ModuleList(_Layer(config.width, config.heads) for _ in range(config.layers))
        self.norm, self.head = nn.LayerNorm(config.width), nn.Linear(config.width, 1)
        self.register_buffer("projection", torch.zeros(config.hidden_size, config.components))
        self.register_buffer("mean", torch.zeros(config.hidden_size))
        self.register_buffer("spread", torch.stack((torch.zeros(inputs), torch.ones(inputs))))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("bias", torch.zeros(()))
        self.table: Tensor | None = None
        #: The threshold on its scores that its checkpoint recommends.
        self.threshold = 0.9

    def forward(self, features: Tensor, masked: Tensor, padding: Tensor | None = None) -> Tensor:
        """features [batch, positions, features], masked bool [batch, positions], padding bool [batch, positions] or
        None → calibrated logits [batch, positions]. Position i stands at offset i + 1 of its block."""
        x = (with_logs(features) - self.spread[0]) / self.spread[1]
        x = self.input(x) + self.place.weight[: x.shape[1]] + self.known(masked.long())
        hidden = None if padding is None else ~padding[:, None, None, :]
        for layer in self.layers:
            x = layer(x, hidden)
        return self.head(self.norm(x))[..., 0] * self.scale + self.bias

    def attach(self, embedding: Tensor) -> None:
        """Compress the model's embedding table [vocab, hidden] once. Raises CheckpointError when it is another
        model's."""
        config = self.config
        if tuple(embedding.shape) != (config.vocab_size, config.hidden_size):
            raise CheckpointError("The trained sampler was trained for another model: choose another sampler.")
        self.to(embedding.device)
        self.table = torch.cat([(part.float() - self.mean) @ self.projection for part in embedding.split(8192)])

    @property
    def compressed(self) -> Tensor:
        """The model's compressed embeddings [vocab, components]. Raises ValueError before `attach`."""
        if self.table is None:
            raise ValueError("attach the sampler to a model first")
        return self.table

    @torch.inference_mode()
    def score(self, probabilities: Tensor, masked: list[bool]) -> Tensor:
        """Probability [positions] that each position's top-1 is right; probabilities [positions, vocab] of one
        forward over a block."""
        flags = torch.tensor(masked, device=probabilities.device)
        features = block_features(probabilities, flags, self.compressed)
        return torch.sigmoid(self(features[None], flags[None])[0])


def block_features(probabilities: Tensor, masked: Tensor, table: Tensor) -> Tensor:
    """Features [positions, 3 * components + 6], fp32, of one forward over a block.

    probabilities: [positions, vocab]. masked: bool [positions]. table: compressed embeddings [vocab, components].
    """
    values, tokens = largest(probabilities, TOP)
    positions = len(probabilities)
    order = torch.arange(1, positions + 1, device=values.device, dtype=values.dtype)
    figures = torch.stack(
        (
            values[:, 0],
            values[:, 0] - values[:, 1],
            values.sum(-1),
            entropies(probabilities),
            order / (positions + 1),
            (masked.sum() / positions).to(values.dtype).expand(positions),
        ),
        -1,
    )
    return torch.cat((table[tokens].flatten(1), figures), -1)


def with_logs(features: Tensor) -> Tensor:
    """[…, features] → […, features + LOGS]: also the negative logarithms of the entropy and of 1 - margin, which tell
    0.999 from 0.99 as well as 0.9 from 0.5; their floors are what features kept as fp16 still hold."""
    margin, entropy = features[..., 1 - FIGURES], features[..., 3 - FIGURES]
    surprise = torch.stack((entropy.clamp_min(0) + 1e-4, 1 - margin.clamp_max(1) + 1e-3), -1)
    return torch.cat((features, -surprise.log()), -1)


def entropies(probabilities: Tensor) -> Tensor:
    """Entropy in nats of every row of probabilities [rows, vocab], zeros allowed: [rows]. Twice as fast as torch's
    entr."""
    return probabilities.clamp_min(1e-30).log_().mul_(probabilities).sum(-1).neg_()


def principal_components(embedding: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """(mean [hidden], directions [hidden, components]) of an embedding table [vocab, hidden], each direction scaled so
    that the compressed embeddings have unit variance along it."""
    table = embedding.float()
    mean = table.mean(0)
    values, vectors = torch.linalg.eigh((table - mean).t() @ (table - mean) / len(table))
    best = values.argsort(descending=True)[:components]
    return mean, vectors[:, best] / values[best].clamp_min(1e-12).sqrt()


def save_sampler(sampler: TrainedSampler, folder: Path, notes: dict) -> Path:
    """Write sampler.safetensors (fp16) and sampler_config.json into `folder`; `notes` say how it was made."""
    return save_network(sampler, folder, "sampler", asdict(sampler.config) | notes)


def load_sampler(folder: Path) -> TrainedSampler:
    """Read what `save_sampler` wrote. Raises CheckpointError."""
    return load_network(folder, "sampler", "trained sampler", _LARGEST, _sized)


def _sized(sizes: dict[str, int], config: Fields) -> TrainedSampler:
    if sizes["width"] % sizes["heads"]:
        raise ValueError("heads")
    sampler = TrainedSampler(SamplerConfig(**sizes))
    sampler.threshold = config.number("threshold", sampler.threshold, 0, 1)
    return sampler
