"""A run on one sheet for slides, as PNG or SVG: what was asked, the lanes with their figures and texts, the hardware,
and what the run came to. Laid out once; two canvases draw it."""

from __future__ import annotations

import io
from typing import Protocol

from PIL import ImageFont

from nemodiff.errors import TraceError
from nemodiff.trace.events import KEPT, Lane, Trace
from ui.render.charts.figure import plural
from ui.render.frames.lane_view import slots_of
from ui.render.frames.lettering import Lettering, shortened
from ui.render.frames.look import AGES, GHOST, INK, LANES, LINE, OK, OWN, PAPER, SHEET, SOFT, Look
from ui.render.frames.picture_band import fit
from ui.render.pictures import Shown, pictures_of
from ui.render.positions import Cells, seen
from ui.render.poster_canvas import Raster, Vector, sans
from ui.render.verdict import verdict

#: Pixels: a slide's.
WIDTH, HEIGHT = 1920, 1080
MARGIN, GAP = 72, 48
#: Sizes of a lane's letters, of which the largest is taken that shows all texts; the most letters of a row.
SIZES, MOST_COLUMNS = (30, 26, 22, 18), 110
_PICTURE = 150
#: States of tokens that are no part of an answer.
_LEFT_OUT = ("drafted", "discarded")
NOTE = (
    "Shaded: tokens that came several in one forward. "
    "Forwards are counted after the prefill, which gives the first token."
)


class Canvas(Protocol):
    """What a poster is drawn on. Places are of a baseline, in pixels from the left and the top."""

    type: Lettering  # of lanes' texts

    def rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None: ...

    def text(self, x: float, y: float, text: str, size: int, colour: str, *, bold: bool = False) -> None: ...

    def cell(self, x: float, y: float, text: str, look: Look) -> None: ...

    def picture(self, x: float, y: float, size: tuple[int, int], one: Shown, preview: str) -> None: ...


def poster_png(trace: Trace) -> bytes:
    """1920 × 1080 pixels. Raises TraceError when there is nothing to draw."""
    plan = _Plan(trace)
    canvas = Raster(WIDTH, HEIGHT, plan.type)
    _draw(canvas, plan)
    file = io.BytesIO()
    canvas.image.save(file, "PNG", optimize=True)
    return file.getvalue()


def poster_svg(trace: Trace) -> bytes:
    """The same, to be scaled: text stays text, nothing is fetched or run. Raises TraceError as `poster_png` does."""
    plan = _Plan(trace)
    canvas = Vector(WIDTH, HEIGHT, plan.type, f"{plan.prompt[:200]}: {' '.join(plan.sentences)}")
    _draw(canvas, plan)
    return canvas.finish()


