"""Pictures that are no drawings of ours: textures, clutter, photographs, screenshots, written pages, charts without
bars, icons and empty ones."""

from __future__ import annotations

import math
import random
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

#: Photographs that installed packages carry: (package, its folder, file names). The last of each is held out.
_CARRIED = (
    ("sklearn", "datasets/images", ("china.jpg", "flower.jpg")),
    ("gradio", "media_assets/images", ("cheetah.jpg", "cheetah1.jpg", "groot.jpeg", "lion.jpg", "tower.jpg")),
    ("matplotlib", "mpl-data/sample_data", ("grace_hopper.jpg",)),
)
#: Our own pages; the last is held out.
_PAGES = Path(__file__).resolve().parents[3] / "assets" / "screenshots"
_PAGE_NAMES = ("dark.png", "charts.png", "compare-dark.png", "phone.png", "compare.png")


def foreign(rng: random.Random, size: tuple[int, int], held_out: bool) -> Image.Image:
    """A picture of none of our kinds, RGB; held-out ones show photographs and pages that others never do."""
    makers = [_texture, _icon, _window, _empty, _clutter, _page, _chart]
    if _photographs(held_out):
        makers += [_photograph] * 5
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


def _clutter(rng: random.Random, size: tuple[int, int], held_out: bool) -> Image.Image:
    """Areas of all outlines over each other, mostly blurred: what a photograph is from afar."""
    width, height = size
    image = Image.new("RGB", size, _any_colour(rng))
    draw, spread = ImageDraw.Draw(image), rng.choice((30, 70, 255))
    base = _any_colour(rng)
    for _ in range(rng.randint(12, 40)):
        fill = tuple(max(0, min(255, part + rng.randint(-spread, spread))) for part in base)
        x, y, reach = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(4, 30)
        corners = [
            (x + rng.uniform(-reach, reach), y + rng.uniform(-reach, reach)) for _ in range(rng.choice((2, 3, 4, 5, 7)))
        ]
        if len(corners) == 2:
            draw.line(corners, fill=fill, width=rng.randint(1, 5))
        else:
            draw.polygon(corners, fill=fill)
    if rng.random() < 0.7:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 2.5)))
    grain = np.random.default_rng(rng.getrandbits(64)).normal(0, rng.choice((0, 3, 10)), (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(image, dtype=np.float32) + grain, 0, 255).astype(np.uint8))


def _page(rng: random.Random, size: tuple[int, int], held_out: bool) -> Image.Image:
    """Lines of real text, too many to be a short word."""
    width, height = size
    paper, ink = rng.choice(
        (((255, 255, 255), (20, 20, 20)), ((246, 240, 224), (60, 50, 40)), ((24, 26, 32), (220,) * 3))
    )
    image = Image.new("RGB", (3 * width, 3 * height), paper)
    draw, font_size = ImageDraw.Draw(image), rng.uniform(18, 33)
    font, y = ImageFont.load_default(font_size), rng.uniform(2, 20)
    while y < 3 * height:
        words = ["".join(rng.choices("etaoinshrdlucmfwypvbgk", k=rng.randint(1, 9))) for _ in range(12)]
        draw.text((rng.uniform(2, 12), y), " ".join(words).capitalize(), font=font, fill=ink)
        y += font_size * rng.uniform(1.15, 1.5)
    return image.resize(size, Image.Resampling.BOX)


def _chart(rng: random.Random, size: tuple[int, int], held_out: bool) -> Image.Image:
    """Lines over axes, points, or a pie."""
    width, height = (3 * side for side in size)
    image = Image.new("RGB", (width, height), rng.choice(((255, 255, 255), (245, 245, 248), (30, 32, 38))))
    draw, kind = ImageDraw.Draw(image), rng.choice(("lines", "points", "pie"))
    if kind == "pie":
        half = rng.uniform(0.25, 0.45) * min(width, height)
        x, y = (rng.uniform(half + 3, side - half - 3) for side in (width, height))
        at = rng.uniform(0, 360)
        parts = [rng.uniform(0.2, 1) for _ in range(rng.randint(3, 7))]
        for part in parts:
            end = at + 360 * part / sum(parts)
            draw.pieslice((x - half, y - half, x + half, y + half), at, end, fill=_any_colour(rng))
            at = end
        return image.resize(size, Image.Resampling.BOX)
    left, foot = rng.uniform(6, 40), height - rng.uniform(6, 40)
    draw.line((left, 6, left, foot, width - 6, foot), fill=(128, 128, 128), width=3)
    for _ in range(rng.randint(1, 4)):
        ink, count = _any_colour(rng), rng.randint(4, 14)
        y, places = rng.uniform(10, foot), []
        for i in range(count):
            y = max(8.0, min(foot - 4, y + rng.uniform(-0.25, 0.25) * height))
            places.append((left + (i + 0.5) * (width - left - 6) / count, y))
        if kind == "lines":
            draw.line(places, fill=ink, width=rng.randint(3, 7))
        else:
            for x, y in places:
                draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=ink)
    return image.resize(size, Image.Resampling.BOX)
