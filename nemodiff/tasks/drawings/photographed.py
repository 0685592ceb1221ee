"""A drawing as a camera sees it on a screen: slanted, blurred, noisy, shaded, striped; and where its things went."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from nemodiff.tasks.drawings.scenes import Thing

#: How far a corner of the screen may lie inside the photograph, as a share of its sides.
SLANT = 0.06


def photographed(
    rng: random.Random, image: Image.Image, things: tuple[Thing, ...]
) -> tuple[Image.Image, tuple[Thing, ...]]:
    """The same picture, of the same size, as a photograph of a screen that shows it; its things where they are now."""
    width, height = image.size
    corners = [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)]
    inside = [(abs(x - rng.uniform(0, SLANT) * width), abs(y - rng.uniform(0, SLANT) * height)) for x, y in corners]
    there, back = _projection(corners, inside), _projection(inside, corners)
    desk = Image.new("RGB", image.size, tuple(rng.randint(40, 220) for _ in range(3)))
    coefficients = tuple(float(value) for value in (back / back[2, 2]).flatten()[:8])
    shown = Image.new("L", image.size, 255).transform(
        image.size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR
    )
    slanted = image.transform(image.size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC)
    desk.paste(slanted, (0, 0), shown)
    if rng.random() < 0.6:
        desk = desk.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.7)))
    lit = np.asarray(desk, dtype=np.float32) * _light(rng, width, height)[..., None]
    grain = np.random.default_rng(rng.getrandbits(64))
    lit += grain.normal(0, rng.uniform(0, 7), lit.shape)
    seen = Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))
    return seen, tuple(_moved(thing, there) for thing in things)


def _projection(there: list[tuple[float, float]], here: list[tuple[float, float]]) -> np.ndarray:
    """The 3 × 3 matrix that takes four points to four others."""
    rows, values = [], []
    for (x, y), (u, v) in zip(there, here, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.append(np.linalg.solve(np.array(rows, dtype=float), np.array(values, dtype=float)), 1.0).reshape(3, 3)


def _light(rng: random.Random, width: int, height: int) -> np.ndarray:
    """Brightness by place [height, width]: uneven light, the edge of a shadow, a screen's stripes."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    turn = rng.uniform(0, 2 * math.pi)
    across = (np.cos(turn) * x / width + np.sin(turn) * y / height).astype(np.float32)
    light = rng.uniform(0.85, 1.08) + rng.uniform(0, 0.16) * across
    if rng.random() < 0.4:
        edge = 1 / (1 + np.exp(-(across - rng.uniform(-0.5, 0.8)) * rng.uniform(8, 40)))
        light -= rng.uniform(0.1, 0.3) * edge
    if rng.random() < 0.4:
        light += rng.uniform(0.01, 0.05) * np.sin(across * rng.uniform(60, 180))
    return np.clip(light, 0.45, 1.2)


def _moved(thing: Thing, there: np.ndarray) -> Thing:
    left, top, right, bottom = thing.box
    places = np.array([(thing.x, thing.y, 1), *((x, y, 1) for x in (left, right) for y in (top, bottom))]) @ there.T
    places = places[:, :2] / places[:, 2:]
    (x, y), corners = places[0], places[1:]
    (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
    return replace(thing, x=float(x), y=float(y), box=(left, top, right, bottom))
