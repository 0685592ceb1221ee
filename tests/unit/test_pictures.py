"""Files nobody trusts: the right pixels or one clear sentence, in little memory."""

import base64
import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nemodiff import pictures
from nemodiff.errors import RequestError
from nemodiff.pictures import MAX_BYTES, MAX_PIXELS, MAX_SIDE, Picture, open_picture
from nemodiff.trace.limits import MAX_PREVIEW
from tests.helpers.pictures import png_bomb, webp

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)
FORMATS = ("PNG", "JPEG", "WebP", "GIF")


def written(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def gradient(size=(40, 24)):
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8), "RGB")


def refusal(data):
    with pytest.raises(RequestError) as error:
        open_picture(data)
    sentence = str(error.value)
    assert "\n" not in sentence and sentence.endswith(".") and ":" in sentence  # what was wrong: what to do
    return sentence


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_opens_whatever_the_file_is_called(form, tmp_path):
    path = tmp_path / "picture.txt"
    path.write_bytes(written(gradient(), form))
    picture = open_picture(path)
    assert (picture.width, picture.height, picture.image.mode) == (40, 24, "RGB")
    assert picture == open_picture(str(path)) == open_picture(path.read_bytes())
    difference = np.abs(np.asarray(picture.image, int) - np.asarray(gradient(), int))
    assert difference.mean() < {"PNG": 1e-9, "GIF": 12}.get(form, 6)


def test_the_digest_is_of_size_and_pixels():
    wide, tall = Image.new("RGB", (4, 2)), Image.new("RGB", (2, 4))
    assert Picture.of(wide).digest != Picture.of(tall).digest
    assert Picture.of(wide).digest == open_picture(written(wide)).digest == open_picture(written(wide, "GIF")).digest
    assert len(Picture.of(wide).digest) == 64
    assert len({Picture.of(wide), Picture.of(wide), Picture.of(tall)}) == 2


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (255, 0, 0, 0), WHITE),
        ("RGBA", (255, 0, 0, 255), RED),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("LA", (0, 0), WHITE),
        ("L", 77, (77, 77, 77)),
        ("1", 1, WHITE),
        ("I;16", 0x8123, (0x81, 0x81, 0x81)),
        ("I", 40_000, (156, 156, 156)),
    ],
)
def test_modes_become_rgb_on_white(mode, colour, expected):
    assert open_picture(written(Image.new(mode, (3, 3), colour))).image.getpixel((1, 1)) == expected


def test_a_palette_with_a_transparent_entry_is_flattened():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    for form in ("PNG", "GIF"):
        picture = open_picture(written(image, form, transparency=0))
        assert [picture.image.getpixel((x, 0)) for x in (0, 1)] == [WHITE, GREEN]


def test_a_transparent_grey_of_16_bits_is_flattened():
    grey = Image.fromarray(np.array([[1000, 1001]], np.uint16))
    picture = open_picture(written(grey, transparency=1000))
    assert [picture.image.getpixel((x, 0)) for x in (0, 1)] == [WHITE, (3, 3, 3)]


