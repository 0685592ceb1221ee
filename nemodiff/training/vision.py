"""Training of the small vision checkpoint: a tower and projector before a frozen tri-mode model.

Three steps, since two cores see far too few answers to learn to see from them:

1. `learn_codes`: what a picture's tokens should hold. Every attribute ("red", "circle", "three") gets an embedding, that
   of its word to begin with; a cell's code is the sum of its attributes', and the embeddings are trained through the
   frozen model until it answers from codes alone. No pixels are involved.
2. `learn_to_see`: the tower, on many drawings and without the model: throw-away heads on the projector's inner layer
   name each cell's attributes, and its output is drawn to the cell's code.
3. `learn_to_answer`: tower and projector through the frozen model, AR and diffusion loss on the answers.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nemodiff.engine import Engine
from nemodiff.model.config import ModelConfig, VisionConfig
from nemodiff.model.vision import MEAN, STD, Vision
from nemodiff.training.data import Sequence, noisy_copy, pack
from nemodiff.training.drawings import CANVASES, COLOURS, KINDS, SHAPES, SIDE, SIZES, Scene, scene
from nemodiff.training.drawn_questions import NUMBERS, ask
from nemodiff.training.dual_stream import Backbone, forward
from nemodiff.training.objective import loss_of

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
#: Attribute → the words whose mean embedding its own begins as. The first ones are those of a whole picture.
ATTRIBUTES: dict[str, str] = (
    {f"kind {kind}": f" {kind}" for kind in KINDS}
    | {f"count {number}": f" {number}" for number in NUMBERS[1:]}
    | {f"digit {digit}": f"{digit}" for digit in range(10)}
    | {f"ink {colour}": f" {colour}" for colour in COLOURS}
    | {f"has {shape}": f" {shape}" for shape in SHAPES}
    | {f"colour {colour}": f" {colour}" for colour in COLOURS}
    | {f"shape {shape}": f" {shape}" for shape in SHAPES}
    | {f"size {size}": f" {size}" for size in SIZES}
    | {f"order {place}": f" {word}" for place, word in enumerate(("first", "second", "third", "fourth"))}
    | {f"value {value}": f"{value}" for value in range(1, 10)}
    | {f"letter {letter}": f"{letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
    | {"left": " left", "right": " right", "top": " top", "tallest": " tallest", "shortest": " shortest"}
)
_INDEX = {name: i for i, name in enumerate(ATTRIBUTES)}


def attributes(one: Scene) -> Tensor:
    """Which attributes every cell of a scene has, bool [rows * columns, attributes]: those of the picture, and of the
    thing whose middle lies in the cell."""
    width, height = one.image.size
    rows, columns = height // TOWER.unit, width // TOWER.unit
    things = one.things
    names = [f"kind {one.kind}"]
    if one.kind == "digit":
        names += [f"digit {things[0].name}", f"ink {things[0].colour}"]
    else:
        names.append(f"count {NUMBERS[len(things)]}")
    if one.kind == "word":
        names.append(f"ink {things[0].colour}")
    if one.kind == "shapes":
        names += [f"has {thing.name}" for thing in things]
    cells = torch.zeros(rows * columns, len(ATTRIBUTES), dtype=torch.bool)
    cells[:, [_INDEX[name] for name in names]] = True
    if one.kind == "digit":
        return cells
    for place, thing in enumerate(things):
        own = [f"order {place}"]
        if one.kind == "word":
            own.append(f"letter {thing.name}")
        else:
            own.append(f"colour {thing.colour}")
        if one.kind == "shapes":
            own += [f"shape {thing.name}", f"size {thing.size}"]
            if len(things) > 1:
                own += ["left"] * (place == 0) + ["right"] * (place == len(things) - 1)
                own += ["top"] * (thing.y == min(other.y for other in things))
        if one.kind == "bars":
            values = [bar.value for bar in things]
            own.append(f"value {thing.value}")
            own += ["tallest"] * (thing.value == max(values)) + ["shortest"] * (thing.value == min(values))
        row, column = (min(int(at // TOWER.unit), most - 1) for at, most in ((thing.y, rows), (thing.x, columns)))
        cells[row * columns + column, [_INDEX[name] for name in own]] = True
    return cells


def pixels(images: list) -> Tensor:
    """[pictures, 3, height, width] of pictures of one size from CANVASES, normalised as `preprocess` does."""
    array = torch.from_numpy(np.stack([np.asarray(image, dtype=np.float32) for image in images])) / 255
    return ((array - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2).contiguous()


def see(vision: Vision, batch: Tensor) -> tuple[Tensor, Tensor]:
    """(inner layer, features) of pictures of one size, each [pictures, cells, width]: `Vision.forward` on many."""
    tower, projector = vision.vision_tower, vision.multi_modal_projector
    x = tower.patch_conv(batch)
    rows, columns = x.shape[2:]
    x = tower.ln_pre(x.flatten(2).transpose(1, 2))
    places = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1).view(-1, 2)
    turns = tower.patch_positional_embedding(x, places)
    x = tower.transformer(x, attention_mask=None, position_embeddings=turns).last_hidden_state
    x = projector.norm(x).transpose(1, 2).unflatten(2, (rows, columns))
    merge = vision.config.merge_size
    x = functional.unfold(x, kernel_size=merge, stride=merge).transpose(1, 2)
    inner = projector.act(projector.linear_1(projector.patch_merger.merging_layer(x)))
    return inner, projector.linear_2(inner)


@dataclass(slots=True)
class Settings:
    """One training run, as its state keeps it. minutes are those of the three steps."""

    checkpoint: str
    out: str
    minutes: tuple[float, float, float] = (15.0, 25.0, 15.0)
    seed: int = 0
    answers: int = 12  # a step through the model
    pictures: int = 32  # a step of the tower alone


class Reader:
    """The frozen model as pictures reach it: questions about scenes, features in, loss out."""

    def __init__(self, engine: Engine) -> None:
        self.tokenizer, self.model = engine.tokenizer, engine.model
        self.backbone = Backbone.of(engine.model)
        self.end = engine.model.config.eos_token_ids[0]
        self.mask = engine.model.config.mask_token_id
        known = set(range(4000))
        for kind in KINDS:
            for i in range(400):
                known.update(self.tokenizer.encode(ask(scene(kind, f"words {i}"), i).answer, raw=True))
        vocabulary = torch.tensor(sorted(known))
        self.restricted = torch.full((len(self.backbone.head),), -1, dtype=torch.long)
        self.restricted[vocabulary] = torch.arange(len(vocabulary))
        self.head = self.backbone.head[vocabulary].contiguous()

    def embeddings(self) -> Tensor:
        """What attributes begin as, [attributes, hidden]."""
        table = self.backbone.embedding.float()
        return torch.stack([table[self.tokenizer.encode(words, raw=True)].mean(0) for words in ATTRIBUTES.values()])

    def sequence(self, one: Scene, seed: str) -> Sequence:
        """A question about a scene and its answer as ids, the picture's tokens spelt out."""
        question = ask(one, seed)
        width, height = one.image.size
        row = [IMAGE] * (width // TOWER.unit) + [BREAK]
        picture = row * (height // TOWER.unit)
        picture[-1] = END
        prompt = self.tokenizer.encode(question.text, False, [IMAGE])
        at = prompt.index(IMAGE)
        answer = [*self.tokenizer.encode(question.answer, raw=True), self.end]
        return Sequence(prompt[:at] + picture + prompt[at + 1 :], answer)

    def loss(self, sequences: list[Sequence], features: Tensor, rng: random.Random) -> tuple[Tensor, dict]:
        """Joint loss of the answers, with the features [cells of all pictures, hidden] in their order."""
        noisy = [[noisy_copy(one.answer, True, self.end, self.mask, rng)] for one in sequences]
        batch = pack(
            sequences,
            noisy,
            self.restricted,
            dtype=self.backbone.embedding.dtype,
            prefix=sequences[0].prompt.index(IMAGE),
        )
        rows = (batch.stream.tokens == IMAGE).nonzero()[:, 0]
        hidden = forward(self.backbone, batch.stream, seen=(rows, features))
        loss, figures = loss_of(self.backbone, hidden, batch, self.head)
        return loss, figures.as_dict()


def new_vision(config: ModelConfig, seed: int = 0) -> Vision:
    """An untrained tower and projector for a text model of this config."""
    vision = Vision(replace(config, vision=TOWER))
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
    """Throw-away heads on the projector's inner layer: which attributes a cell has."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.name = nn.Linear(width, len(ATTRIBUTES))
        nn.init.constant_(self.name.bias, -3.0)

    def loss(self, inner: Tensor, wanted: Tensor) -> Tensor:
        """Binary cross-entropy a cell, what a cell has counting more than what it lacks."""
        logits = self.name(inner).float()
        return (
            functional.binary_cross_entropy_with_logits(
                logits, wanted.float(), pos_weight=torch.tensor(4.0), reduction="sum"
            )
            / wanted[..., 0].numel()
        )


def drawn(step: int, count: int, seed: int) -> list[Scene]:
    """The scenes of a step, all of one size."""
    rng = random.Random(f"{seed}/{step}")
    canvas = rng.choices(CANVASES, (3, 1, 1))[0]
    kinds = rng.choices(KINDS, (5, 3, 3, 2), k=count)
    return [scene(kind, f"{seed}/{step}/{i}", canvas=canvas) for i, kind in enumerate(kinds)]
