"""Drawings whose things stand anywhere, over the edges of cells, on papers of all kinds, some of them photographed:
up to six shapes or bars, words of up to eight letters."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from PIL import Image, ImageDraw

from nemodiff.tasks.drawings.foreign import foreign
from nemodiff.tasks.drawings.photographed import photographed
from nemodiff.tasks.drawings.scenes import (
    CANVASES,
    CELL,
    COLOURS,
    FOREIGN,
    HELD_OUT_WORDS,
    LETTERS,
    RADII,
    SCALE,
    SHAPES,
    SIZES,
    WORDS,
    Scene,
    Thing,
    box_of,
    digit_ink,
    draw_shape,
    finish,
    font_of,
    shade,
)

#: Most things of a picture, and most letters of a word.
MOST_THINGS, MOST_LETTERS = 6, 8
#: How far apart two things are at least from left to right and from top to bottom, in pixels, so that which one is
#: further is never in doubt; a photograph moves them against each other by less.
APART = 7.0
#: From one letter of a word to the next, in pixels.
PITCHES = (9.5, 17.0)
#: A colour that is nearer to the paper than this (in RGB) is not drawn on it.
_CONTRAST = 120.0
#: Which share of drawings is photographed.
_PHOTOGRAPHS = 0.35
_LONG_WORDS = (
    "APPLE BREAD CHAIR DRINK EARTH FLUTE GRAPE HORSE INDEX JUICE KNIFE LEMON MOUSE NURSE OCEAN PIANO QUEEN RIVER "
    "SNAKE TRAIN UNCLE VOICE WHALE YACHT ZEBRA BASKET CAMERA DRAGON ENGINE FLOWER GARDEN HAMMER ISLAND JACKET KITTEN "
    "LADDER MIRROR NEEDLE ORANGE PENCIL RABBIT SILVER TEMPLE VALLEY WINDOW YELLOW BALLOON CABBAGE DIAMOND EVENING "
    "FEATHER GIRAFFE HARVEST JOURNEY KITCHEN LANTERN MORNING NETWORK OSTRICH PENGUIN RAINBOW SPARROW TRUMPET VILLAGE "
    "WEATHER BACKPACK COMPUTER DOORBELL ELEPHANT FOOTBALL GOLDFISH HOSPITAL KANGAROO MOUNTAIN NOTEBOOK PAINTING "
    "SANDWICH TREASURE UMBRELLA"
)
LONG_WORDS: tuple[str, ...] = tuple(_LONG_WORDS.split())
HELD_OUT_LONG_WORDS: tuple[str, ...] = LONG_WORDS[3::5]


def free_scene(kind: str, seed: int | str, *, canvas: tuple[int, int] | None = None, held_out: bool = False) -> Scene:
    """The free scene of `kind`, FOREIGN and CROWDS included, that a seed stands for; held-out ones have seeds, words,
    handwriting and photographs of their own.

    Raises RequestError where a digit is asked for and scikit-learn, which brings the handwriting, is missing.
    """
    rng = random.Random(f"free/{kind}/{seed}/{held_out}")
    size = canvas or rng.choices(CANVASES, (3, 1, 1))[0]
    if kind == FOREIGN:
        return Scene(FOREIGN, (), foreign(rng, size, held_out))
    paper, colours = _paper(rng, size)
    things = _KINDS[kind](rng, paper, size, colours, held_out)
    image = finish(paper, size)
    if rng.random() < _PHOTOGRAPHS:
        image, things = photographed(rng, image, things)
    return Scene(kind, things, image)


def _paper(rng: random.Random, size: tuple[int, int]) -> tuple[Image.Image, tuple[str, ...]]:
    """An empty paper SCALE times as large, and the colours that can be told from it."""
    width, height = size[0] * SCALE, size[1] * SCALE
    base = rng.choice(((255, 255, 255), (250, 246, 232), (228, 236, 244), (236, 228, 240), (222, 240, 226), None, None))
    if base is None:  # any colour, dark ones too
        base = (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))
    other = tuple(max(0, min(255, part + rng.randint(-28, 28))) for part in base)
    image = Image.new("RGB", (width, height), base)
    draw, kind = ImageDraw.Draw(image), rng.random()
    if kind < 0.25:  # from one colour to another
        ramp = Image.linear_gradient("L").resize((width, height))
        if rng.random() < 0.5:
            ramp = Image.linear_gradient("L").rotate(90).resize((width, height))
        image.paste(Image.new("RGB", (width, height), other), (0, 0), ramp)
    elif kind < 0.45:  # lined, or squared
        step = rng.randint(5, 14) * SCALE
        for y in range(step // 2, height, step):
            draw.line((0, y, width, y), fill=other)
        if rng.random() < 0.5:
            for x in range(step // 2, width, step):
                draw.line((x, 0, x, height), fill=other)
    far = tuple(
        name for name, colour in COLOURS.items() if min(math.dist(colour, base), math.dist(colour, other)) > _CONTRAST
    )
    if len(far) < 4:
        return _paper(rng, size)
    return image, far


def _shapes(
    rng: random.Random, paper: Image.Image, size: tuple[int, int], colours: tuple[str, ...], held_out: bool
) -> tuple[Thing, ...]:
    count = rng.randint(1, MOST_THINGS)
    shares = (count, 2)  # many fit only where most are small
    things = _scattered(rng, size, colours, shares, tries=600, most=count, apart=APART)
    things.sort(key=lambda thing: thing.x)
    draw = ImageDraw.Draw(paper)
    for thing in things:
        draw_shape(draw, thing, shade(rng, thing.colour), rng)
    return tuple(things)


def _scattered(
    rng: random.Random,
    size: tuple[int, int],
    colours: tuple[str, ...],
    shares: tuple[int, int],
    *,
    tries: int,
    most: int,
    apart: float,
) -> list[Thing]:
    """Shapes that do not touch and are more than `apart` from left to right and from top to bottom, `most` of them if
    so many find a place; how often each of SIZES is tried: `shares`."""
    things: list[Thing] = []
    for _ in range(tries):
        if len(things) == most:
            break
        kind = rng.choices(SIZES, shares)[0]
        radius = rng.uniform(*RADII[kind])
        x, y = (rng.uniform(radius + 0.5, side - radius - 0.5) for side in size)
        if all(
            math.hypot(x - other.x, y - other.y) > radius + other.radius + 1.5
            and abs(x - other.x) > apart
            and abs(y - other.y) > apart
            for other in things
        ):
            things.append(Thing(rng.choice(SHAPES), x, y, box_of(x, y, radius), rng.choice(colours), kind))
    return things


def _bars(
    rng: random.Random, paper: Image.Image, size: tuple[int, int], colours: tuple[str, ...], held_out: bool
) -> tuple[Thing, ...]:
    width, height = size
    count = rng.randint(2, min(MOST_THINGS, len(colours)))
    values, chosen = rng.sample(range(1, 10), count), rng.sample(colours, count)
    left, right = rng.uniform(0, width * 0.12), width - rng.uniform(0, width * 0.12)
    foot, top = height - rng.uniform(3, 12), rng.uniform(2, 10)
    pitch, unit = (right - left) / count, (foot - top) / 9
    draw, things = ImageDraw.Draw(paper), []
    grey = 110 if paper.crop((0, 0, 1, 1)).convert("L").tobytes()[0] > 150 else 190
    for value in (3, 6, 9):  # a scale, without which a height stands for no value
        y = (foot - value * unit) * SCALE
        draw.line((left * SCALE, y, right * SCALE, y), fill=(grey, grey, grey), width=2)
    for i, (value, colour) in enumerate(zip(values, chosen, strict=True)):
        x, half = left + (i + 0.5) * pitch, pitch * rng.uniform(0.25, 0.4)
        box = (x - half, foot - value * unit, x + half, foot)
        draw.rectangle(tuple(edge * SCALE for edge in box), fill=shade(rng, colour))
        things.append(Thing("bar", x, foot - 2, box, colour, value=value))
    draw.line((left * SCALE, foot * SCALE, right * SCALE, foot * SCALE), fill=(110, 110, 110), width=SCALE)
    return tuple(things)


def _word(
    rng: random.Random, paper: Image.Image, size: tuple[int, int], colours: tuple[str, ...], held_out: bool
) -> tuple[Thing, ...]:
    width, height = size
    kept = {*HELD_OUT_WORDS, *HELD_OUT_LONG_WORDS}
    known = [word for word in (*WORDS, *LONG_WORDS) if (word in kept) == held_out]
    narrow, wide = PITCHES
    most = int(width // narrow)
    word = rng.choice([word for word in known if len(word) <= most])
    if not held_out and rng.random() < 0.5:  # letters in all orders, so that unknown words can be read
        word = "".join(rng.choice(LETTERS) for _ in range(rng.randint(3, min(MOST_LETTERS, most))))
        if word in kept:
            word = word[::-1]
    pitch = rng.uniform(narrow, min(wide, width / len(word)))
    half = pitch / 2
    font = font_of(round(pitch * rng.uniform(1.0, 1.15) * SCALE))
    left, y = rng.uniform(0, width - pitch * len(word)), rng.uniform(half + 1, height - half - 1)
    draw, colour, things = ImageDraw.Draw(paper), rng.choice(colours), []
    fill = shade(rng, colour)
    for i, letter in enumerate(word):
        x = left + (i + 0.5) * pitch
        draw.text((x * SCALE, y * SCALE), letter, font=font, fill=fill, anchor="mm")
        things.append(Thing(letter, x, y, box_of(x, y, half), colour))
    return tuple(things)


def _digit(
    rng: random.Random, paper: Image.Image, size: tuple[int, int], colours: tuple[str, ...], held_out: bool
) -> tuple[Thing, ...]:
    name, ink, _ = digit_ink(rng, held_out)
    share = rng.uniform(0.6, 1.3)
    ink = ink.resize((round(ink.width * share), round(ink.height * share)), Image.Resampling.BICUBIC)
    x, y = (rng.uniform(0, side - full / SCALE) for side, full in zip(size, ink.size, strict=True))
    colour = rng.choice(colours)
    paper.paste(shade(rng, colour), (round(x * SCALE), round(y * SCALE)), ink)
    box = (x, y, x + ink.width / SCALE, y + ink.height / SCALE)
    return (Thing(name, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box, colour),)


def _letters(
    rng: random.Random, paper: Image.Image, size: tuple[int, int], colours: tuple[str, ...], held_out: bool
) -> tuple[Thing, ...]:
    """Lines of letters, no closer to each other than those of words; no two lines in one row of cells."""
    width, height = size
    draw, things, y = ImageDraw.Draw(paper), [], rng.uniform(6, CELL)
    while y < height - 6:
        pitch, colour = rng.uniform(*PITCHES), rng.choice(colours)
        font, fill = font_of(round(pitch * rng.uniform(1.0, 1.15) * SCALE)), shade(rng, colour)
        x = rng.uniform(0.5, 1.0) * pitch
        while x < width - pitch / 2:
            if rng.random() < 0.9:
                letter = rng.choice(LETTERS)
                draw.text((x * SCALE, y * SCALE), letter, font=font, fill=fill, anchor="mm")
                things.append(Thing(letter, x, y, box_of(x, y, pitch / 2), colour))
            x += pitch
        y += rng.uniform(CELL, 1.4 * CELL)
    return tuple(sorted(things, key=lambda thing: thing.x))


def _crowd(
    rng: random.Random, paper: Image.Image, size: tuple[int, int], colours: tuple[str, ...], held_out: bool
) -> tuple[Thing, ...]:
    """As many shapes as find a place."""
    things = _scattered(rng, size, colours, (4, 1), tries=60, most=60, apart=0.0)
    draw = ImageDraw.Draw(paper)
    for thing in things:
        draw_shape(draw, thing, shade(rng, thing.colour), rng)
    return tuple(sorted(things, key=lambda thing: thing.x))


_KINDS: dict[str, Callable[..., tuple[Thing, ...]]] = {
    "shapes": _shapes,
    "bars": _bars,
    "word": _word,
    "digit": _digit,
    "letters": _letters,
    "crowd": _crowd,
}
