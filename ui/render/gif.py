"""A run as an animated GIF."""

from __future__ import annotations

from os import PathLike
from typing import Any

from PIL import Image, ImageColor

from nemodiff.trace.events import Trace
from ui.render.frames import AGES, GHOST, INK, LANES, LINE, OK, OWN, PAPER, SHEET, SOFT, Frames


def gif(trace: Trace, path: str | PathLike[str], **options: Any) -> tuple[int, int, int]:
    """Write the run as an endless GIF; returns (frames, width, height) in pixels. Options and errors: see Frames."""
    frames = Frames(trace, **options)
    palette = _palette()
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in frames.draw()]
    images[0].save(
        path,
        "GIF",
        save_all=True,
        append_images=images[1:],
        duration=frames.durations,
        loop=0,
        optimize=False,
        disposal=1,
    )
    return len(images), frames.width, frames.height


def _palette() -> Image.Image:
    """Every colour of the picture and the shades between ink and ground: text stays crisp, all frames share it."""
    lanes = [colour for _, colour in LANES.values()]
    pairs = [(PAPER, ink) for ink in (INK, SOFT, GHOST, OK, OWN, *lanes)]
    pairs += [(fill, ink) for fill in AGES for ink in (INK, OWN)]
    colours: set[tuple[int, ...]] = {ImageColor.getrgb(colour) for colour in (PAPER, INK, LINE, SHEET)}
    for ground, ink in pairs:
        a, b = ImageColor.getrgb(ground), ImageColor.getrgb(ink)
        colours |= {tuple(round(x + (y - x) * step / 7) for x, y in zip(a, b, strict=True)) for step in range(8)}
    flat = [part for colour in sorted(colours) for part in colour]
    image = Image.new("P", (1, 1))
    image.putpalette(flat)
    return image
