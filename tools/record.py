"""The recordings that come with the page, made anew: `python -m tools.record [FOLDER] [NAME…]`.

The default checkpoint really runs, on this machine, once for each recording (default FOLDER: assets/traces), which says
what it was made by, where and when. What the page claims of one is checked before it is written: a run that shows
something else, as another checkpoint's may, is refused, and the one that was there stays. About a minute on two cores.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from nemodiff.engine.loading import load
from nemodiff.engine.local import Engine
from nemodiff.examples import EXAMPLES, PICTURES
from nemodiff.pictures import open_picture
from nemodiff.request import Request
from nemodiff.trace.answers import fault
from nemodiff.trace.events import Trace
from ui.settings import ASSETS

#: Bytes of the whole folder.
MOST = 1_500_000
_PROMPTS = {example.label: example.prompt for example in EXAMPLES}


def same(trace: Trace) -> bool:
    """Whether self-speculation wrote AR's text in fewer forwards."""
    ar, spec = trace["ar"], trace["self-speculation"]
    return spec.tokens == ar.tokens and spec.forwards < ar.forwards


def holds(trace: Trace) -> bool:
    return same(trace) and not fault(trace, trace["ar"])


def diffusion_alone_is_wrong(trace: Trace) -> bool:
    return holds(trace) and bool(fault(trace, trace["diffusion"]))


@dataclass(frozen=True, slots=True)
class Recording:
    """name: of its file, by which the page knows its title. requests: candidates; the first run of which `shows` is
    true is kept."""

    name: str
    requests: tuple[Request, ...]
    shows: Callable[[Trace], bool] = same


def recordings() -> Iterator[Recording]:
    ask = Request(prompt="-", alternatives=3)
    yield Recording("json-person", (replace(ask, prompt=_PROMPTS["JSON person"]),), holds)
    yield Recording("open", (replace(ask, prompt=_PROMPTS["Sleep"], max_new_tokens=96),))
    yield Recording("code", (replace(ask, prompt=_PROMPTS["Dataclass"]),), holds)
    picture = open_picture(ASSETS / "images" / "shapes.png")
    yield Recording("picture", (replace(ask, prompt=PICTURES["shapes"], images=(picture,)),))
    yield Recording("tree", (replace(ask, prompt=_PROMPTS["SQL inserts"], draft="tree"),))
    tale = replace(ask, prompt=_PROMPTS["Lighthouse"], temperature=0.8, max_new_tokens=80)
    yield Recording("temperature", tuple(replace(tale, seed=seed) for seed in range(1, 6)))
    wrong = [
        replace(ask, prompt=_PROMPTS[label], threshold=threshold)
        for threshold in (0.8, 0.7, 0.6, 0.5)
        for label in ("Days as JSON", "JSON person", "Count to 30")
    ]
    yield Recording("diffusion-wrong", tuple(wrong), diffusion_alone_is_wrong)


def record(engine: Engine, recording: Recording) -> Trace | None:
    """The first candidate's run that shows what it is for; None where no one does."""
    for request in recording.requests:
        trace = engine.generate(request)
        if recording.shows(trace):
            trace.recorded = datetime.date.today().isoformat()
            trace.image_previews = [image.preview() for image in request.images]
            return trace
    return None


def main() -> int:
    names = sys.argv[2:]
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ASSETS / "traces"
    folder.mkdir(parents=True, exist_ok=True)
    engine = load()
    engine.generate(Request(prompt="warm up", max_new_tokens=8))
    missing = 0
    for recording in recordings():
        if names and recording.name not in names:
            continue
        trace = record(engine, recording)
        if trace is None:
            missing += 1
            print(f"{recording.name}: no candidate shows what it is for; nothing was written", flush=True)
            continue
        path = folder / f"{recording.name}.json"
        path.write_text(trace.to_json(), encoding="utf-8")
        forwards = ", ".join(f"{lane.mode} {lane.forwards}" for lane in trace.lanes)
        print(f"{path}: {path.stat().st_size // 1000} kB; forwards: {forwards}", flush=True)
    size = sum(path.stat().st_size for path in folder.glob("*.json"))
    if size > MOST:
        print(f"{folder} holds {size} bytes, more than {MOST}: shorten a run.", file=sys.stderr)
    return int(bool(missing) or size > MOST)


if __name__ == "__main__":
    sys.exit(main())
