"""Picture: a file's or an upload's pixels, checked and flattened to RGB."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from nemodiff.errors import RequestError


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as a model sees it. image: RGB. digest: SHA-256 of its pixels, in hex."""

    image: Image.Image = field(compare=False, repr=False)
    digest: str

    @property
    def width(self) -> int:
        return self.image.width

    @property
    def height(self) -> int:
        return self.image.height


def open_picture(source: bytes | str | Path) -> Picture:
    """Read a picture from a file or its bytes. Raises RequestError in one sentence."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            pixels = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RequestError("The picture cannot be read: give a PNG, JPEG, WebP or GIF file.") from error
    size = f"{pixels.width}x{pixels.height}:".encode()
    return Picture(pixels, hashlib.sha256(size + pixels.tobytes()).hexdigest())
