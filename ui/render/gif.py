"""A run as an animated GIF."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

from PIL import Image, ImageColor

from nemodiff.trace.events import Trace
from ui.render.frames import Frames
from ui.render.frames.look import AGES, GHOST, INK, LANES, LINE, LIT, NO, OK, OWN, PAPER, SHEET, SOFT

#: Steps of a channel within which a colour is as good as the page's own.
_NEAR = 12


def gif(trace: Trace, path: str | PathLike[str], **options: Any) -> tuple[int, int, int]:
    """Write the run as an endless GIF; returns (frames, width, height) in pixels. Options and errors: see Frames."""
    frames = Frames(trace, **options)
    images: list[Image.Image] = []
    palette = None
    for image in frames.draw():
        palette = palette or _palette(frames.coloured())
        images.append(image.quantize(palette=palette, dither=Image.Dither.NONE))
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


def _palette(coloured: Sequence[Image.Image] = ()) -> Image.Image:
    """Every colour of the picture and the shades between ink and ground: text stays crisp, all frames share it. What is
    left of 256 colours goes to what has colours of its own."""
    lanes = [colour for _, colour in LANES.values()]
    pairs = [(PAPER, ink) for ink in (INK, SOFT, GHOST, OK, NO, OWN, *lanes)]
    pairs += [(fill, ink) for fill in AGES for ink in (INK, OWN)] + [(LIT, INK)]
    colours: set[tuple[int, ...]] = {ImageColor.getrgb(colour) for colour in (PAPER, INK, LINE, SHEET)}
    for ground, ink in pairs:
        a, b = ImageColor.getrgb(ground), ImageColor.getrgb(ink)
        colours |= {tuple(round(x + (y - x) * step / 7) for x, y in zip(a, b, strict=True)) for step in range(8)}
    flat = [part for colour in sorted(colours) for part in colour]
    image = Image.new("P", (1, 1))
    image.putpalette(flat + _own(coloured, colours))
    return image


def _own(coloured: Sequence[Image.Image], page: set[tuple[int, ...]]) -> list[int]:
    """The colours that pictures need most beside the page's, flat. Those close to one of the page's are left out:
    Pillow finds the nearest colour roughly, and would take them for paper or ink."""
    if not coloured:
        return []
    sheet = Image.new("RGB", (max(one.width for one in coloured), sum(one.height for one in coloured)), PAPER)
    y = 0
    for one in coloured:
        sheet.paste(one, (0, y), one if one.mode == "RGBA" else None)
        y += one.height
    parts = sheet.quantize(256 - len(page), Image.Quantize.MEDIANCUT).getpalette() or []
    own = {tuple(parts[at : at + 3]) for at in range(0, len(parts), 3)}
    far = (one for one in sorted(own) if all(max(map(abs, map(int.__sub__, one, known))) >= _NEAR for known in page))
    return [part for one in far for part in one][: 3 * (256 - len(page))]
