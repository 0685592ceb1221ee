"""Pictures that a prompt brings along: a file nobody trusts → a small RGB image, or one sentence that says why not."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import struct
import threading
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from nemodiff.errors import RequestError
from nemodiff.trace.limits import MAX_PREVIEW

MAX_BYTES = 5_000_000
MAX_PIXELS = 25_000_000
#: Pixels of the longer side in a file, as many as a JPEG can have: a reader makes room for every row, however narrow.
MAX_LENGTH = 65_535
#: Longest side that is kept, in pixels: what the vision tower of the largest checkpoint takes in.
MAX_SIDE = 1540

#: The classes themselves and not `Image.open`, which would try every format it knows.
_READERS = {"PNG": PngImageFile, "JPEG": JpegImageFile, "WebP": WebPImageFile, "GIF": GifImageFile}
#: What other files begin with, and what to do with each: phones, scanners and office programs make them.
_SAVE = "open it in a photo program and save it as JPEG or PNG"
_OTHERS = (
    (rb"....ftyp(heic|heix|heim|heis|hevc|hevx|hevm|hevs)", "a HEIC photo", f"share it as JPEG, or {_SAVE}"),
    (rb"....ftyp(avif|avis)|....ftyp(mif1|msf1).{4,60}avi[fs]", "an AVIF picture", _SAVE),
    (rb"....ftyp(mif1|msf1)", "a HEIC photo", f"share it as JPEG, or {_SAVE}"),
    (rb"....ftyp|....moov|\x1a\x45\xdf\xa3|RIFF....AVI ", "a video", "take a picture of one moment as JPEG or PNG"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL picture", _SAVE),
    (rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ", "a JPEG 2000 picture", _SAVE),
    (rb"II[*+]\0|MM\0[*+]", "a TIFF picture or a camera's raw file", _SAVE),
    (rb"BM.{4}\0\0\0\0", "a BMP picture", _SAVE),
    (rb"%PDF-", "a PDF document", "take a screenshot of the page and save it as PNG"),
    (rb"8BPS", "a Photoshop file", _SAVE),
    (rb"\0\0[\x01\x02]\0", "an icon", _SAVE),
    (
        rb"PK\x03\x04|\xd0\xcf\x11\xe0",
        "a document or an archive",
        "take the picture out of it and save it as JPEG or PNG",
    ),
)
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
#: Of a PNG: channels by colour type, and (x, y, dx, dy) of the passes of an interlaced one.
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
#: One picture is decoded at a time, so that many visitors need no more memory than one.
_decoding = threading.Lock()


class OtherFormat(RequestError):
    """A file of a kind that is known but not read here."""


class TooManyPixels(RequestError):
    """A readable picture of more pixels than are decoded here; who has it open can shrink it."""

    def __init__(self, width: int, height: int, limit: str) -> None:
        super().__init__(width, height, limit)
        self.width, self.height, self.limit = width, height, limit

    def __str__(self) -> str:
        size = f"{self.width:,} × {self.height:,} pixels"
        return f"The picture is {size}, over the limit of {self.limit}: shrink it or choose a smaller one."


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as a model takes it. Two are equal when their pixels are.

    image: RGB, 8 bits per channel, at most `MAX_SIDE` pixels a side when `open_picture` made it. digest: SHA-256, in
    hex, of size and pixels.
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
    _refuse_others(data)
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
            if kind == "PNG":
                _check_complete(data)
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
    raise RequestError("The file is not a picture that can be opened here: choose a PNG, JPEG, WebP or GIF file.")


def _refuse_others(data: bytes) -> None:
    for start, what, remedy in _OTHERS:
        if re.match(start, data[:100], re.DOTALL):
            raise OtherFormat(f"The file is {what}, not a picture that can be opened here: {remedy}.")


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise RequestError("The picture has no pixels: choose another one.")
    if width * height > MAX_PIXELS:
        raise TooManyPixels(width, height, f"{MAX_PIXELS // 10**6} million")
    if max(width, height) > MAX_LENGTH:
        raise TooManyPixels(width, height, f"{MAX_LENGTH:,} a side")


def _check_complete(data: bytes) -> None:
    """Raises ValueError when a PNG's pixels end early: its reader would leave the rest black without a word."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    passes = _PNG_PASSES if interlaced else ((0, 0, 1, 1),)
    left = 0
    for x, y, dx, dy in passes:
        columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        if columns > 0 and rows > 0:
            left += rows * (1 + -(-columns * depth * _PNG_CHANNELS[colour] // 8))
    stream, at = zlib.decompressobj(), 8
    while left > 0 and at + 8 <= len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        part = data[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        while part and left > 0 and not stream.eof:
            left -= len(stream.decompress(part, 1 << 16))
            part = stream.unconsumed_tail
        at += 12 + length
    if left > 0:
        raise ValueError(f"{left} bytes of pixels are missing")


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