class _Plan:
    """What is where, whatever draws it."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.lanes = [lane for lane in trace.lanes if lane.events]
        if not self.lanes:
            raise TraceError("The run has no forwards, so there is nothing to draw.")
        self.prompt = " ".join(seen(str(trace.request.get("prompt") or "")).split()) or trace.checkpoint or "nemodiff"
        self.sentences = verdict(trace)
        self.told = [line for one in self.sentences for line in _wrapped(one, 25, WIDTH - 2 * MARGIN, 2)]
        self.pictures = [(one, fit(one.size, _PICTURE, 300)) for one in pictures_of(trace)[:3]]
        self.room = WIDTH - 2 * MARGIN - sum(wide + 20 for _, (wide, _) in self.pictures)
        self.lines = _wrapped(self.prompt, 38, self.room, 2)
        head = 96 + 50 * (len(self.lines) - 1) + 42
        self.top = max(head, 48 + _PICTURE if self.pictures else 0) + 64
        self.bottom = HEIGHT - 92 - 38 * len(self.told)
        self.wide = (WIDTH - 2 * MARGIN - GAP * (len(self.lanes) - 1)) / len(self.lanes)
        self.forwards = max(lane.forwards for lane in self.lanes)
        self.seconds = max(lane.seconds for lane in self.lanes)
        self.text_top = self.top + 74 + 36 * (2 if self.seconds else 1) + 22
        self.cells = [Cells(lane) for lane in self.lanes]
        for cells, lane in zip(self.cells, self.lanes, strict=True):
            cells.advance(len(lane.events) - 1)
        said = ((one.token for one, _ in cells.at.values() if one.state not in _LEFT_OUT) for cells in self.cells)
        longest = max(sum(len(trace.vocabulary.get(token, "")) for token in tokens) for tokens in said)
        for size in SIZES:
            self.type = Lettering(size)
            columns = min(MOST_COLUMNS, int(self.wide // self.type.width))
            self.fits = max(1, int((self.bottom - self.text_top) // self.type.height))
            if longest > columns * self.fits and size != SIZES[-1]:
                continue  # it cannot fit, so it need not be laid out
            self.texts = [slots_of(trace, lane, columns, _LEFT_OUT) for lane in self.lanes]
            if all(rows <= self.fits for _, rows in self.texts):
                break


def _draw(canvas: Canvas, plan: _Plan) -> None:
    canvas.rectangle(0, 0, WIDTH, HEIGHT, PAPER)
    _head(canvas, plan)
    for i, lane in enumerate(plan.lanes):
        x = MARGIN + i * (plan.wide + GAP)
        _lane(canvas, plan, lane, x)
        _answer(canvas, plan, i, x)
    canvas.rectangle(MARGIN, plan.bottom + 8, WIDTH - 2 * MARGIN, 1, LINE)
    for k, line in enumerate(plan.told):
        _write(canvas, MARGIN, plan.bottom + 48 + 38 * k, line, 25, INK, WIDTH - 2 * MARGIN, bold=True)
    _write(canvas, MARGIN, HEIGHT - 36, NOTE, 17, SOFT, WIDTH - 2 * MARGIN)


def _head(canvas: Canvas, plan: _Plan) -> None:
    """Prompt, where it ran, and the prompt's pictures."""
    x, trace = MARGIN + plan.room + 20, plan.trace
    for i, (one, size) in enumerate(plan.pictures):
        canvas.picture(x, 48, size, one, trace.image_previews[i] if one.preview is not None else "")
        x += size[0] + 20
    for k, line in enumerate(plan.lines):
        _write(canvas, MARGIN, 96 + 50 * k, line, 38, INK, plan.room, bold=True)
    where = (trace.checkpoint, trace.device, trace.dtype, (trace.recorded or "")[:10])
    y = 96 + 50 * (len(plan.lines) - 1) + 42
    _write(canvas, MARGIN, y, seen(" · ".join(filter(None, where))), 21, SOFT, plan.room)


def _lane(canvas: Canvas, plan: _Plan, lane: Lane, x: float) -> None:
    """A lane's name, how it was asked, and its figures; bars are as long as its share of the most."""
    (name, colour), y, wide = LANES[lane.mode], plan.top, plan.wide
    canvas.rectangle(x, y - 19, 8, 22, colour)
    _write(canvas, x + 20, y, name, 26, INK, wide - 20, bold=True)
    _write(canvas, x + 20, y + 28, how(plan.trace, lane), 17, SOFT, wide - 20)
    bars = [("forwards", str(lane.forwards), lane.forwards / max(plan.forwards, 1))]
    if lane.seconds:
        bars.append(("seconds", f"{lane.seconds:.2f}", lane.seconds / plan.seconds))
    y += 74
    for label, value, share in bars:
        _write(canvas, x, y, label, 17, SOFT, 90)
        _write(canvas, x + 90, y, value, 22, INK, 90, bold=True)
        canvas.rectangle(x + 180, y - 15, wide - 180, 14, SHEET)
        canvas.rectangle(x + 180, y - 15, max(2, (wide - 180) * share), 14, colour)
        y += 36
    _write(canvas, x, y, figures(lane), 17, SOFT, wide)


