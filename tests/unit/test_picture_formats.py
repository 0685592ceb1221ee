"""What phones, scanners and office programs hand over as a picture: named, and what to do with it."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from nemodiff.errors import RequestError
from nemodiff.pictures import MAX_LENGTH, TooManyPixels, open_picture

FTYP = b"\0\0\0\x1cftyp"


def refusal(data: bytes) -> str:
    with pytest.raises(RequestError) as error:
        open_picture(data)
    return str(error.value)


def saved(form: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(file, form)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (FTYP + b"heic\0\0\0\0mif1heic", "HEIC"),
        (FTYP + b"mif1\0\0\0\0mif1heic", "HEIC"),
        (FTYP + b"avif\0\0\0\0avifmif1", "AVIF"),
        (FTYP + b"mif1\0\0\0\0mif1avif", "AVIF"),
        (b"\xff\x0a" + bytes(40), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL"),
        (saved("TIFF"), "TIFF"),
        (b"MM\0*" + bytes(60), "TIFF"),
        (saved("BMP"), "BMP"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        (FTYP + b"isom\0\0\0\0isommp42", "video"),
        (b"8BPS\0\1" + bytes(40), "Photoshop"),
        (b"PK\x03\x04" + bytes(60), "document"),
    ],
)
def test_another_format_is_named_and_what_to_do_with_it(data: bytes, name: str) -> None:
    for size in (len(data), 6_000_000):  # a scan is a TIFF first and then too large
        sentence = refusal(data.ljust(size, b"\0"))
        problem, remedy = sentence.split(": ")
        assert name in problem and ("save" in remedy or "take" in remedy) and sentence.endswith(".")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(size: tuple[int, int], rows: bytes, depth: int = 8, colour: int = 2, interlaced: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlaced)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


# In the middle of a row, and whole rows, which Pillow leaves black without a word.
@pytest.mark.parametrize("left", [1, 100, 5000, 121, 30 * 121, 59 * 121])
def test_a_png_whose_pixels_end_early_is_damaged_and_not_black_below(left: int) -> None:
    row = b"\0" + bytes([200] * 120)
    assert open_picture(png((40, 60), row * 60)).image.getpixel((39, 59)) == (200, 200, 200)
    assert "damaged or cut off" in refusal(png((40, 60), (row * 60)[:-left]))


def test_a_whole_png_of_any_kind_is_complete() -> None:
    """By depth, colour and interlace: as many bytes are counted as the format has (PNG, sections 7 and 8)."""
    for size in ((1, 1), (3, 5), (9, 8), (40, 24)):
        for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "I;16"):
            image = Image.fromarray(np.zeros(size[::-1], np.uint8)).convert("L" if mode == "I;16" else mode)
            file = io.BytesIO()
            (image.convert(mode) if mode != "I;16" else Image.new(mode, size)).save(file, "PNG")
            assert open_picture(file.getvalue()).image.size == size
    # The pixels per row of the passes of an interlaced one of 8 x 8; a filter byte stands before each row.
    widths = [1, 1, 2, 2, 2, 4, 4, 4, 4, 4, 4, 8, 8, 8, 8]
    rows = b"".join(b"\0" + bytes([90] * width) for width in widths)
    assert open_picture(png((8, 8), rows, colour=0, interlaced=1)).image.getpixel((7, 7)) == (90, 90, 90)
    assert "damaged or cut off" in refusal(png((8, 8), rows[:-3], colour=0, interlaced=1))


@pytest.mark.parametrize("size", [(1, 25_000_000), (25_000_000, 1), (1, MAX_LENGTH + 1)])
def test_the_longer_side_is_bounded_before_a_row_is_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(TooManyPixels, match="65,535 a side") as error:
        open_picture(png(size, b"", depth=1, colour=0))  # decoding would say that it is damaged
    assert (error.value.width, error.value.height) == size
    narrow = Image.new("L", (1, MAX_LENGTH))
    file = io.BytesIO()
    narrow.save(file, "PNG")
    assert open_picture(file.getvalue()).image.width == 1
