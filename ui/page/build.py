"""The page: a header that says what runs, the tabs Watch and Compare, and the endpoint for programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gradio as gr

from nemodiff.engine.interface import EngineInterface
from nemodiff.trace import player
from ui import api
from ui.live.desk import Desk
from ui.live.models import Checkpoints, Report
from ui.page import checkpoint_menu, compare, conversation, links, picture_slot, shelf, tour, words
from ui.page.checkpoint_menu.switch import Switch
from ui.page.watch import MODEL, QUIET, Watch
from ui.settings import Settings

STYLES = [
    Path(__file__).parent / "page.css",
    *(part.STYLE for part in (checkpoint_menu, picture_slot, conversation, words, shelf, tour, compare, player)),
]
FONTS = ["system-ui", "-apple-system", "Segoe UI", "DejaVu Sans", "sans-serif"]
MONO = ["ui-monospace", "DejaVu Sans Mono", "Menlo", "Consolas", "monospace"]


def theme() -> gr.themes.Base:
    """System fonts, so that nothing is fetched; colours are page.css's."""
    return gr.themes.Base(font=FONTS, font_mono=MONO)


def build(
    engine: EngineInterface | None,
    settings: Settings,
    *,
    problem: str = "",
    desk: Desk | None = None,
    behind: Callable[[Report], EngineInterface] | None = None,
) -> gr.Blocks:
    """The page around an engine. Without one (`engine` None) traces still replay, and Generate answers `problem`.

    desk: the line that runs wait in. behind: loads the engine behind the open page; it is given what takes its lines of
    progress.
    """
    desk, checkpoints = desk or Desk(settings), Checkpoints(engine, settings, problem)
    desk.engine, desk.loading = lambda: checkpoints.engine, lambda: checkpoints.loading
    if behind:
        checkpoints.load_behind(behind)

    def offers(_: str) -> str:  # a server function always gets one argument
        return checkpoints.offers()

    with gr.Blocks(title="nemodiff", fill_width=True, delete_cache=(3600, 3600), analytics_enabled=False) as page:
        top = gr.HTML(
            value=checkpoints.state(),
            html_template=checkpoint_menu.template(),
            js_on_load=checkpoint_menu.script(),
            apply_default_css=False,
            server_functions=[offers] if settings.choose else None,
            elem_id="top",
        )
        watch = Watch(page, checkpoints, settings, desk)
        with gr.Tabs(elem_id="tabs") as tabs, gr.Tab("Watch", id="watch", elem_id="watch"):
            watch.lay_out()
            watch.wire(top)
            if settings.choose:
                switch = Switch(checkpoints, desk, top, watch.form)
                swapped = switch.wire(MODEL, QUIET)
                swapped.then(lambda: watch.slot.state(), None, watch.pictured, queue=False, **QUIET)
    shared = {key: MODEL[key] for key in ("concurrency_id", "concurrency_limit")}
    api.add(page, checkpoints, settings, desk, **shared)
    compare.Compare(checkpoints, settings, desk).add(page, tabs, MODEL)
    with page:
        links.component(settings.source)
    return page
