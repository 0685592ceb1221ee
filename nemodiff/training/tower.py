"""The tower and projector that learn to see: how large they are, how they begin, their forward over many pictures, and
the heads that teach the tower alone."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from nemodiff.model.config import ModelConfig, VisionConfig
from nemodiff.model.vision import Vision, preprocess
from nemodiff.pictures import Picture
from nemodiff.tasks.drawings.codes import ATTRIBUTES, GROUPS, KNOWN_OF_CROWDS, covered
from nemodiff.tasks.drawings.scenes import CROWDS, SIDE, Scene

IMAGE, BREAK, END = 7, 8, 9
TOWER = VisionConfig(
    hidden_size=192,
    intermediate_size=448,
    num_layers=4,
    num_heads=6,
    patch_size=8,
    image_size=SIDE,
    image_token_id=IMAGE,
    image_break_token_id=BREAK,
    image_end_token_id=END,
)


def pixels(scenes: list[Scene]) -> Tensor:
    """[pictures, 3, height, width] of scenes of one size, as the tower takes them."""
    return torch.stack([preprocess(Picture.of(one.image), TOWER) for one in scenes])


def see(vision: Vision, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`Vision.forward` on many pictures of one size: (tower [pictures, patches, width], projector's inner layer
    [pictures, cells, hidden], features [pictures, cells, hidden])."""
    tower, projector = vision.vision_tower, vision.multi_modal_projector
    x = tower.patch_conv(batch)
    rows, columns = x.shape[2:]
    x = tower.ln_pre(x.flatten(2).transpose(1, 2))
    places = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1).view(-1, 2)
    turns = tower.patch_positional_embedding(x, places)
    x = tower.transformer(x, attention_mask=None, position_embeddings=turns).last_hidden_state
    normed = projector.norm(x).transpose(1, 2).unflatten(2, (rows, columns))
    merge = vision.config.merge_size
    merged = functional.unfold(normed, kernel_size=merge, stride=merge).transpose(1, 2)
    inner = projector.act(projector.linear_1(projector.patch_merger.merging_layer(merged)))
    return x, inner, projector.linear_2(inner)


def new_vision(config: ModelConfig, seed: int = 0) -> Vision:
    """An untrained tower and projector for a text model of this config."""
    vision = Vision(replace(config, vision=TOWER))
    for layer in vision.vision_tower.transformer.layers:
        # Of so few patches plain products are quicker: the backward of torch's fused attention took a third of a step.
        layer.attention.config._attn_implementation = "eager"
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in vision.named_parameters():
        if parameter.dim() == 1:
            nn.init.ones_(parameter)
        else:
            fan = parameter[0].numel()
            size = 0.5 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0  # they add to the residual
            parameter.data.normal_(0.0, size * fan**-0.5, generator=generator)
    return vision.requires_grad_(True).train()


class Heads(nn.Module):
    """Throw-away heads: which attributes a patch of the tower has, and which a cell of the projector's inner layer."""

    def __init__(self, tower: int, inner: int) -> None:
        super().__init__()
        patches = nn.Linear(tower, len(ATTRIBUTES))
        self.patches = nn.Sequential(nn.RMSNorm(tower), patches)
        self.cells = nn.Linear(inner, len(ATTRIBUTES))
        for layer in (patches, self.cells):
            nn.init.constant_(layer.bias, -3.0)

    def loss(self, seen: Tensor, inner: Tensor, scenes: list[Scene], cells: Tensor) -> Tensor:
        """Cross-entropy per patch and per cell."""
        patches = torch.stack([covered(one, TOWER.patch_size) for one in scenes])
        known = torch.ones(len(scenes), 1, len(ATTRIBUTES))
        known[[one.kind in CROWDS for one in scenes]] = KNOWN_OF_CROWDS.float()
        return _cross_entropy(self.patches(seen), patches, known) + _cross_entropy(self.cells(inner), cells, known)


def _cross_entropy(logits: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    """Of logits and bools [pictures, places, attributes]: every attribute for itself where it is known (1, else 0;
    [pictures, 1, attributes]), and in each group that a place has one of, that one against the others."""
    logits = logits.float()
    loss = functional.binary_cross_entropy_with_logits(logits, wanted.float(), known.expand_as(logits), reduction="sum")
    for first, last in GROUPS:
        chosen = wanted[..., first:last]
        held = chosen.any(-1)
        if held.any():
            loss = loss + functional.cross_entropy(
                logits[..., first:last][held], chosen[held].int().argmax(-1), reduction="sum"
            )
    return loss / wanted[..., 0].numel()
