"""The pictures of a trace's prompt: their sizes, their grids of image tokens, and what the trace keeps of them."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from PIL import Image

from nemodiff.errors import RequestError
from nemodiff.pictures import open_picture
from nemodiff.trace.events import Trace
from nemodiff.trace.reading import image_sizes

#: Pictures that are drawn; of others it is said how many there are.
MOST = 4


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture of the prompt: (width, height) in pixels, (rows, columns) of its tokens, and its preview, where the
    trace keeps one that can be read."""

    size: tuple[int, int]
    grid: tuple[int, int] | None
    preview: Image.Image | None


def pictures_of(trace: Trace) -> list[Shown]:
    """The prompt's pictures; of the first MOST, what the trace keeps of them. A trace may be anybody's file."""
    sizes = image_sizes(trace.request)
    grids, previews = trace.image_grids, trace.image_previews
    count = max(len(sizes), len(grids))
    return [
        Shown(
            sizes[i] if i < len(sizes) else (grids[i][1], grids[i][0]),
            grids[i] if i < len(grids) else None,
            _opened(previews[i]) if i < min(MOST, len(previews)) else None,
        )
        for i in range(count)
    ]


def _opened(preview: str) -> Image.Image | None:
    try:
        return open_picture(base64.b64decode(preview.partition(",")[2])).image
    except (RequestError, ValueError):
        return None
