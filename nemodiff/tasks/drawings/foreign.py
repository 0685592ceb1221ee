"""Pictures that are no drawings of ours: textures, photographs, screenshots, icons and empty ones."""

from __future__ import annotations

import math
import random
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

#: Photographs that installed packages carry: (package, its folder, file names). The last of each is held out.
_CARRIED = (
    ("sklearn", "datasets/images", ("china.jpg", "flower.jpg")),
    ("gradio", "media_assets/images", ("cheetah.jpg", "cheetah1.jpg", "groot.jpeg", "tower.jpg")),
)
#: Our own pages; the last is held out.
_PAGES = Path(__file__).resolve().parents[3] / "assets" / "screenshots"
_PAGE_NAMES = ("dark.png", "charts.png", "compare-dark.png", "phone.png", "compare.png")


def foreign(rng: random.Random, size: tuple[int, int], held_out: bool) -> Image.Image:
    """A picture of none of our kinds, RGB; held-out ones show photographs and pages that others never do."""
    makers = [_texture, _icon, _window, _empty]
    if _photographs(held_out):
        makers += [_photograph] * 3
    return rng.choice(makers)(rng, size, held_out)


@cache
def _photographs(held_out: bool) -> tuple[Path, ...]:
    found = []
    for package, folder, names in _CARRIED:
        spec = find_spec(package)
        if spec and spec.origin:
            files = [Path(spec.origin).parent / folder / name for name in (names[-1:] if held_out else names[:-1])]
            found += [file for file in files if file.is_file()]
    pages = [_PAGES / name for name in (_PAGE_NAMES[-1:] if held_out else _PAGE_NAMES[:-1])]
    return (*found, *(page for page in pages if page.is_file()))


@cache
def _opened(file: Path) -> Image.Image:
    with Image.open(file) as image:
        image.thumbnail((800, 800))
        return image.convert("RGB")


def _photograph(rng: random.Random, size: tuple[int, int], held_out: bool) -> Image.Image:
    """A part of a photograph or of a page, in other light."""
    whole = _opened(rng.choice(_photographs(held_out)))
    side = rng.uniform(0.25, 1.0) * min(whole.size)
    x, y = (rng.uniform(0, full - side) for full in whole.size)
    part = whole.resize(size, Image.Resampling.BICUBIC, (x, y, x + side, y + side))
    if rng.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    gain, lift = rng.uniform(0.75, 1.25), rng.uniform(-25, 25)
    return Image.fromarray(np.clip(np.asarray(part, dtype=np.float32) * gain + lift, 0, 255).astype(np.uint8))


def _any_colour(rng: random.Random) -> tuple[int, int, int]:
    return (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))


