"""The picture's slot by itself: its own page and script, an upload that is counted, and the server's real answer."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gradio.utils import get_upload_folder
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from nemodiff.pictures import MAX_BYTES, MAX_SIDE, open_picture
from ui.live.models import Checkpoints
from ui.page.picture_slot import FILES, Slot
from ui.settings import Settings

PAGE = """
<div id="ask"><div id="host">{slot}</div><div id="prompt"><textarea></textarea></div></div>
<script>
window.sent = [];
const upload = async (file) => {{
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  window.sent.push(file.size);
  return {{ path: await window.kept(btoa(text)) }};
}};
const server = {{ look: (path) => window.look(path) }};
const element = document.querySelector("#host");
const watch = () => {{}};
const props = {props};
{script}
</script>
"""


class Stand:
    """What the slot talks to: whether the checkpoint sees, and the files that were uploaded."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, []
        grid = SimpleNamespace(trace=SimpleNamespace(image_grids=[(3, 4)]))
        self.engine = SimpleNamespace(checkpoint="made", sees=True, recorder=lambda request: grid)
        self.slot = Slot(Checkpoints(self.engine, Settings()))

    def keep(self, text: str) -> str:
        path = self.folder / f"{len(self.files)}.png"
        path.write_bytes(base64.b64decode(text))
        self.files.append(path)
        return str(path)


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    folder = Path(get_upload_folder()) / "made"
    folder.mkdir(parents=True, exist_ok=True)
    return Stand(folder)


@pytest.fixture
def slot(browser: Browser, stand: Stand) -> Iterator[Page]:
    context = browser.new_context(offline=True)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.expose_function("kept", stand.keep)
    page.expose_function("look", stand.slot.look)
    props = {"value": stand.slot.state(), "limit": MAX_BYTES, "side": MAX_SIDE, "examples": []}
    script = (FILES / "picture.js").read_text(encoding="utf-8")
    html = (FILES / "picture.html").read_text(encoding="utf-8")
    page.set_content(PAGE.format(slot=html, props=json.dumps(props), script=script))
    yield page
    context.close()
    assert not errors, errors


