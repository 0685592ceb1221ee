"""Text in a picture: fonts on a grid, and the pen that writes cells and lines with them."""

from __future__ import annotations

import functools
import unicodedata
from typing import Any

from PIL import Image, ImageDraw, ImageFont, features

from ui.render.frames.look import PAPER, Look
from ui.render.text_layout import clusters, cut, is_emoji, visual, width

#: The one size that the colour emoji font has.
_EMOJI_SIZE = 109
#: Characters that a font need not have: joiners and variation selectors, which say how others look.
_SILENT = "\u200c\u200d\ufe0e\ufe0f"
_FLAG = 0x1F1E6

Place = tuple[float, float]
Box = tuple[float, float, float, float]


class Lettering:
    """A monospaced font and its grid. Without DejaVu Sans Mono, Pillow's own font on a grid of its widest letter."""

    def __init__(self, size: int) -> None:
        self.size = size  # of letters, in pixels
        self.body = _font("DejaVuSansMono.ttf", size)
        # A shaping engine, where there is one, puts combining characters into place; else they are drawn over a letter.
        self.engine = ImageFont.Layout.RAQM if features.check("raqm") else ImageFont.Layout.BASIC
        self.joins = self.engine == ImageFont.Layout.RAQM
        # Hebrew, for one, is in the second alone.
        self.fonts = [_font(file, size, self.engine) for file in ("DejaVuSansMono.ttf", "DejaVuSans.ttf")]
        self.blank = [bytes(font.getmask("\U0010ffff")) for font in self.fonts]
        self.chosen: dict[str, Any] = {}
        self.small = _font("DejaVuSans.ttf", size - 1)
        self.head = _font("DejaVuSans-Bold.ttf", size + 1)
        self.tiny = _font("DejaVuSans.ttf", max(6, round(size * 0.62)))
        self.width = max(1, round(self.body.getlength("M")))
        self.height = round(size * 1.5)
        self.emoji = _colours(self.engine)

    def font_of(self, cluster: str) -> Any | None:
        """The first font that has all of a cluster's characters; None where none has."""
        if cluster not in self.chosen:
            fits = (
                font
                for font, blank in zip(self.fonts, self.blank, strict=True)
                if all(c in _SILENT or bytes(font.getmask(c)) != blank for c in cluster)
            )
            self.chosen[cluster] = next(fits, None)
        return self.chosen[cluster]

    def in_colour(self, cluster: str) -> Image.Image | None:
        """A cluster as the colour emoji font draws it, as large as fits; None without that font or its glyph."""
        if self.emoji is None or not is_emoji(cluster):
            return None
        return _glyph(self.emoji, cluster, (width(cluster) * self.width, self.height - 4))


def _font(file: str, size: int, engine: ImageFont.Layout = ImageFont.Layout.BASIC) -> Any:
    try:
        return ImageFont.truetype(file, size, layout_engine=engine)
    except OSError:
        return ImageFont.load_default(size)


@functools.cache
def _colours(engine: ImageFont.Layout) -> Any | None:
    """Noto Color Emoji, where this machine has it."""
    try:
        return ImageFont.truetype("NotoColorEmoji.ttf", _EMOJI_SIZE, layout_engine=engine)
    except OSError:
        return None


@functools.lru_cache(maxsize=1024)
def _glyph(font: Any, cluster: str, room: tuple[int, int]) -> Image.Image | None:
    try:
        left, top, right, bottom = font.getbbox(cluster)
    except OSError:  # the engine cannot lay it out
        return None
    if right - left < 1 or bottom - top < 1 or right > 16 * _EMOJI_SIZE:
        return None
    image = Image.new("RGBA", (round(right - left), round(bottom - top)))
    ImageDraw.Draw(image).text((-left, -top), cluster, font=font, embedded_color=True)
    if image.getbbox() is None:
        return None
    image.thumbnail(room, Image.Resampling.LANCZOS)
    return image


class Pen:
    """Draws on an image. It is one image for all frames, so what was there is painted over."""

    def __init__(self, image: Image.Image, type_: Lettering) -> None:
        self.type = type_
        self.over(image)

    def over(self, image: Image.Image) -> None:
        """Draw on another image from now on."""
        self.image, self.draw = image, ImageDraw.Draw(image)

    def write(self, place: Place, text: str, font: Any, colour: str, room: float) -> float:
        """One line, cut with an ellipsis where the room ends; returns its length."""
        text = shortened(text, font, room)
        self.draw.text(place, text, colour, font)
        return float(font.getlength(text))

    def cell(self, box: Box, text: str, look: Look) -> None:
        """Text on the grid of the body's letters, over what stood there."""
        left, top, right, bottom = (round(edge) for edge in box)
        self.draw.rectangle((left, top, right - 1, bottom - 1), look.fill or PAPER)
        column = 0
        for cluster in clusters(text):
            if cluster != " ":
                self._character((left + column * self.type.width, top), cluster, look.ink)
            column += width(cluster)
        if look.line and (look.fill or text.strip()):
            base = bottom - 2
            if look.dotted:
                for x in range(left, right - 1, 4):
                    self.draw.rectangle((x, base, x + 1, base + 1), look.line)
            else:
                self.draw.rectangle((left, base, right - 1, base + 1), look.line)
        if look.struck:
            self.draw.line((left, (top + bottom) // 2, right - 1, (top + bottom) // 2), look.ink)

    def _character(self, place: Place, cluster: str, ink: str) -> None:
        if cluster.isascii():
            self.draw.text(place, cluster, ink, self.type.body)
            return
        cluster = unicodedata.normalize("NFC", cluster)
        (x, y), room = place, width(cluster) * self.type.width
        coloured = self.type.in_colour(cluster)
        font = None if coloured else self.type.font_of(cluster)
        if coloured:
            at = round(x + (room - coloured.width) / 2), round(y + (self.type.height - 2 - coloured.height) / 2)
            self.image.paste(coloured, at, coloured)
        elif font is None:
            self._unknown(place, cluster, ink, room)
        else:
            for part in [cluster] if self.type.joins else cluster:
                self.draw.text((x + (room - font.getlength(part)) / 2, y), part, ink, font)

    def _unknown(self, place: Place, cluster: str, ink: str, room: int) -> None:
        """What no font here has: a box; a flag's has its letters."""
        x, y = place
        box = (x + 1, y + 3, x + max(room, self.type.width) - 2, y + self.type.height - 5)
        self.draw.rectangle(box, None, ink)
        letters = "".join(chr(65 + ord(c) - _FLAG) for c in cluster if 0 <= ord(c) - _FLAG < 26)
        middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        if letters and self.type.tiny.getlength(letters) < room:
            self.draw.text(middle, letters, ink, self.type.tiny, anchor="mm")


def shortened(text: str, font: Any, room: float) -> str:
    """A line as it is seen, cut with an ellipsis where the room ends."""
    text = visual(unicodedata.normalize("NFC", text[:400]))
    if font.getlength(text) <= room:
        return text
    parts = clusters(text)
    low, high = 0, len(parts)
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength("".join(parts[:middle]) + "…") <= room:
            low = middle
        else:
            high = middle - 1
    return "".join(parts[:low]) + "…"


def fitting(text: str, columns: int) -> str:
    """A text on the grid, cut with an ellipsis to so many columns."""
    return text if width(text) <= columns else cut(text, max(columns - 1, 0)) + "…"
