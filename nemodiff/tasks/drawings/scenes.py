"""Drawings that the small vision checkpoint learns from: scenes from a seed, what they hold, and their pictures.

Things stand near the middles of cells of 16 by 16 pixels, one of which is a token: a tower of this size does not learn
on two cores to see them everywhere from the start (`free_scenes` places them anywhere). A scene is drawn three times
as large and shrunk, so that its edges are smooth.
Sizes are in pixels of the picture.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nemodiff.errors import RequestError

KINDS: tuple[str, ...] = ("shapes", "bars", "word", "digit")
#: What is none of them: textures, photographs, screenshots, icons, nothing at all (see `foreign`).
FOREIGN = "foreign"
#: Pages full of letters, and of shapes: a tower learns from many things at once, and nothing is asked about them.
CROWDS: tuple[str, ...] = ("letters", "crowd")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "blue": (36, 84, 206),
    "green": (34, 150, 66),
    "yellow": (240, 204, 20),
    "purple": (128, 50, 170),
    "orange": (242, 130, 22),
    "black": (24, 24, 24),
    "pink": (244, 134, 178),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES: tuple[str, ...] = ("small", "large")
#: Width and height of pictures. What is larger is shrunk to 80 pixels a side before the tower sees it.
CANVASES: tuple[tuple[int, int], ...] = ((80, 80), (80, 64), (64, 80))
SIDE = 80
#: Pixels a side of a cell, and how far from its middle a thing may stand.
CELL, JITTER = 16, 2.0
SCALE = 3
RADII = {"small": (6.0, 7.5), "large": (10.5, 13.0)}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#: Of three or four letters each; every fifth is never trained on.
_WORDS = (
    "CAT DOG SUN MAP BOX CUP HAT PEN KEY JAM FOX BUS EGG ICE LEG NET OWL PIG RUG TOY VAN WEB ZIP BAG COW ANT INK ELF "
    "GUM HEN YAK LAMP TREE FISH BIRD MOON STAR DOOR FROG GOAT HAND KITE LION MILK NOSE OVEN PARK QUIZ RAIN SHIP TENT "
    "VASE WOLF YARN ZERO BOOK CAKE DESK FORK GATE HILL IRON JUMP KING LEAF NEST PLUM ROAD SOAP TAXI UNIT VEST WIND "
    "EXIT JAZZ FLUX OBOE PUMP QUAY BARN CHEF DRUM FERN GLOW HAWK"
)
WORDS: tuple[str, ...] = tuple(_WORDS.split())
HELD_OUT_WORDS: tuple[str, ...] = WORDS[4::5]


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing in a scene, from left to right: a shape, a bar (`value` high, its middle at its foot), a letter or a
    digit (`name`). box: left, top, right, bottom."""

    name: str
    x: float
    y: float
    box: tuple[float, float, float, float]
    colour: str = "black"
    size: str = "large"
    value: int = 0

    @property
    def radius(self) -> float:
        """Half of the box's width."""
        return (self.box[2] - self.box[0]) / 2


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture holds, and the picture: RGB, of a size from CANVASES."""

    kind: str
    things: tuple[Thing, ...]
    image: Image.Image


def scene(kind: str, seed: int | str, *, canvas: tuple[int, int] | None = None, held_out: bool = False) -> Scene:
    """The scene of `kind` that a seed stands for; held-out ones have seeds, words and handwriting of their own.

    Raises RequestError where a digit is asked for and scikit-learn, which brings the handwriting, is missing.
    """
    rng = random.Random(f"{kind}/{seed}/{held_out}")
    size = canvas or rng.choices(CANVASES, (3, 1, 1))[0]
    return {"shapes": _shapes, "bars": _bars, "word": _word, "digit": _digit}[kind](rng, size, held_out)


def _paper(rng: random.Random, size: tuple[int, int]) -> Image.Image:
    light = rng.choice((255, 255, 255, rng.randint(232, 254)))
    tint = tuple(max(225, min(255, light - rng.randint(0, 8))) for _ in range(3)) if light < 255 else (255,) * 3
    return Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), tint)


def finish(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """What was drawn SCALE times as large, in its own size."""
    return image.resize(size, Image.Resampling.BOX)


def shade(rng: random.Random, colour: str) -> tuple[int, ...]:
    """A colour of that name."""
    return tuple(max(0, min(255, part + rng.randint(-12, 12))) for part in COLOURS[colour])


def _near(rng: random.Random, cell: int, jitter: float = JITTER) -> float:
    """A place near the middle of a row's or column's cell."""
    return (cell + 0.5) * CELL + rng.uniform(-jitter, jitter)


def box_of(x: float, y: float, half: float) -> tuple[float, float, float, float]:
    return (x - half, y - half, x + half, y + half)


def _shapes(rng: random.Random, size: tuple[int, int], held_out: bool) -> Scene:
    width, height = size
    things: list[Thing] = []
    count = rng.choice((1, 2, 2, 3, 3, 4))
    for _ in range(400):
        if len(things) == count:
            break
        kind = rng.choice(SIZES)
        radius = rng.uniform(*RADII[kind])
        x, y = (_near(rng, rng.randrange(side // CELL)) for side in size)
        radius = min(radius, x - 0.5, y - 0.5, width - x - 0.5, height - y - 0.5)
        apart = all(
            math.hypot(x - other.x, y - other.y) > radius + other.radius + 2
            and abs(x - other.x) > CELL / 2  # so that left and right, above and below are never in doubt
            and abs(y - other.y) > CELL / 2
            for other in things
        )
        if apart and radius >= RADII[kind][0] - (2.5 if kind == "large" else 0):
            things.append(Thing(rng.choice(SHAPES), x, y, box_of(x, y, radius), rng.choice(tuple(COLOURS)), kind))
    things.sort(key=lambda thing: thing.x)
    image = _paper(rng, size)
    draw = ImageDraw.Draw(image)
    for thing in things:
        draw_shape(draw, thing, shade(rng, thing.colour), rng)
    return Scene("shapes", tuple(things), finish(image, size))


def draw_shape(draw: ImageDraw.ImageDraw, thing: Thing, fill: tuple[int, ...], rng: random.Random) -> None:
    """Draw a shape SCALE times as large."""
    x, y, r = thing.x * SCALE, thing.y * SCALE, thing.radius * SCALE
    box = (x - r, y - r, x + r, y + r)
    if thing.name == "circle":
        draw.ellipse(box, fill=fill)
    elif thing.name == "ring":
        draw.ellipse(box, outline=fill, width=max(2, round(r * 0.36)))
    elif thing.name == "square":
        side = r * 0.88
        draw.rectangle((x - side, y - side, x + side, y + side), fill=fill)
    elif thing.name == "cross":
        arm = r * 0.32
        draw.rectangle((x - r, y - arm, x + r, y + arm), fill=fill)
        draw.rectangle((x - arm, y - r, x + arm, y + r), fill=fill)
    else:
        points, turn = (3, rng.uniform(-0.15, 0.15)) if thing.name == "triangle" else (5, rng.uniform(-0.2, 0.2))
        inner = r * (0.42 if thing.name == "star" else 0.5)
        corners = []
        for i in range(2 * points if thing.name == "star" else points):
            step = math.pi / points if thing.name == "star" else 2 * math.pi / points
            reach = inner if thing.name == "star" and i % 2 else r
            corners.append((x + reach * math.sin(i * step + turn), y - reach * math.cos(i * step + turn)))
        draw.polygon(corners, fill=fill)


def _bars(rng: random.Random, size: tuple[int, int], held_out: bool) -> Scene:
    width, height = size
    count = rng.randint(2, 4)
    values = rng.sample(range(1, 10), count)
    colours = rng.sample(tuple(COLOURS), count)
    pitch, foot = width / count, height - 5
    unit = (foot - 3) / 9
    image = _paper(rng, size)
    draw = ImageDraw.Draw(image)
    things = []
    for i, (value, colour) in enumerate(zip(values, colours, strict=True)):
        x, half = (i + 0.5) * pitch, pitch * rng.uniform(0.26, 0.36)
        box = (x - half, foot - value * unit, x + half, foot)
        draw.rectangle(tuple(edge * SCALE for edge in box), fill=shade(rng, colour))
        things.append(Thing("bar", x, foot - 4, box, colour, value=value))
    draw.line((0, foot * SCALE, width * SCALE, foot * SCALE), fill=(90, 90, 90), width=SCALE)
    return Scene("bars", tuple(things), finish(image, size))


@cache
def font_of(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _word(rng: random.Random, size: tuple[int, int], held_out: bool) -> Scene:
    word = rng.choice(HELD_OUT_WORDS if held_out else [word for word in WORDS if word not in HELD_OUT_WORDS])
    if not held_out and rng.random() < 0.5:  # letters in all orders, so that unknown words can be read
        word = "".join(rng.choice(LETTERS) for _ in range(rng.randint(3, 4)))
        if word in HELD_OUT_WORDS:
            word = word[::-1]
    width, height = size
    colour = rng.choice(tuple(COLOURS))
    image = _paper(rng, size)
    draw = ImageDraw.Draw(image)
    font = font_of(round(CELL * rng.uniform(1.05, 1.2) * SCALE))
    first, y = rng.randint(0, width // CELL - len(word)), _near(rng, rng.randrange(height // CELL), JITTER / 2)
    shift = rng.uniform(-JITTER, JITTER)
    things = []
    for i, letter in enumerate(word):
        x = (first + i + 0.5) * CELL + shift
        draw.text((x * SCALE, y * SCALE), letter, font=font, fill=COLOURS[colour], anchor="mm")
        things.append(Thing(letter, x, y, box_of(x, y, CELL / 2), colour))
    return Scene("word", tuple(things), finish(image, size))


@cache
def handwriting() -> tuple[np.ndarray, np.ndarray]:
    """(pictures [1797, 8, 8] from 0 to 16, what they show)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise RequestError(
            "Drawing handwritten digits needs scikit-learn: pip install -r requirements-dev.txt."
        ) from error
    digits = load_digits()
    return digits.images, digits.target


