"""Pictures that a prompt brings along: a file nobody trusts → a small RGB image, or one sentence that says why not."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from nemodiff.errors import RequestError
from nemodiff.trace import MAX_PREVIEW

MAX_BYTES = 5_000_000
MAX_PIXELS = 25_000_000
#: Longest side that is kept, in pixels: what the vision tower of the largest checkpoint takes in.
MAX_SIDE = 1540

#: The classes themselves and not `Image.open`, which would try every format it knows.
_READERS = {"PNG": PngImageFile, "JPEG": JpegImageFile, "WebP": WebPImageFile, "GIF": GifImageFile}
#: Scans of a progressive JPEG: more only cost time (an encoder writes about ten), each as much as a whole picture.
_MAX_SCANS = 100
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: One picture is decoded at a time, so that many visitors need no more memory than one.
_decoding = threading.Lock()


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as a model takes it. Two are equal when their pixels are.

    image: RGB, 8 bits a channel, at most `MAX_SIDE` pixels a side when `open_picture` made it. digest: SHA-256, in hex,
    of size and pixels.
    """

    image: Image.Image = field(compare=False, repr=False)
    digest: str

    @classmethod
    def of(cls, image: Image.Image) -> Picture:
        """A picture of an image that is trusted; it is made RGB."""
        image = image.convert("RGB")
        size = f"{image.width}x{image.height}:".encode()
        return cls(image, hashlib.sha256(size + image.tobytes()).hexdigest())

    @property
    def width(self) -> int:
        return self.image.width

    @property
    def height(self) -> int:
        return self.image.height

    def preview(self, side: int = 320) -> str:
        """A small JPEG as a data URL of at most `MAX_PREVIEW` characters; `side` is its longest side, in pixels."""
        small = self.image.copy()
        while True:
            small.thumbnail((side, side))
            file = io.BytesIO()
            small.save(file, "JPEG", quality=75, optimize=True)
            url = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
            if len(url) <= MAX_PREVIEW:
                return url
            side = side * 3 // 4


def open_picture(source: bytes | str | Path) -> Picture:
    """The picture of a file's bytes, or of the file at a path: PNG, JPEG, WebP or GIF (its first frame).

    What the file is comes from its content. Bytes and pixels are checked before anything is decoded, transparent parts
    become white, the camera's orientation is applied, and a large picture is shrunk to `MAX_SIDE`.
    Raises RequestError with one sentence.
    """
    data = source if isinstance(source, bytes) else _read(Path(source))
    if not data:
        raise RequestError("The picture's file is empty: choose a PNG, JPEG, WebP or GIF file.")
    if len(data) > MAX_BYTES:
        raise RequestError(f"The picture's file is larger than {MAX_BYTES // 10**6} MB: choose or save a smaller one.")
    kind = _kind(data)
    if kind == "JPEG" and data.count(b"\xff\xda") > _MAX_SCANS:
        raise RequestError(f"The JPEG has more than {_MAX_SCANS} scans: save it again with an image editor.")
    with _decoding:
        try:
            if kind == "WebP":  # its reader makes room for all pixels at once
                _check_size(*_webp_size(data))
            image = _READERS[kind](io.BytesIO(data))
            _check_size(*image.size)
            return Picture.of(_shrunk(image))
        except RequestError:
            raise
        except MemoryError as error:
            raise RequestError("The picture needs more memory than there is: choose a smaller one.") from error
        except Exception as error:  # noqa: BLE001 - a damaged file makes its reader raise nearly anything
            raise RequestError(f"The {kind} picture is damaged or cut off: choose or save it again.") from error


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():  # a pipe or a device would never end
            raise RequestError(f"There is no picture at {path}: give the path of a PNG, JPEG, WebP or GIF file.")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"The picture {path.name!r} cannot be read: check that it exists and is yours.") from error


def _kind(data: bytes) -> str:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    if b"<svg" in data[:4096].lower():
        raise RequestError("The file is an SVG drawing, which has no pixels: save it as PNG first.")
    raise RequestError("The file is not a picture this page can open: choose a PNG, JPEG, WebP or GIF file.")


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise RequestError("The picture has no pixels: choose another one.")
    if width * height > MAX_PIXELS:
        raise RequestError(
            f"The picture is {width:,} × {height:,} pixels, over the limit of {MAX_PIXELS // 10**6} million: "
            "shrink it or choose a smaller one."
        )


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height that a WebP's first chunk states (RFC 9649, sections 2.5 to 2.7)."""
    chunk, body = data[12:16], data[20:]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError("no WebP chunk")


def _shrunk(image: Image.Image) -> Image.Image:
    """RGB on white, upright, at most MAX_SIDE a side."""
    if image.format == "JPEG":
        image.draft(None, (MAX_SIDE, MAX_SIDE))  # decodes at 1/2, 1/4 or 1/8 where that is large enough
    image.load()
    turn = _TURNS.get(_orientation(image))
    image = _eight_bits(image)
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.thumbnail((MAX_SIDE, MAX_SIDE), reducing_gap=2.0)
    if image.mode == "RGBA":
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        image = white
    return image.transpose(turn) if turn is not None else image


def _eight_bits(image: Image.Image) -> Image.Image:
    """A 16-bit grey image in 8 bits, with what it says is transparent; any other as it is."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))))


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - damaged metadata turns no picture down
        return 1