def test_a_cmyk_jpeg_has_its_colours():
    data = written(Image.new("RGB", (16, 16), RED).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(np.subtract(open_picture(data).image.getpixel((8, 8)), RED)).max() < 8


def test_a_gif_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    for form, options in (("GIF", {}), ("WebP", {"lossless": True})):
        data = written(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert open_picture(data).image.getpixel((4, 4)) == RED


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WebP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_cameras_orientation_is_applied(form, orientation):
    upright = Image.new("RGB", (48, 32), "black")
    upright.paste(RED, (0, 0, 16, 16))
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # how a camera so held would store it
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WebP" else {"quality": 95} if form == "JPEG" else {}
    picture = open_picture(written(stored, form, exif=exif, **options))
    assert (picture.width, picture.height) == (48, 32)
    assert np.abs(np.asarray(picture.image, int) - np.asarray(upright, int)).mean() < 4


def test_a_broken_orientation_is_left_alone():
    data = written(gradient(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert open_picture(data).image.size == (40, 24)


def test_a_large_picture_is_shrunk_and_keeps_its_shape():
    for form in FORMATS:
        picture = open_picture(written(Image.new("RGB", (3080, 1000), RED), form))
        assert picture.image.size == (MAX_SIDE, 500)
        assert np.abs(np.subtract(picture.image.getpixel((700, 250)), RED)).max() < 6
    assert open_picture(written(Image.new("L", (40_000, 2)))).image.size == (MAX_SIDE, 1)
    assert open_picture(written(Image.new("L", (MAX_SIDE, 2)))).image.size == (MAX_SIDE, 2)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"just words", "not a picture"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\x89PNG\r\n\x1a\n", "PNG picture is damaged"),
        (b"\xff\xd8\xff\xe0", "JPEG picture is damaged"),
        (b"GIF89a", "GIF picture is damaged"),
        (b"RIFF\0\0\0\0WEBP", "WebP picture is damaged"),
        (webp(b"JUNK", b""), "WebP picture is damaged"),
        (b"BM" + bytes(60), "not a picture"),
        (written(gradient(), "TIFF"), "not a picture"),
        (bytes(MAX_BYTES + 1), "larger than 5 MB"),
        (png_bomb(), "13,000 × 13,000 pixels"),
        (png_bomb(2**31 - 1, 1)[:60], "2,147,483,647 × 1 pixels"),
        (b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0" + b"," + bytes(9) + b"\x02\0;", "65,535 × 65,535"),
        (webp(b"VP8X", bytes(4) + b"\xff" * 3 + b"\xff" * 3), "16,777,216 × 16,777,216"),
        (webp(b"VP8L", b"\x2f" + b"\xff" * 4), "16,384 × 16,384"),
        (webp(b"VP8 ", b"\x10\0\0\x9d\x01\x2a" + b"\xff\x3f\xff\x3f"), "16,383 × 16,383"),
        (b"\xff\xd8\xff" + b"\xff\xda" * 101, "more than 100 scans"),
    ],
)
def test_what_is_no_picture_gets_one_sentence(data, says):
    assert says in refusal(data)


@pytest.mark.parametrize("form", ["GIF", "WebP"])
def test_a_bomb_in_a_well_formed_file_is_refused_by_its_header(form):
    side = 16_000 if form == "WebP" else 13_000
    data = bytearray(
        written(Image.new("L", (8, 8)).convert("RGB"), form, **({"lossless": True} if form == "WebP" else {}))
    )
    if form == "GIF":
        data[6:10] = struct.pack("<HH", side, side)
    else:
        data[21:25] = ((side - 1) | (side - 1) << 14).to_bytes(4, "little")
    assert f"{side:,} × {side:,}" in refusal(bytes(data))


def test_a_frame_larger_than_its_gif_is_refused_too():
    data = bytearray(written(Image.new("P", (8, 8)), "GIF"))
    frame = data.index(b",", 13 + 3 * (2 << (data[10] & 7)) * (data[10] >> 7))
    data[frame + 5 : frame + 9] = struct.pack("<HH", 8000, 8000)
    assert "8,000 × 8,000" in refusal(bytes(data))


def test_what_cannot_be_read_gets_one_sentence(tmp_path):
    for path in (tmp_path / "none.png", tmp_path, "/dev/zero", "a\0b"):
        refusal(path)


def test_the_limit_on_pixels_is_inclusive():
    side = int(MAX_PIXELS**0.5)
    assert open_picture(png_bomb(side, side)).image.size == (MAX_SIDE, MAX_SIDE)
    assert "over the limit" in refusal(png_bomb(side + 1, side))


@given(st.sampled_from(FORMATS), st.floats(0, 1), st.binary(max_size=24))
@settings(max_examples=150, deadline=None)
def test_a_cut_or_patched_file_gives_a_picture_or_a_sentence(form, where, patch):
    whole = written(gradient(), form)
    at = int(where * len(whole))
    for data in (whole[:at], whole[:at] + patch + whole[at + len(patch) :], patch + whole):
        try:
            picture = open_picture(data)
        except RequestError as error:
            assert "\n" not in str(error)
        else:
            assert picture.image.mode == "RGB" and max(picture.image.size) <= MAX_SIDE


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_random_bytes_get_a_sentence(data):
    refusal(data)


def test_a_missing_half_is_noticed():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    for form in FORMATS:
        data = written(noise, form)
        assert f"{form} picture is damaged or cut off" in refusal(data[: len(data) // 2])


@given(st.integers(1, 900), st.integers(1, 900), st.integers(0, 3))
@settings(max_examples=12, deadline=None)
def test_a_preview_is_a_small_jpeg_of_the_same_shape(width, height, seed):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    url = Picture.of(Image.fromarray(noise)).preview()
    head, body = url.split(",")
    assert head == "data:image/jpeg;base64" and len(url) <= MAX_PREVIEW
    small = open_picture(base64.b64decode(body))
    assert max(small.width, small.height) <= 320
    assert abs(small.width / small.height - width / height) <= max(width, height) / min(small.width, small.height)


def test_one_picture_is_decoded_at_a_time(monkeypatch):
    held = []
    monkeypatch.setattr(pictures, "_shrunk", lambda image: held.append(pictures._decoding.locked()) or image)
    open_picture(written(gradient()))
    assert held == [True] and not pictures._decoding.locked()