def bent(rng: random.Random, ink: Image.Image) -> Image.Image:
    """The same strokes turned, slanted and stretched: each corner moved by up to a ninth of the side."""
    width, height = ink.size
    corners = (0, 0, 0, height, width, height, width, 0)
    moved = [at + rng.uniform(-1, 1) * side / 9 for at, side in zip(corners, 4 * ink.size, strict=True)]
    return ink.transform(ink.size, Image.Transform.QUAD, moved, Image.Resampling.BICUBIC)


def digit_ink(rng: random.Random, held_out: bool) -> tuple[str, Image.Image, int]:
    """(its name, its strokes SCALE times as large as an L image, its height in pixels) of a handwritten digit."""
    pictures, names = handwriting()
    # The last writers' digits are held out: the set is in the order of its writers.
    index = rng.randrange(1497, 1797) if held_out else rng.randrange(1497)
    side = round(rng.uniform(34, 46))
    strokes = pictures[index] / 16.0
    if not held_out:  # other hands: 1,497 digits alone would be learnt by heart
        strokes = strokes ** rng.uniform(0.6, 1.7)
    ink = Image.fromarray((strokes * 254.4).astype(np.uint8)).resize(
        (round(side * rng.uniform(0.85, 1.0)) * SCALE, side * SCALE), Image.Resampling.BICUBIC
    )
    ink = ink.rotate(rng.uniform(-6, 6), Image.Resampling.BICUBIC)
    if not held_out:
        ink = bent(rng, ink)
    return str(names[index]), ink, side


def _digit(rng: random.Random, size: tuple[int, int], held_out: bool) -> Scene:
    name, ink, side = digit_ink(rng, held_out)
    colour = rng.choice(tuple(COLOURS)) if rng.random() < 0.5 else "black"
    across, down = (_near(rng, side // CELL // 2) for side in size)
    x, y = across - ink.width / SCALE / 2, down - side / 2
    image = _paper(rng, size)
    image.paste(COLOURS[colour], (round(x * SCALE), round(y * SCALE)), ink)
    box = (x, y, x + ink.width / SCALE, y + ink.height / SCALE)
    thing = Thing(name, across, down, box, colour)
    return Scene("digit", (thing,), finish(image, size))
