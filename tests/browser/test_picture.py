"""A picture beside the prompt, with a small random checkpoint in NVIDIA's layout that sees."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, expect

from nemodiff.checkpoints.catalogue import DEFAULT
from nemodiff.pictures import MAX_BYTES
from nemodiff.trace.events import Trace
from tests.helpers.browser import PATIENCE, SCHEMES, download, findings, pick, running
from tests.helpers.official import random_ministral, write_nvidia
from tests.helpers.pictures import png_bomb
from tests.helpers.vlm import write_vlm

expect.set_options(timeout=PATIENCE)

#: A picture's placeholder, then the text.
TEMPLATE = (
    "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{{ '[IMG] ' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{% endif %} <think>{% endfor %}"
)


def drawn(form: str = "PNG") -> bytes:
    """32 x 24 pixels, which are 3 rows of 4 image tokens of 8 x 8."""
    image = Image.new("RGB", (32, 24), "white")
    ImageDraw.Draw(image).ellipse((4, 4, 16, 16), fill="red")
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


@pytest.fixture(scope="module")
def sight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("sight")
    checkpoint = write_vlm(folder / "tiny-sees", tokenizer=True, block_size=8)
    (checkpoint / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    settings = {"NEMODIFF_CHECKPOINT": str(checkpoint), "NEMODIFF_DTYPE": "float32", "NEMODIFF_CHOOSE": "1"}
    settings["NEMODIFF_CHECKPOINTS"] = str(write_nvidia(random_ministral(), folder / "tiny-reads", tokenizer=True))
    with running(folder / "app.log", settings | {"NEMODIFF_RECORDINGS": str(checkpoint)}) as address:
        yield address


def opened(browser: Browser, url: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    expect(page.locator("#picture")).to_be_visible()
    yield page
    context.close()
    assert not errors, errors


@pytest.fixture
def seeing(browser: Browser, sight: str) -> Iterator[Page]:
    yield from opened(browser, sight)


def choose(page: Page, data: bytes, name: str = "picture.png") -> None:
    if page.locator("#picture .sheet").is_hidden():
        page.locator("#picture .slot").click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a file…").click()
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": data})


def chosen(page: Page) -> None:
    expect(page.locator("#picture")).to_have_attribute("data-state", "chosen")
    expect(page.locator("#picture .sheet")).to_be_hidden()


def generate(page: Page, prompt: str = "w5 w6") -> dict:
    page.locator("#prompt textarea").fill(prompt)
    page.locator("#max-new-tokens input").fill("5")
    page.locator("#generate").click()
    expect(page.locator('#stage[data-state="done"]:not([data-waiting])')).to_be_visible()
    return kept(page)


def kept(page: Page) -> dict:
    return json.loads(page.locator("#stage").evaluate("stage => stage.trace()"))


def paste(page: Page, data: bytes) -> None:
    page.locator("#prompt textarea").evaluate(
        """(field, text) => {
            const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "pasted.png", { type: "image/png" }));
            field.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
        }""",
        base64.b64encode(data).decode(),
    )


def grid(page: Page, selector: str) -> list[str]:
    names = "['--rows', '--columns']"
    return page.locator(selector).evaluate(f"(node) => {names}.map((name) => node.style.getPropertyValue(name))")


def test_three_lanes_answer_about_an_uploaded_picture(seeing: Page, tmp_path: Path) -> None:
    before = generate(seeing)
    expect(seeing.locator("#stage .seen")).to_be_hidden()
    choose(seeing, drawn())
    chosen(seeing)
    seeing.locator("#picture .slot").click()
    expect(seeing.locator("#picture .facts")).to_have_text(
        "32 × 24 pixels. The model sees 3 rows of 4: 12 image tokens."
    )
    assert grid(seeing, "#picture .grid") == ["3", "4"]
    seeing.keyboard.press("Escape")

    trace = generate(seeing)
    assert trace["request"]["images"] == [[32, 24]] and trace["image_grids"] == [[3, 4]]
    assert [lane["mode"] for lane in trace["lanes"]] == ["ar", "diffusion", "self-speculation"]
    assert all(lane["tokens"] for lane in trace["lanes"])
    assert trace["lanes"][0]["tokens"] == trace["lanes"][2]["tokens"] != before["lanes"][0]["tokens"]
    seen = seeing.locator("#stage .seen")
    expect(seen.locator("img")).to_have_js_property("naturalWidth", 32)
    assert grid(seeing, "#stage .seen .frame i") == ["3", "4"]
    expect(seen.locator("dl")).to_contain_text("3 × 4 = 12")
    expect(seen.locator("dl")).to_contain_text(re.compile(r"encoding[\d.]+ m?s, once for all lanes"))
    expect(seen.locator("dl")).to_contain_text(re.compile(r"prefill[\d.]+ m?s, before decoding"))
    seen.get_by_role("button", name="Token grid").click()
    expect(seen.locator(".frame i")).to_be_hidden()

    # Encoded already: the run says so. And the picture goes into a trace only once the box is ticked.
    again = generate(seeing)
    assert again["image_ms"] == 0 or again["image_ms"] < trace["image_ms"]
    assert "image_previews" not in again
    seen.get_by_label("keep a small preview").check()
    assert kept(seeing)["image_previews"][0].startswith("data:image/jpeg;base64,")
    path = download(seeing, "Trace", tmp_path)
    assert len(Trace.from_json(path.read_bytes()).image_previews) == 1
    seeing.reload()
    with seeing.expect_file_chooser() as chooser:
        seeing.get_by_role("button", name="Open trace").click()
    chooser.value.set_files(path)
    expect(seen.locator("img")).to_have_js_property("naturalWidth", 32)
    expect(seen.get_by_label("keep a small preview")).to_be_hidden()


def test_a_picture_leaves_in_moving_pictures_and_trajectories_only_where_it_is_kept(
    seeing: Page, tmp_path: Path
) -> None:
    choose(seeing, drawn())
    chosen(seeing)
    generate(seeing)
    for keeps in (False, True):
        if keeps:
            seeing.locator("#stage .seen").get_by_label("keep a small preview").check()
        data = json.loads(download(seeing, "Trajectory", tmp_path).read_text(encoding="utf-8"))
        [image] = data["images"]
        assert (image["size"], image["grid"], image["preview"] is not None) == ([32, 24], [3, 4], keeps)
        with Image.open(download(seeing, "GIF", tmp_path)) as moving:
            frame = moving.convert("RGB").crop((18, 74, 18 + 128, 74 + 96))  # in its shape, under the head
        red = sum(count for count, (r, g, b) in frame.getcolors(1 << 20) or [] if r > 190 and g < 90 and b < 90)
        assert (red > 500) == keeps


def test_a_branch_keeps_the_picture_and_remove_takes_it_away(seeing: Page) -> None:
    paste(seeing, drawn("GIF"))
    chosen(seeing)
    generate(seeing)
    seeing.locator('#stage [data-lane="ar"] .t[data-index="1"]').click()
    seeing.locator("#stage .pin [data-branch] button").first.click()
    expect(seeing.locator("#stage .given")).to_be_visible()
    expect(seeing.locator('#stage[data-state="done"]:not([data-waiting])')).to_be_visible()
    branch = kept(seeing)
    assert branch["request"]["images"] == [[32, 24]] and branch["request"]["answer_ids"]

    seeing.locator("#picture .slot").click()
    seeing.get_by_role("button", name="Remove").click()
    expect(seeing.locator("#picture")).to_have_attribute("data-state", "empty")
    assert generate(seeing)["request"]["images"] == []


def test_asking_on_keeps_the_picture_in_its_turn(seeing: Page) -> None:
    paste(seeing, drawn())
    chosen(seeing)
    first = generate(seeing)
    seeing.locator('[data-lane="self-speculation"]').get_by_role("button", name="Ask on").click()
    expect(seeing.locator("#picture")).to_have_attribute("data-state", "empty")
    expect(seeing.locator("#talk q").first).to_have_text("[picture] w5 w6")
    second = generate(seeing, "w7")
    turn = [
        {"role": "user", "content": "w5 w6", "images": 1},
        {"role": "assistant", "content": first["lanes"][2]["text"]},
    ]
    assert (second["request"]["history"], second["request"]["images"]) == (turn, [[32, 24]])
    expect(seeing.locator("#stage .seen .frame img")).to_have_count(1)
    seeing.locator("#link").click()
    expect(seeing.locator("#stage .message")).to_contain_text("A link carries no picture of a conversation")


def test_generate_waits_for_an_upload_that_goes_on(seeing: Page) -> None:
    held = []
    seeing.route("**/upload*", lambda route: held.append(route))
    with seeing.expect_request("**/upload*"):
        paste(seeing, drawn())
    expect(seeing.locator("#picture")).to_have_attribute("data-state", "going")
    seeing.locator("#max-new-tokens input").fill("5")
    seeing.locator("#generate").click()
    expect(seeing.locator("#stage")).to_have_attribute("data-waiting", "")
    held[0].continue_()
    expect(seeing.locator('#stage[data-state="done"]:not([data-waiting])')).to_be_visible()
    assert kept(seeing)["request"]["images"] == [[32, 24]]


def load(page: Page, name: str) -> None:
    pick(page, name)
    page.locator("#checkpoint .go").click()
    expect(page.locator("#checkpoint .name")).to_have_text(name)
    expect(page.locator("#checkpoint")).to_have_attribute("data-state", "running")


def test_the_slot_stays_when_the_checkpoint_sees_no_more(seeing: Page) -> None:
    paste(seeing, drawn())
    chosen(seeing)
    load(seeing, "tiny-reads")
    seeing.locator("#generate").click()
    expect(seeing.locator("#stage .message")).to_have_text(re.compile("^tiny-reads reads text only"))
    seeing.locator("#picture .slot").click()
    seeing.get_by_role("button", name="Remove").click()
    expect(seeing.locator("#picture .slot")).to_be_visible()
    assert generate(seeing)["checkpoint"] == "tiny-reads"
    load(seeing, "tiny-sees")


def test_a_picture_that_cannot_be_seen_is_shown_to_the_default_checkpoint_with_one_press(seeing: Page) -> None:
    load(seeing, "tiny-reads")
    paste(seeing, drawn())
    expect(seeing.locator("#picture .error")).to_contain_text("tiny-reads reads text only")
    seeing.get_by_role("button", name=f"Load {DEFAULT} for this picture").click()
    expect(seeing.locator("#checkpoint .name")).to_have_text(DEFAULT)
    chosen(seeing)
    expect(seeing.locator("#picture .facts")).to_contain_text("image tokens")
    load(seeing, "tiny-sees")


def test_bad_files_get_a_sentence_and_the_page_goes_on(seeing: Page, sight: str) -> None:
    wrong = seeing.locator("#picture .error")
    before = peak_memory(sight)
    for data, name, says in (
        (png_bomb(), "large.png", "13,000 × 13,000 pixels, over the limit of 25 million"),
        (drawn()[:60], "cut.png", "The PNG picture is damaged or cut off"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "drawing.png", "SVG drawing"),
        (b"just words", "words.png", "not a picture"),
        (b"", "empty.png", "empty"),
        (bytes(MAX_BYTES + 1), "heavy.png", "larger than 5 MB"),
    ):
        choose(seeing, data, name)
        expect(wrong).to_contain_text(says)
        expect(seeing.locator("#picture")).to_have_attribute("data-state", "error")
    if before is not None:
        assert peak_memory(sight) - before < 60  # MB; decoded the large one alone would take 170
    choose(seeing, drawn("WebP"), "fine.txt")
    chosen(seeing)
    expect(wrong).to_be_hidden()
    # A path that the page names is no upload.
    seeing.locator("#picture").evaluate("(root) => { root.path = '/etc/passwd' }")
    seeing.locator("#generate").click()
    expect(seeing.locator("#stage .message")).to_have_text("The picture is no longer kept here: choose it again.")
    choose(seeing, drawn("JPEG"), "fine.jpeg")
    chosen(seeing)
    assert generate(seeing)["request"]["images"] == [[32, 24]]


def peak_memory(address: str) -> float | None:
    """MB that the server has had at most so far; None where there is no /proc."""
    if sys.platform != "linux":
        return None
    port = f"GRADIO_SERVER_PORT={address.rpartition(':')[2]}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if port in (process / "environ").read_bytes().split(b"\0"):
                status = (process / "status").read_text(encoding="utf-8")
                return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
        except (OSError, TypeError):
            continue
    return None


def test_an_example_brings_its_question_and_its_link_brings_it_back(seeing: Page, browser: Browser, sight: str) -> None:
    seeing.locator("#picture .slot").click()
    seeing.locator("#picture .examples button").first.click()
    chosen(seeing)
    field = seeing.locator("#prompt textarea")
    expect(field).to_have_value(re.compile("picture"))
    seeing.locator("#link").click()
    expect(seeing).to_have_url(re.compile(r"[?&]picture=\w+"))
    for page in opened(browser, seeing.url):
        chosen(page)
        expect(page.locator("#prompt textarea")).to_have_value(field.input_value())
    for page in opened(browser, f"{sight}/?prompt=w5&picture=nothing"):
        expect(page.locator("#stage .message")).to_have_text(re.compile("this page has none of that name"))
        expect(page.locator("#picture")).to_have_attribute("data-state", "empty")


def test_a_checkpoint_that_reads_shows_the_slot_and_says_what_sees(page: Page, app: str) -> None:
    page.locator("#picture .slot").click()
    expect(page.locator("#picture .error")).to_have_text(re.compile(r"reads text only: .* or load \S+, which sees\."))
    expect(page.locator("#picture .load")).to_be_hidden()  # its owner lets nobody choose
    page.keyboard.press("Escape")
    expect(page.locator("#picture")).to_have_attribute("data-state", "empty")
    paste(page, drawn())
    expect(page.locator("#picture")).to_have_attribute("data-state", "error")
    expect(page.locator("#picture .error")).to_have_text(re.compile(r"reads text only: .* or load \S+, which sees\."))
    page.keyboard.press("Escape")
    expect(page.locator("#picture")).to_have_attribute("data-state", "empty")
    page.goto(f"{app}/?prompt=Hi&picture=shapes")
    expect(page.locator("#stage .message")).to_have_text(re.compile("reads text only"))


@SCHEMES
def test_axe_finds_nothing(browser: Browser, sight: str, scheme: str) -> None:
    for page in opened(browser, f"{sight}/?__theme={scheme}"):
        page.locator("#picture .slot").click()
        assert findings(page) == []
        choose(page, drawn())
        chosen(page)
        generate(page)
        page.locator("#picture .slot").click()
        expect(page.locator("#picture .chosen")).to_be_visible()
        assert findings(page) == []
