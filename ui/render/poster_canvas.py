"""What a poster is drawn on: pixels, or SVG."""

from __future__ import annotations

import functools
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageFont

from ui.render.frames.lettering import Lettering, Pen
from ui.render.frames.look import LINE, PAPER, SHEET, SOFT, Look
from ui.render.frames.picture_band import framed
from ui.render.pictures import Shown
from ui.render.text_layout import width

SVG = "http://www.w3.org/2000/svg"
_SANS = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
_MONO = "'DejaVu Sans Mono', ui-monospace, Menlo, Consolas, monospace"
# What XML cannot hold; `positions.seen` has written out control characters that one would miss.
_NO_XML = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\ud800-\\udfff\\ufffe\\uffff]")


@functools.cache
def sans(size: int, bold: bool = False) -> Any:
    """The font that posters are measured in."""
    try:
        return ImageFont.truetype("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


class Raster:
    """A canvas of pixels. type_: of lanes' texts."""

    def __init__(self, wide: int, tall: int, type_: Lettering) -> None:
        self.image, self.type = Image.new("RGB", (wide, tall), PAPER), type_
        self.pen = Pen(self.image, self.type)

    def rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        box = (round(x), round(y), round(x + width) - 1, round(y + height) - 1)
        if box[2] >= box[0] and box[3] >= box[1]:
            self.pen.draw.rectangle(box, colour)

    def text(self, x: float, y: float, text: str, size: int, colour: str, *, bold: bool = False) -> None:
        font = sans(size, bold)
        anchor = "ls" if isinstance(font, ImageFont.FreeTypeFont) else None
        self.pen.draw.text((x, y if anchor else y - size), text, colour, font, anchor=anchor)

    def cell(self, x: float, y: float, text: str, look: Look) -> None:
        box = (x, y, x + width(text) * self.type.width, y + self.type.height - 1)
        self.pen.cell(box, text, look)

    def picture(self, x: float, y: float, size: tuple[int, int], one: Shown, preview: str) -> None:
        self.image.paste(framed(one, size[1], size[0], self.type.small), (round(x), round(y)))


class Vector:
    """A canvas of SVG. type_: of lanes' texts; title: what it shows, in words."""

    def __init__(self, wide: int, tall: int, type_: Lettering, title: str) -> None:
        self.type = type_
        self.root = ET.Element(
            "svg",
            {"xmlns": SVG, "viewBox": f"0 0 {wide} {tall}", "width": str(wide), "height": str(tall), "role": "img"},
        )
        ET.SubElement(self.root, "title").text = _clean(title)
        style = f"text {{ font-family: {_SANS}; white-space: pre; }} .m {{ font-family: {_MONO}; }}"
        # Letters come in the order in which they are seen.
        style += " .v { direction: ltr; unicode-bidi: bidi-override; }"
        ET.SubElement(self.root, "style").text = style

    def finish(self) -> bytes:
        return ET.tostring(self.root, encoding="utf-8", xml_declaration=True)

    def _add(self, name: str, facts: Mapping[str, object], text: str = "") -> None:
        node = ET.SubElement(self.root, name, {key: _short(value) for key, value in facts.items()})
        if text:
            node.text = _clean(text)

    def rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        self._add("rect", {"x": x, "y": y, "width": width, "height": height, "fill": colour})

    def _line(self, x: float, y: float, to_x: float, to_y: float, colour: str, **more: object) -> None:
        facts = {key.replace("_", "-"): value for key, value in more.items()}
        self._add("line", {"x1": x, "y1": y, "x2": to_x, "y2": to_y, "stroke": colour} | facts)

    def text(self, x: float, y: float, text: str, size: int, colour: str, *, bold: bool = False) -> None:
        facts: dict[str, object] = {"x": x, "y": y, "font-size": size, "fill": colour}
        facts |= {"font-weight": 700} if bold else {}
        facts |= {} if text.isascii() else {"class": "v"}
        self._add("text", facts, text)

    def cell(self, x: float, y: float, text: str, look: Look) -> None:
        wide, base = width(text) * self.type.width, y + self.type.height - 3
        if look.fill:
            self.rectangle(x, y, wide, self.type.height - 1, look.fill)
        if bare := text.strip(" "):
            at = x + (len(text) - len(text.lstrip(" "))) * self.type.width
            facts: dict[str, object] = {"x": at, "y": y + round(1.06 * self.type.size), "fill": look.ink}
            facts |= {"font-size": self.type.size, "class": "m" if text.isascii() else "m v"}
            # As wide as its cells, whatever font it is shown in.
            facts |= {"textLength": width(bare) * self.type.width, "lengthAdjust": "spacingAndGlyphs"}
            self._add("text", facts, bare)
        if look.line and (look.fill or text.strip()):
            dashes = {"stroke_dasharray": "2 2"} if look.dotted else {}
            self._line(x, base, x + wide, base, look.line, stroke_width=2, **dashes)
        if look.struck:
            middle = y + self.type.height // 2
            self._line(x, middle, x + wide, middle, look.ink)

    def picture(self, x: float, y: float, size: tuple[int, int], one: Shown, preview: str) -> None:
        wide, tall = size
        box: dict[str, object] = {"x": x, "y": y, "width": wide, "height": tall}
        self.rectangle(x, y, wide, tall, SHEET)
        if preview:
            self._add("image", box | {"href": preview, "preserveAspectRatio": "none"})
        elif wide > 110:
            middle = {"x": x + wide / 2, "y": y + tall / 2, "text-anchor": "middle", "font-size": 17, "fill": SOFT}
            self._add("text", middle, "picture not kept")
        if one.grid is not None:
            rows, columns = (min(side, limit // 3) for side, limit in zip(one.grid, (tall, wide), strict=True))
            ink, clear = ("#fff", 0.35) if preview else (LINE, 1)
            for i in range(1, columns):
                at = x + wide * i / columns
                self._line(at, y, at, y + tall, ink, stroke_opacity=clear)
            for i in range(1, rows):
                at = y + tall * i / rows
                self._line(x, at, x + wide, at, ink, stroke_opacity=clear)
        self._add("rect", box | {"fill": "none", "stroke": LINE})


def _clean(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
