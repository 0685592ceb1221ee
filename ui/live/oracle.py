"""The ceiling of the run on the stage, as the flat JSON strings that the stage takes."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from contextlib import closing

from nemodiff.errors import RequestError
from nemodiff.trace.oracle import Ceiling
from ui.live import branch
from ui.live.models import Checkpoints
from ui.live.run import Runs
from ui.wire import explain, pack

#: Seconds between two messages of progress.
PAUSE = 0.2


def stream(
    checkpoints: Checkpoints, asked: str, seconds: float, runs: Runs | None = None
) -> Generator[str, None, None]:
    """The ceiling of a run; yields progress, then the ceiling or one sentence. Closing it stops the model.

    asked: {"id", "run", "checkpoint", "request", "answer_ids"}, untrusted; the id comes back with every message.
    seconds: of wall time that it may take. runs: see `branch.request_of`.
    """
    name = _id(asked)
    try:
        engine = checkpoints.loaded("no ceiling can be searched")
        request = branch.request_of(asked, engine.checkpoint, seconds, runs)
        ceiling, end, told = Ceiling(), time.monotonic() + seconds, 0.0
        so_far = {"id": name, "tokens": 0, "most": 0, "forwards": 0}
        with closing(engine.ceiling(request)) as steps:
            for step in steps:
                if step is not None:
                    so_far |= {"tokens": step.tokens, "most": step.most, "forwards": step.forwards}
                    ceiling.blocks += [step.block] if step.block else []
                now = time.monotonic()
                if now > end:
                    limit = f"The search took longer than this page's limit of {seconds:.0f} s"
                    raise RequestError(f"{limit}: ask for fewer tokens or a shorter block.")
                if now - told > PAUSE:
                    told = now
                    yield pack({"light": so_far})
        yield pack({"light": {"id": name, "ceiling": ceiling.to_json()}})
    except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
        yield refusal(asked, explain(error))


def progress(asked: str) -> str:
    """Nothing yet: another run comes first."""
    return pack({"light": {"id": _id(asked), "tokens": 0, "most": 0, "forwards": 0}})


def refusal(asked: str, sentence: str) -> str:
    return pack({"light": {"id": _id(asked), "error": sentence}})


def _id(asked: str) -> int:
    if not isinstance(asked, str) or len(asked) > branch.MAX_CHARACTERS:
        return 0
    try:
        return int(json.loads(asked)["id"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return 0
