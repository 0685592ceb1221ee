"""The band that shows what the model was shown: the prompt's pictures under their grid of image tokens."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageDraw

from nemodiff.trace.events import Trace
from nemodiff.trace.reading import image_sizes
from ui.render.frames.lettering import Pen
from ui.render.frames.look import INK, LINE, SHEET, SOFT
from ui.render.pictures import MOST, Shown, pictures_of

#: Pixels: a picture's height and largest width; the band around it.
TALL, WIDE, HEIGHT = 96, 260, 120


def facts(trace: Trace, shown: list[Shown]) -> list[tuple[str, str]]:
    """What is said of the pictures beside them, (name, value) each, as the stage says it."""
    sizes = ", ".join(f"{width} × {height}" for width, height in image_sizes(trace.request))
    kept = "" if any(one.preview for one in shown) else "; not kept in this trace"
    found = [("picture" if len(shown) == 1 else "pictures", (f"{sizes} pixels" if sizes else "of the prompt") + kept)]
    grids = [f"{rows} × {columns} = {rows * columns}" for rows, columns in trace.image_grids]
    if grids:
        found.append(("image tokens", ", ".join(grids)))
    if trace.image_ms is not None and trace.image_grids:
        took = f"{_brief(trace.image_ms)}, once for all lanes and on none of their clocks"
        found.append(("encoding", took if trace.image_ms else "known from an earlier run"))
    prefill = max((lane.prefill_seconds for lane in trace.lanes), default=0.0)
    if prefill:
        found.append(("prefill", f"{_brief(1000 * prefill)}, before decoding began"))
    return found


def _brief(ms: float) -> str:
    return f"{ms / 1000:.2f} s" if ms >= 1000 else f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms"


def fit(size: tuple[int, int], tall: int, wide: int) -> tuple[int, int]:
    """Width and height of a picture that is as tall as its room, or as wide."""
    scale = min(tall / size[1], wide / size[0])
    return max(12, round(size[0] * scale)), max(12, round(size[1] * scale))


def framed(one: Shown, tall: int, wide: int, font: Any) -> Image.Image:
    """A picture in its frame under its grid of tokens; without its preview, an empty frame that says so."""
    width, height = fit(one.size, tall, wide)
    image = Image.new("RGB", (width, height), SHEET)
    pen = ImageDraw.Draw(image, "RGBA")
    if one.preview is not None:
        image.paste(one.preview.resize((width, height), Image.Resampling.LANCZOS))
    if one.grid is not None:
        ink = (255, 255, 255, 80) if one.preview is not None else (128, 138, 148, 60)
        rows, columns = (min(side, limit // 3) for side, limit in zip(one.grid, (height, width), strict=True))
        for i in range(1, columns):
            pen.line((width * i // columns, 0, width * i // columns, height), ink)
        for i in range(1, rows):
            pen.line((0, height * i // rows, width, height * i // rows), ink)
    if one.preview is None:
        for line, text in enumerate(("picture", "not kept")):
            middle = width / 2, height / 2 + (line - 0.5) * 15
            if width > 56:
                pen.text(middle, text, SOFT, font, anchor="mm", stroke_width=3, stroke_fill=SHEET)
    pen.rectangle((0, 0, width - 1, height - 1), None, LINE)
    return image


class PictureBand:
    """The band under the head of a picture of a run. Nothing in it moves."""

    height = HEIGHT

    def __init__(self, trace: Trace) -> None:
        self.trace, self.shown = trace, pictures_of(trace)
        self.framed: list[Image.Image] = []

    def draw(self, pen: Pen, left: int, top: int, right: int) -> None:
        x = left
        for one in self.shown[:MOST]:
            image = framed(one, TALL, min(WIDE, (right - left) // 2), pen.type.small)
            if x > left and x + image.width > left + (right - left) * 0.62:
                break
            pen.image.paste(image, (x, top + (HEIGHT - image.height) // 2))
            self.framed.append(image)
            x += image.width + 10
        rest = len(self.shown) - len(self.framed)
        told = facts(self.trace, self.shown) + ([("not drawn", f"{rest} more")] if rest else [])
        names = max(pen.type.small.getlength(name) for name, _ in told) + 12
        y = top + (HEIGHT - 20 * len(told)) / 2
        for name, value in told:
            pen.write((x + 8, y), name, pen.type.small, SOFT, right - x)
            pen.write((x + 8 + names, y), value, pen.type.small, INK, right - x - 8 - names)
            y += 20
        pen.draw.line((0, top + HEIGHT, pen.image.width, top + HEIGHT), LINE)
