"""The slot's server side: uploads and nothing else are opened, and every refusal is one sentence."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from nemodiff.checkpoints.catalogue import DEFAULT
from nemodiff.errors import RequestError
from nemodiff.examples import PICTURES
from nemodiff.pictures import Picture, open_picture
from nemodiff.request import Request
from nemodiff.trace.events import Trace
from nemodiff.trace.replay import replay_html
from tests.helpers.engines import MadeEngine, streamed
from tests.helpers.engines import messages as stream_messages
from ui.live import branch, stage
from ui.live.models import Checkpoints
from ui.live.run import Runs
from ui.page import picture_slot
from ui.page.picture_slot import IMAGES, Slot
from ui.settings import Settings


class Seeing(MadeEngine):
    """Sees a picture as tokens of 10 pixels a side."""

    checkpoint, sees = "made", True

    def recorder(self, request: Request):
        recorder = super().recorder(request)
        recorder.trace.image_grids = [(one.height // 10, one.width // 10) for one in request.images]
        return recorder


class Blind(MadeEngine):
    checkpoint, sees = "reader", False


def slot(engine=None, problem: str = "") -> Slot:
    return Slot(Checkpoints(engine, Settings(), problem))


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "uploads"
    (folder / "0a1b").mkdir(parents=True)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


def upload(folder: Path, data: bytes | None = None, name: str = "own.png", size=(40, 20)) -> str:
    if data is None:
        file = io.BytesIO()
        Image.new("RGB", size, "red").save(file, "PNG")
        data = file.getvalue()
    path = folder / "0a1b" / name
    path.write_bytes(data)
    return str(path)


def test_what_was_chosen_is_shown_as_the_model_gets_it(uploads) -> None:
    data = json.loads(slot(Seeing()).look(upload(uploads)))
    assert data["sees"] is True and "error" not in data
    shown = data["picture"]
    assert (shown["width"], shown["height"], shown["grid"]) == (40, 20, [2, 4])
    assert shown["preview"].startswith("data:image/jpeg;base64,")


def test_a_request_gets_the_picture_or_none(uploads) -> None:
    assert slot(Seeing()).images("") == slot(Blind()).images(None) == slot().images("") == ()
    (image,) = slot(Seeing()).images(upload(uploads))
    assert isinstance(image, Picture) and image.image.getpixel((3, 3)) == (255, 0, 0)


def test_only_uploads_are_opened(uploads, tmp_path, monkeypatch) -> None:
    own = upload(uploads)
    outside = tmp_path / "secret.png"
    outside.write_bytes(Path(own).read_bytes())
    (uploads / "link.png").symlink_to(outside)
    (uploads / "loop.png").symlink_to(uploads / "loop.png")
    beside = tmp_path / "uploads-not" / "a.png"
    beside.parent.mkdir()
    beside.write_bytes(outside.read_bytes())
    monkeypatch.setattr(picture_slot, "open_picture", lambda path: pytest.fail(f"opened {path}"))
    for path in (
        "/etc/passwd",
        str(outside),
        str(beside),
        f"{uploads}/0a1b/../../secret.png",
        f"{uploads}/link.png",
        f"{uploads}/loop.png",
        str(uploads),
        f"{uploads}/0a1b",
        f"{uploads}/missing.png",
        "https://example.org/a.png",
        "a\0b",
        "x" * 5000,
        7,
        {"path": own},
        [own],
    ):
        with pytest.raises(RequestError, match="no longer kept here") as error:
            slot(Seeing()).images(path)
        assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"", "empty"), (b"words", "not a picture"), (b"<svg/>", "SVG"), (b"\x89PNG\r\n\x1a\n", "damaged")],
)
def test_a_bad_file_is_one_sentence(uploads, data, says) -> None:
    shown = json.loads(slot(Seeing()).look(upload(uploads, data)))
    assert shown["picture"] is None and says in shown["error"] and "\n" not in shown["error"]


def test_a_checkpoint_that_reads_says_so_and_names_one_that_sees(uploads, monkeypatch) -> None:
    class Entry:
        name, sees, note = "made/seer", True, ""

    class Reader:
        name, note, sees = "reader", "It reads.", False

    monkeypatch.setattr(picture_slot, "CATALOGUE", (Reader, Entry))
    shown = json.loads(slot(Blind()).look(upload(uploads)))
    assert shown["sees"] is False and shown["note"] == "It reads." and shown["picture"] is None
    assert shown["error"] == "reader reads text only: leave the picture out, or load made/seer, which sees."
    assert shown["seer"] is None  # where visitors may choose nothing, nothing is offered
    choosing = Slot(Checkpoints(Blind(), Settings(choose=True)))
    assert json.loads(choosing.state())["seer"] == DEFAULT
    with pytest.raises(RequestError, match="reads text only"):
        slot(Blind()).follow("shapes")
    with pytest.raises(RequestError, match="The model is away"):
        slot(None, "The model is away.").images(upload(uploads))


def test_an_unexpected_error_stays_in_the_log(uploads, monkeypatch, caplog) -> None:
    monkeypatch.setattr(picture_slot, "open_picture", lambda path: 1 / 0)
    shown = json.loads(slot(Seeing()).look(upload(uploads)))
    assert "Something went wrong" in shown["error"] and "division" in caplog.text


def test_the_examples_are_small_pictures() -> None:
    assert PICTURES
    for name, question in PICTURES.items():
        file = IMAGES / f"{name}.png"
        assert question and file.stat().st_size < 20_000
        assert open_picture(file).width >= 28


def test_a_link_carries_an_example_and_no_picture_of_ones_own(uploads) -> None:
    name = next(iter(PICTURES))
    example = upload(uploads, (IMAGES / f"{name}.png").read_bytes())
    assert slot(Seeing()).link(example) == name
    assert slot(Seeing()).link("") is None
    with pytest.raises(RequestError, match="no picture of your own"):
        slot(Seeing()).link(upload(uploads))
    assert json.loads(slot(Seeing()).follow(name))["pick"] == name
    assert slot(Seeing()).follow(None) is None
    with pytest.raises(RequestError, match="none of that name"):
        slot(Seeing()).follow("../secret")


def test_a_run_shows_its_pictures_and_its_trace_does_not_hold_them() -> None:
    image = Picture.of(Image.new("RGB", (40, 20), "red"))
    runs = Runs()
    request = Request(prompt="hello", modes=("ar",), images=(image,))
    first, *others = (json.loads(text) for text in streamed(Seeing(), request, runs, "visitor"))
    assert first["pictures"] == [image.preview()] and not any("pictures" in one for one in others)
    assert first["head"]["image_grids"] == [[2, 4]] and first["head"]["request"]["images"] == [[40, 20]]
    assert "image_previews" not in first["head"]
    assert "pictures" not in stream_messages(Seeing())[0]
    assert json.loads(stage.resync(runs, first["run"]))["pictures"] == [image.preview()]

    asked = {"run": first["run"], "checkpoint": "made", "request": first["head"]["request"], "answer_ids": [1]}
    assert branch.request_of(json.dumps(asked), "made", 9.0, runs).images == (image,)
    for gone in (asked | {"run": "other"}, asked | {"run": None}, asked | {"run": [1]}):
        with pytest.raises(RequestError, match="pictures themselves"):
            branch.request_of(json.dumps(gone), "made", 9.0, runs)


def test_a_replay_may_show_pictures_only_where_its_trace_holds_some() -> None:
    preview = Picture.of(Image.new("RGB", (40, 20), "red")).preview()
    trace = Trace("made", "words", "cpu", "float32", True, {}, Request(prompt="hello").to_json())
    assert "img-src" not in replay_html(trace)
    trace.image_previews = [preview]
    page = replay_html(trace)
    assert "img-src data:;" in page and preview.replace("&", "") in page
