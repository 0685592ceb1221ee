"""The recordings that come with the page."""

from __future__ import annotations

import logging
from pathlib import Path

from nemodiff.errors import NemodiffError
from nemodiff.trace.opening import read_trace
from ui.wire import replay

logger = logging.getLogger(__name__)


def recording(folder: Path) -> str | None:
    """The first recorded run in a folder, ready for the stage; None when there is none that can be read."""
    for path in sorted(folder.glob("*.json")):
        try:
            return replay(read_trace(path), "recorded")
        except NemodiffError as error:
            logger.warning("%s: %s", path.name, error)
    return None