def written(image: Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


SMALL = written(Image.new("RGB", (32, 24), "red"))


def paste(
    page: Page, event: str = "paste", picture: bytes | None = SMALL, name: str = "image.png", **texts: str
) -> bool:
    """Whether the page left a paste (or a drop) of a picture and texts, by their types, to the browser."""
    return page.locator("#prompt textarea").evaluate(
        """(field, [kind, picture, name, texts]) => {
            const data = new DataTransfer();
            for (const [type, text] of Object.entries(texts)) data.setData(type, text);
            const bytes = Uint8Array.from(atob(picture), (c) => c.charCodeAt(0));
            data.items.add(new File([bytes], name, { type: "image/png" }));
            const one = { bubbles: true, cancelable: true };
            const event = kind === "paste" ? new ClipboardEvent(kind, { clipboardData: data, ...one })
              : new DragEvent(kind, { dataTransfer: data, ...one });
            return field.dispatchEvent(event);
        }""",
        [event, base64.b64encode(picture or b"").decode(), name, {k.replace("_", "/"): v for k, v in texts.items()}],
    )


def shown(page: Page) -> str:
    expect(page.locator("#picture")).to_have_attribute("data-state", "chosen")
    return page.locator("#picture .facts").text_content() or ""


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_text_from_an_office_program_wins_over_the_picture_beside_it(slot: Page, event: str) -> None:
    table = "name\tprice\r\napple\t0.40\r\n"
    assert paste(slot, event, text_plain=table, text_html="<table><tr><td>apple</td></tr></table>")
    assert paste(slot, event, text_plain="see image.png", text_html="<p>see image.png</p>")
    expect(slot.locator("#picture")).to_have_attribute("data-state", "empty")
    assert slot.evaluate("window.sent") == []


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_a_picture_with_only_its_name_or_address_beside_it_is_meant(slot: Page, event: str) -> None:
    for number, text in enumerate(("", "image.png", "/home/me/image.png", "https://example.org/a.png", " \r\n")):
        assert not paste(slot, event, text_plain=text, text_html="<img src='https://example.org/a.png'>")
        slot.wait_for_function("count => window.sent.length === count", arg=number + 1)
    assert shown(slot).startswith("32 × 24 pixels. The model sees 3 rows of 4")


@pytest.mark.parametrize("way", ["paste", "drop", "choose"])
def test_nothing_is_sent_to_a_checkpoint_that_does_not_see(slot: Page, stand: Stand, way: str) -> None:
    stand.engine.sees = False  # another visitor changed it: the page learns of that in time
    slot.evaluate("text => take(JSON.parse(text))", stand.slot.state())
    if way == "choose":
        slot.locator("#picture .slot").click()
        with slot.expect_file_chooser() as chooser:
            slot.get_by_role("button", name="Choose a file…").click()
        chooser.value.set_files({"name": "a.png", "mimeType": "image/png", "buffer": SMALL})
    else:
        assert not paste(slot, way)
    expect(slot.locator("#picture .error")).to_contain_text("made reads text only: leave the picture out")
    assert slot.evaluate("window.sent") == [] and stand.files == []
    expect(slot.locator("#picture .load")).to_be_hidden()  # this page lets nobody load another one
    stand.engine.sees = True
    paste(slot)
    assert shown(slot).startswith("32 × 24")


def choose(page: Page, data: bytes, name: str = "photo.jpg", kind: str = "image/jpeg") -> None:
    if page.locator("#picture .sheet").is_hidden():
        page.locator("#picture .slot").click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a file…").click()
    # iOS loses the file of an input that is not in the document while its chooser is open.
    assert chooser.value.element.evaluate("(input) => input.isConnected")
    chooser.value.set_files({"name": name, "mimeType": kind, "buffer": data})


def test_the_files_input_is_in_the_document_and_takes_the_same_file_twice(slot: Page) -> None:
    choose(slot, SMALL, "a.png", "image/png")
    shown(slot)
    choose(slot, SMALL, "a.png", "image/png")
    slot.wait_for_function("window.sent.length === 2")


def test_a_phone_offers_its_camera_and_nobody_else_does(browser: Browser, slot: Page, stand: Stand) -> None:
    slot.locator("#picture .slot").click()
    style = slot.add_style_tag(path=FILES / "picture.css")
    expect(slot.locator("#picture .camera")).to_be_hidden()
    style.evaluate("(style) => (style.textContent = style.textContent.replace('(pointer: coarse)', 'all'))")
    expect(slot.locator("#picture .camera")).to_be_visible()
    with slot.expect_file_chooser() as chooser:
        slot.get_by_role("button", name="Take a photo…").click()
    assert chooser.value.element.get_attribute("capture") == "environment"
    assert "image/jpeg" in (chooser.value.element.get_attribute("accept") or "")
    chooser.value.set_files({"name": "photo.png", "mimeType": "image/png", "buffer": SMALL})
    assert shown(slot).startswith("32 × 24")


def photo(size: tuple[int, int]) -> Image.Image:
    """Noise, as grain is to a JPEG, with one red corner."""
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    noise[: size[1] // 2, : size[0] // 2] = (255, 0, 0)
    return Image.fromarray(noise)


def test_a_photo_over_the_limit_is_shrunk_upright_before_it_is_sent(slot: Page, stand: Stand) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side: its upper left is the upper right of the picture
    data = written(photo((3200, 2400)), "JPEG", quality=95, exif=exif)
    assert len(data) > MAX_BYTES
    choose(slot, data)
    assert shown(slot).startswith("1155 × 1540 pixels, shrunk from 2400 × 3200.")
    picture = open_picture(stand.files[-1])
    assert picture.image.size == (1155, MAX_SIDE) and slot.evaluate("window.sent.at(-1)") < MAX_BYTES
    corners = [picture.image.getpixel((x, y)) for x, y in ((1000, 200), (100, 200), (1000, 1400))]
    assert [corner[0] > 240 and corner[1] < 20 for corner in corners] == [True, False, False]


def test_more_pixels_than_the_server_decodes_are_shrunk_too(slot: Page, stand: Stand) -> None:
    choose(slot, written(Image.new("L", (6400, 4800), 80)), "flat.png", "image/png")
    assert shown(slot).startswith("1540 × 1155 pixels, shrunk from 6400 × 4800.")
    clear = Image.new("RGBA", (6400, 4800), (0, 0, 0, 0))
    choose(slot, written(clear), "clear.png", "image/png")
    slot.wait_for_function("window.sent.length === 4")
    shown(slot)
    assert open_picture(stand.files[-1]).image.getpixel((9, 9)) == (255, 255, 255)


def test_a_large_file_that_the_browser_cannot_open_is_explained(slot: Page) -> None:
    wrong = slot.locator("#picture .error")
    heavy = MAX_BYTES + 1
    choose(slot, (b"\0\0\0\x1cftypheic" + bytes(16)).ljust(heavy, b"\0"), "IMG_0001.HEIC", "image/heic")
    expect(wrong).to_contain_text("The file is a HEIC photo, not a picture that can be opened here: share it as JPEG")
    choose(slot, b"\xff\xd8\xff".ljust(heavy, b"\0"))
    expect(wrong).to_contain_text("larger than 5 MB, and this browser cannot open it to shrink it")
    choose(slot, b"%PDF-1.7".ljust(heavy, b"\0"), "scan.pdf", "application/pdf")
    expect(wrong).to_contain_text("The file is a PDF document")
    assert max(slot.evaluate("window.sent")) <= 65_536
    choose(slot, SMALL, "a.png", "image/png")
    shown(slot)
    expect(wrong).to_be_hidden()
