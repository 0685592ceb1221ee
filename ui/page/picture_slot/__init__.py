"""The slot for a picture beside the prompt: what it shows, and the way from a visitor's upload to a Picture."""

from __future__ import annotations

import base64
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from nemodiff.checkpoints.catalogue import CATALOGUE
from nemodiff.errors import RequestError
from nemodiff.examples import PICTURES
from nemodiff.pictures import MAX_BYTES, MAX_SIDE, OtherFormat, Picture, TooManyPixels, open_picture
from nemodiff.request import Request
from ui.live.models import Checkpoints
from ui.wire import explain, pack

FILES = Path(__file__).parent
STYLE = FILES / "picture.css"
IMAGES = FILES.parents[2] / "assets" / "images"
_GONE = "The picture is no longer kept here: choose it again."

_numbers = count(1)


class Slot:
    """The picture that goes with the prompt. The page holds where its upload lies and says so with every request;
    nothing is kept here between two of them, so any process can answer.

    Messages are flat JSON strings, numbered, so that the same one twice is two: `sees` (whether the checkpoint does),
    else a sentence about that (`blind`) and the checkpoint that this visitor may load for it (`seer`), what the
    catalogue notes of it (`note`), and where they change `picture` (what was chosen, or null), `error` (one sentence),
    `pick` (an example to choose). Of a picture that was refused, the size of one that the browser may shrink (`large`)
    and whether it is of a known other format (`other`).
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints

    def component(self) -> gr.HTML:
        def look(path: str) -> str:  # Gradio marks its server functions, which a method does not let it
            return self.look(path)

        return gr.HTML(
            value=self.state(),
            html_template=(FILES / "picture.html").read_text(encoding="utf-8"),
            js_on_load=(FILES / "picture.js").read_text(encoding="utf-8"),
            apply_default_css=False,
            server_functions=[look],
            examples=[one for one in (_offer(name) for name in PICTURES) if one],
            limit=MAX_BYTES,
            side=MAX_SIDE,
            elem_id="picture-host",
            min_width=40,
        )

    def state(self, **more: Any) -> str:
        engine = self._checkpoints.engine
        running = engine and engine.checkpoint
        note = next((entry.note for entry in CATALOGUE if entry.name == running), "")
        blind = ""
        try:
            self._check_sight()
        except RequestError as error:
            blind = str(error)
        seer = self._checkpoints.seer if blind else None
        return pack(
            {"n": next(_numbers), "sees": self._checkpoints.sees, "blind": blind, "seer": seer, "note": note} | more
        )

    def images(self, path: str | None) -> tuple[Picture, ...]:
        """The picture of an upload, as a Request takes it; () without one.

        path: from the page, so untrusted: only a file that was uploaded is ever opened. Raises RequestError.
        """
        if not path:
            return ()
        self._check_sight()
        return (_uploaded(path),)

    def look(self, path: str) -> str:
        """What was uploaded, as the model would get it: its size, its grid of image tokens and a preview."""
        try:
            if not (images := self.images(path)):
                raise RequestError(_GONE)
            picture = images[0]
            shown = {"width": picture.width, "height": picture.height, "preview": picture.preview()}
            return self.state(picture=shown | {"grid": self._grid(picture)})
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            large = [error.width, error.height] if isinstance(error, TooManyPixels) else None
            other = isinstance(error, OtherFormat)
            return self.state(picture=None, error=explain(error), large=large, other=other)

    def link(self, path: str | None) -> str | None:
        """The name by which a link carries the picture: only an example has one. Raises RequestError."""
        if not path:
            return None
        digest = _uploaded(path).digest
        for name in PICTURES:
            if _digest(name) == digest:
                return name
        raise RequestError("A link carries no picture of your own: remove it, or save the trace and share that file.")

    def follow(self, name: str | None) -> str | None:
        """The message that chooses the example that a link names; None without one. Raises RequestError."""
        if name is None:
            return None
        if name not in PICTURES or _offer(name) is None:
            raise RequestError("The link's picture was left out: this page has none of that name.")
        self._check_sight()
        return self.state(pick=name)

    def _check_sight(self) -> None:
        engine = self._checkpoints.loaded("no picture can be looked at")
        if not self._checkpoints.sees:
            seer = next((entry.name for entry in CATALOGUE if entry.sees), None)
            other = f"load {seer}, which sees" if seer else "load a checkpoint that sees"
            raise RequestError(f"{engine.checkpoint} reads text only: leave the picture out, or {other}.")

    def _grid(self, picture: Picture) -> list[int] | None:
        """[rows, columns] of the picture's tokens, as a run's trace says them; the model is not asked."""
        engine = self._checkpoints.loaded("no picture can be looked at")
        grids = engine.recorder(Request(prompt="-", images=(picture,))).trace.image_grids
        return list(grids[0]) if grids else None


def _uploaded(path: Any) -> Picture:
    """The picture in a file that a visitor uploaded. Any other path is refused without a look at it."""
    folder = Path(get_upload_folder()).resolve()
    try:
        file = Path(path).resolve()
        inside = file.is_relative_to(folder) and file != folder and file.is_file()
    except (TypeError, ValueError, OSError, RuntimeError):
        inside = False
    if not inside:
        raise RequestError(_GONE)
    return open_picture(file)


@cache
def _offer(name: str) -> dict[str, str] | None:
    """An example for the page; None where its file is missing."""
    file = IMAGES / f"{name}.png"
    if not file.is_file():
        return None
    source = "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode("ascii")
    return {"name": name, "question": PICTURES[name], "source": source}


@cache
def _digest(name: str) -> str | None:
    file = IMAGES / f"{name}.png"
    return open_picture(file).digest if file.is_file() else None