def _texture(rng: random.Random, size: tuple[int, int], held_out: bool) -> Image.Image:
    """Noise of some coarseness, clouds, stripes, checks or a gradient."""
    width, height = size
    one, other = np.array(_any_colour(rng), dtype=np.float32), np.array(_any_colour(rng), dtype=np.float32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    turn, step = rng.uniform(0, math.pi), rng.uniform(3, 16)
    along = math.cos(turn) * x + math.sin(turn) * y
    kind = rng.randrange(5)
    if kind == 0:
        grain = np.random.default_rng(rng.getrandbits(64)).random(
            (max(2, int(height / step)), max(2, int(width / step)))
        )
        share = np.asarray(Image.fromarray((grain * 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)) / 255
    elif kind == 1:
        share = 0.5 + 0.25 * np.sin(along / step) + 0.25 * np.sin((x - y) / rng.uniform(4, 30))
    elif kind == 2:
        share = (np.sin(along * math.pi / step) > 0).astype(np.float32)
    elif kind == 3:
        share = ((x // step + y // step) % 2).astype(np.float32)
    else:
        share = (along - along.min()) / max(float(along.max() - along.min()), 1.0)
    mixed = one + (other - one) * share[..., None]
    mixed += np.random.default_rng(rng.getrandbits(64)).normal(0, rng.choice((0, 4, 20)), mixed.shape)
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def _icon(rng: random.Random, size: tuple[int, int], held_out: bool) -> Image.Image:
    """A face, a house, an arrow, a heart, a tree or a key, in lines and areas."""
    width, height = size
    image = Image.new("RGB", (3 * width, 3 * height), rng.choice(((255, 255, 255), _any_colour(rng))))
    draw, ink = ImageDraw.Draw(image), _any_colour(rng)
    unit = rng.uniform(0.5, 0.95) * 3 * min(size) / 10
    left, top = (rng.uniform(0, 3 * side - 10 * unit) for side in size)
    line = max(2, round(unit * rng.uniform(0.3, 0.9)))

    def at(*places: float) -> list[float]:
        return [(left, top)[i % 2] + place * unit for i, place in enumerate(places)]

    kind = rng.choice(("face", "house", "arrow", "heart", "tree", "key"))
    if kind == "face":
        draw.ellipse(at(1, 1, 9, 9), outline=ink, width=line)
        for eye in (3, 6):
            draw.ellipse(at(eye, 3.2, eye + 1, 4.4), fill=ink)
        draw.arc(at(3, 4, 7, 7.5), rng.choice((0, 20)), rng.choice((160, 180)), fill=ink, width=line)
    elif kind == "house":
        draw.polygon(at(0.5, 5, 5, 1, 9.5, 5), fill=ink)
        draw.rectangle(at(2, 5, 8, 9.5), outline=ink, width=line)
        draw.rectangle(at(4, 6.5, 6, 9.5), fill=_any_colour(rng))
    elif kind == "arrow":
        draw.line(at(1, 5, 7, 5), fill=ink, width=2 * line)
        draw.polygon(at(6, 2, 9.5, 5, 6, 8), fill=ink)
    elif kind == "heart":
        for start in (1, 5):
            draw.pieslice(at(start, 1.5, start + 4, 5.5), 180, 360, fill=ink)
        draw.polygon(at(1, 3.5, 9, 3.5, 5, 9), fill=ink)
    elif kind == "tree":
        draw.rectangle(at(4.4, 6, 5.6, 9.5), fill=_any_colour(rng))
        for x, y in ((3, 4), (5, 2.5), (7, 4), (5, 5)):
            draw.ellipse(at(x - 2, y - 2, x + 2, y + 2), fill=ink)
    else:
        draw.ellipse(at(1, 3.5, 4, 6.5), outline=ink, width=line)
        draw.line(at(4, 5, 9, 5), fill=ink, width=line)
        draw.line(at(8, 5, 8, 6.5), fill=ink, width=line)
    if rng.random() < 0.3:
        image = image.rotate(rng.uniform(-20, 20), Image.Resampling.BICUBIC, fillcolor=image.getpixel((0, 0)))
    return image.resize(size, Image.Resampling.BOX)


def _window(rng: random.Random, size: tuple[int, int], held_out: bool) -> Image.Image:
    """A screen: a bar with buttons, lines that stand for small text, panels."""
    width, height = size
    paper, ink = rng.choice(
        (((250, 250, 250), (60, 60, 66)), ((30, 32, 38), (190, 194, 200)), ((255, 255, 255), (20, 20, 20)))
    )
    image = Image.new("RGB", size, paper)
    draw = ImageDraw.Draw(image)
    bar = rng.randint(5, 10)
    draw.rectangle((0, 0, width, bar), fill=_any_colour(rng))
    for i in range(rng.randint(1, 4)):
        draw.ellipse((2 + 6 * i, 2, 2 + 6 * i + bar - 4, bar - 2), fill=_any_colour(rng))
    y = bar + rng.randint(2, 6)
    indent = rng.choice((2, 2, width // 3))
    if indent > 2:
        draw.rectangle((0, bar, indent - 3, height), fill=tuple((part + 128) // 2 for part in paper))
    while y < height - 3:
        x, end = float(indent), indent + (width - indent) * rng.uniform(0.3, 0.97)
        while x < end:  # words
            stop = min(end, x + rng.randint(2, 11))
            draw.line((x, y, stop, y), fill=ink, width=rng.choice((1, 1, 2)))
            x = stop + 2
        y += rng.randint(3, 6)
    if rng.random() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.8)))
    return image


def _empty(rng: random.Random, size: tuple[int, int], held_out: bool) -> Image.Image:
    return Image.new("RGB", size, rng.choice(((255, 255, 255), (0, 0, 0), _any_colour(rng))))
