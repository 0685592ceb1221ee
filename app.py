"""The app: settings → Engine → page → launch. Also the entry point of a Space."""

from __future__ import annotations

import logging
import sys
from functools import partial

try:  # On ZeroGPU this has to come before torch; elsewhere it changes nothing.
    from spaces import GPU as lend
except ImportError:
    lend = None

import nemodiff
from nemodiff.engine.interface import EngineInterface
from ui.backends import remote, zero
from ui.live.desk import Desk
from ui.live.models import Report
from ui.page import build
from ui.server import launch, logs
from ui.settings import Settings, SettingsError

logger = logging.getLogger("ui.app")


def load(settings: Settings, report: Report) -> EngineInterface:
    """The engine that the settings ask for, on this machine. Raises CheckpointError."""
    engine: EngineInterface = nemodiff.load(
        settings.checkpoint,
        device=settings.device,
        dtype=settings.dtype,
        graphs="off" if settings.zero else settings.graphs,
        lazy_sight=not settings.zero,
        report=report,
    )
    return zero.LentEngine(engine, lend) if settings.zero and lend else engine


def main() -> int:
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    logs.set_up(settings.log)
    if settings.threads:
        import torch  # not before nemodiff, which says how its threads wait

        torch.set_num_threads(settings.threads)
    engine: EngineInterface | None = None
    problem = ""
    behind = None
    try:
        if settings.serve_url:
            engine = remote.connect(settings.serve_url)
        elif settings.zero:  # there the weights have to be in place before the page opens
            engine = load(settings, logger.info)
        else:
            behind = partial(load, settings)
    except nemodiff.CheckpointError as error:
        problem = str(error)
        logger.error("%s The page starts without a model and replays recorded runs.", problem)
    desk = Desk(settings, places=engine.places if engine else 1)
    page = build.build(engine, settings, problem=problem, desk=desk, behind=behind)
    launch.end_gracefully(desk.line, settings.drain)
    launch.launch(page, desk, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