def figures(lane: Lane) -> str:
    parts = [plural(len(lane.tokens), "token")]
    parts += [f"{lane.tpf:.2f} tokens / forward"] if lane.tpf else []
    counted = lane.nfe_counts()[-1]
    parts += [f"NFE {counted}"] if counted is not None else []
    parts += [f"{len(lane.tokens) / lane.seconds:.1f} tokens / s"] if lane.seconds else []
    return " · ".join(parts)


def how(trace: Trace, lane: Lane) -> str:
    """The settings that a lane used, in a few words."""
    request = trace.request
    block = request.get("block_length")
    blocks = f"blocks of {block}" if isinstance(block, int) else ""
    if lane.mode == "ar":
        parts = ["one token per forward"]
    elif lane.mode == "diffusion":
        sampler, threshold = request.get("sampler") or "", request.get("threshold")
        uses = sampler in ("", "confidence", "trained") and isinstance(threshold, int | float)
        parts = [blocks, f"{sampler} sampler" if sampler else "", f"threshold {threshold:g}" if uses else ""]
        parts.append("from the left" if request.get("order") == "leftmost" else "")
    else:
        draft = request.get("draft") or "linear"
        head = " with a draft head" if request.get("draft_head") is True else ""
        parts = [f"{draft} drafts{head}", blocks if draft != "tree" else _rows(request.get("rows"))]
    temperature = request.get("temperature")
    parts.append(f"temperature {temperature:g}" if isinstance(temperature, int | float) and temperature else "")
    return seen(", ".join(filter(None, parts)))


def _rows(rows: object) -> str:
    return f"{rows} rows at most" if isinstance(rows, int) else "as many rows as pay"


def _answer(canvas: Canvas, plan: _Plan, i: int, x: float) -> None:
    """A lane's final text on its grid; tokens that came with others in one forward are shaded."""
    lane, (slots, rows), tall = plan.lanes[i], plan.texts[i], plan.type.height
    cells = plan.cells[i]
    brought = [sum(one.state in KEPT for one in event.positions) for event in lane.events]
    fits = plan.fits if rows <= plan.fits else plan.fits - 1
    left = 0
    for index, slot in slots.items():
        left += slot.pieces[0].row >= fits
        position, event = cells.at[index]
        look = _look(position.state, brought[event] > 1)
        for piece in slot.pieces:
            if piece.row < fits and piece.text:
                text = " " if piece.text == "⏎" else piece.text
                canvas.cell(x + piece.column * plan.type.width, plan.text_top + piece.row * tall, text, look)
    if left:
        _write(canvas, x, plan.text_top + fits * tall + 19, f"… {plural(left, 'more token')}", 17, SOFT, plan.wide)


def _look(state: str, shared: bool) -> Look:
    fill = AGES[1] if shared else None
    if state not in KEPT:
        return Look(GHOST, None, GHOST, dotted=True)
    if state in ("corrected", "bonus"):
        return Look(OWN, fill, OWN)
    return Look(INK, fill, OK if state == "accepted" else None)


def _write(
    canvas: Canvas, x: float, y: float, text: str, size: int, colour: str, room: float, *, bold: bool = False
) -> None:
    canvas.text(x, y, shortened(text, sans(size, bold), room), size, colour, bold=bold)


def _wrapped(text: str, size: int, room: float, lines: int) -> list[str]:
    """A text in so many lines at most, broken between words; what does not fit is left to the last line's ellipsis."""
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont = sans(size, True)
    found: list[str] = []
    words = text[:400].split(" ")
    while words and len(found) < lines - 1:
        count = 1
        while count < len(words) and font.getlength(" ".join(words[: count + 1])) <= room:
            count += 1
        found.append(" ".join(words[:count]))
        words = words[count:]
    return found + ([" ".join(words)] if words else [])
