"""The page: prompt and settings above, the stage below, and what connects them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from nemodiff.engine.interface import EngineInterface
from nemodiff.errors import RequestError, TraceError
from nemodiff.examples import EXAMPLES
from nemodiff.request import Request
from nemodiff.trace.events import MAX_BYTES, Trace
from ui import api, player, wire
from ui.live import backlog, models, oracle, tickets
from ui.live import branch as branches
from ui.live import stream as live_stream
from ui.live.desk import Turns
from ui.live.limits import within
from ui.page import checkpoint_menu, compare, files, permalink, picture_slot, traces
from ui.page.form import Form
from ui.render import charts
from ui.render.charts.figure import empty
from ui.render.positions import escaped
from ui.settings import Settings
from ui.signature import parameter, sign
from ui.values import uploaded, worded

STYLES = [Path(__file__).parent / "page.css", checkpoint_menu.STYLE, picture_slot.STYLE, compare.STYLE, player.STYLE]
FONTS = ["system-ui", "-apple-system", "Segoe UI", "DejaVu Sans", "sans-serif"]
CHARTS = (
    charts.tokens_over_seconds,
    charts.tokens_over_forwards,
    charts.commit_order,
    charts.acceptance_lengths,
    charts.drafts_accepted,
    charts.confidence_agreement,
)
#: The fields' values as the browser keeps them through a reload, and how they get there.
KEPT = """() => {
  try {
    const kept = window.nemodiff?.kept || JSON.parse(sessionStorage.getItem("nemodiff"));
    return kept?.search === location.search ? JSON.stringify(kept.fields || {}) : "";
  } catch {
    return "";
  }
}"""
KEEP = f"""(...values) => {{
  const names = {json.dumps(list(permalink.FIELDS))};
  (window.nemodiff ||= {{}}).fields = Object.fromEntries(names.map((name, k) => [name, values[k]]));
}}"""
MONO = ["ui-monospace", "DejaVu Sans Mono", "Menlo", "Consolas", "monospace"]


def theme() -> gr.themes.Base:
    """System fonts, so that nothing is fetched; colours are page.css's."""
    return gr.themes.Base(font=FONTS, font_mono=MONO)


def build(
    engine: EngineInterface | None,
    settings: Settings,
    *,
    problem: str = "",
    turns: Turns | None = None,
) -> gr.Blocks:
    """The page around an engine. Without one (`engine` None) traces still replay, and Generate answers `problem`.

    turns: the line that runs wait in.
    """
    turns = turns or Turns(settings)
    runs, checkpoints = turns.runs, models.Checkpoints(engine, settings, problem)
    slot, form = picture_slot.Slot(checkpoints), Form(checkpoints, settings)
    turns.engine = lambda: checkpoints.engine

    def running() -> EngineInterface:
        return checkpoints.loaded("only recorded runs can be played")

    def generate(*sent: Any) -> Iterator[str]:
        *values, shown, visitor = sent
        ticket, shown = tickets.ticket_of(shown)
        try:
            running()
            request = form.request(values, slot.images(shown))
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            yield wire.named(ticket, wire.failure(wire.explain(worded(error))))
            return
        yield from run(request, visitor, ticket)

    names = [*permalink.FIELDS, "shown"]
    sign(generate, [*(parameter(name, Any) for name in names), parameter("visitor", gr.Request)])

    def branch(asked: str, visitor: gr.Request) -> Iterator[str]:
        ticket, asked = tickets.ticket_of(asked)
        try:
            made_by = checkpoints.loaded("no run can branch").checkpoint
            request = branches.request_of(asked, made_by, settings.time_limit, runs)
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            yield wire.named(ticket, wire.failure(wire.explain(error)))
            return
        yield from run(request, visitor, ticket)

    def speed_of_light(asked: str, visitor: gr.Request) -> Iterator[str]:
        ticket, asked = tickets.ticket_of(asked)
        try:
            engine = checkpoints.loaded("no ceiling can be searched")
            within(branches.request_of(asked, engine.checkpoint, settings.time_limit, runs), settings, engine)
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            yield oracle.refusal(asked, wire.explain(error))
            return
        yield from turns.take(
            visitor,
            lambda _: oracle.stream(checkpoints, asked, settings.time_limit, runs),
            lambda text, ahead: oracle.progress(asked),
            lambda text: oracle.refusal(asked, text),
            tickets.names(ticket, visitor.session_hash),
        )

    def run(request: Request, visitor: gr.Request, name: str) -> Iterator[str]:
        try:
            within(request, settings, running())  # what cannot run need not wait
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            yield wire.named(name, wire.failure(wire.explain(error)))
            return
        asked, session = time.monotonic(), visitor.session_hash
        names = tickets.names(name, session)

        def work(ticket: Any) -> Iterator[str]:
            def ended(run: Any) -> None:
                ticket.leave()
                turns.ended(run, asked)

            try:
                engine = running()
            except RequestError as error:  # another checkpoint failed to load while this run waited
                ticket.leave()
                return iter([wire.failure(str(error))])
            return live_stream.stream(
                engine,
                request,
                runs,
                name,
                started=lambda run: ticket.hand_over(run.stop),
                ended=ended,
                wanted=lambda: turns.line.waiting > 0,
                behind=backlog.behind(page, session),
            )

        def stopped() -> str:
            return wire.failure(wire.STOPPED)

        # A stage shows one run: what its page asked for before ends, a search too. A branch lets its own run end.
        replaces = names[-1] if names and not request.answer_ids else ""
        for message in turns.take(visitor, work, wire.waiting, wire.failure, names, replaces, stopped):
            yield wire.named(name, message)

    def stop(asked: str) -> None:
        for name in tickets.names_of(asked):
            if not turns.halt(tickets.own(name), early=True) and (run := runs.get(name)):
                run.stop()

    def offers(_: str) -> str:  # a server function always gets one argument
        return checkpoints.offers()

    def make(asked: str, visitor: gr.Request) -> str:
        return files.make(asked, lambda: turns.count(visitor))

    def draw(trace: str, visitor: gr.Request) -> list[Any]:
        if not isinstance(trace, str) or not trace:
            return [gr.skip()] * len(CHARTS)
        try:
            turns.count(visitor)
            with files.making() as go_on:
                run, drawn = Trace.from_json(trace), []
                for chart in CHARTS:
                    go_on()
                    drawn.append(chart(run))
                return drawn
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            return [empty("Charts of this run", escaped(wire.explain(error)))] * len(CHARTS)

    def open_trace(sent: Any, visitor: gr.Request) -> Any:
        path = sent.get("path") if isinstance(sent, dict) else None
        if path is None:
            return gr.skip()
        try:
            if not uploaded(path):
                raise TraceError("The file was not uploaded to this server: load it again.")
            turns.count(visitor)
            with files.making():
                return wire.replay(traces.read_trace(path))
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            return wire.failure(wire.explain(error))

    def opened(path: str, visitor: gr.Request) -> str:  # what was dropped on the stage
        return str(open_trace({"path": str(path)}, visitor))

    with gr.Blocks(title="nemodiff", fill_width=True, delete_cache=(3600, 3600), analytics_enabled=False) as page:
        top = gr.HTML(
            value=checkpoints.state(),
            html_template=checkpoint_menu.template(),
            js_on_load=checkpoint_menu.script(),
            apply_default_css=False,
            server_functions=[offers] if settings.choose else None,
            elem_id="top",
        )
    with page, gr.Tabs(elem_id="tabs") as tabs, gr.Tab("Watch", id="watch", elem_id="watch"):
        with gr.Row(elem_id="ask"):
            pictured = slot.component()
            form.ask()
            halt = gr.Button("Stop", elem_id="stop", min_width=80, scale=0)
            start = gr.Button("Generate", variant="primary", elem_id="generate", min_width=110, scale=0)
        examples = gr.Dataset(
            components=[form.prompt],
            samples=[[one.prompt] for one in EXAMPLES],
            sample_labels=[one.label for one in EXAMPLES],
            show_label=False,
            samples_per_page=len(EXAMPLES),
            type="index",
            elem_id="examples",
        )
        more = form.options()
        link = gr.Button("Copy link", elem_id="link", min_width=96, scale=0)
        stage = gr.HTML(
            value=traces.recording(settings.recordings),
            html_template=player.template(),
            js_on_load=player.script(*player.PAGE),
            apply_default_css=False,
            server_functions=[make, opened],
            formats=list(files.FORMATS),
            server_id=turns.server,
            limit=MAX_BYTES,
            elem_id="stage-host",
        )

        with gr.Accordion("Charts of this run", open=False, elem_id="charts") as panel, gr.Row():
            plots = [gr.Plot(show_label=False, elem_classes="chart", min_width=320) for _ in CHARTS]
        # The page holds the trace and sends it along, so that any process can draw it.
        held = gr.Textbox(visible="hidden")
        redraw = gr.Button("Redraw the charts", visible="hidden", elem_id="redraw")

        # Pressed by the stage when a branch is asked for: never seen.
        fork = gr.Button("Branch", visible="hidden", elem_id="branch")

        # Pressed by the stage when a ceiling is asked for: never seen.
        lighter = gr.Button("Speed of light", visible="hidden", elem_id="light")

        # The stage's own "Open trace" presses this one, which is kept out of sight.
        # Of any name: what a file is, its content says.
        opener = gr.UploadButton("Open a trace", visible="hidden", elem_id="open-trace")

        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        fields, shows = form.fields, form.by_checkpoint

        def make_link(*values: Any) -> tuple[str, Any]:
            try:
                return permalink.query(list(values[:-1]), form.defaults(), slot.link(values[-1])), gr.skip()
            except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
                return "", wire.failure(wire.explain(error))

        def follow_link(kept: str, visitor: gr.Request) -> list[Any]:
            values, wrong = permalink.read(dict(visitor.query_params))
            linked, before = values.keys(), permalink.restored(kept)  # of the page before its reload
            own = dict(zip(permalink.FIELDS, form.defaults(), strict=True))
            changed = {name for name, value in before.items() if value != own[name]}
            opened = gr.update(open=True) if permalink.MORE & (linked | changed) else gr.skip()
            values = values | before
            # Only what another checkpoint changed is sent: whoever types while the page loads keeps what was typed.
            own = {name: value for name, value in checkpoints.defaults.items() if value != shows[name].value}
            values = own | values
            names = ", ".join(permalink.LABELS.get(name, name) for name in wrong)
            notice = f"The link's values for {names} were left out: they are not usable here."
            updates = [values.get(name, gr.skip()) for name in permalink.FIELDS]
            try:
                chosen = slot.follow(visitor.query_params.get(permalink.PICTURE)) or slot.state()
            except RequestError as error:
                wrong, notice, chosen = [permalink.PICTURE], str(error), slot.state()
            return [*updates, opened, wire.failure(notice) if wrong else gr.skip(), checkpoints.state(), chosen]

        # Who waits is in our own line (`ui.live.fair_queue`), so Gradio's lets everybody in. Values come as they were
        # sent and are checked in one place, where what is wrong becomes a sentence.
        # What the page may ask twice is decided on the page (`asking.js`): "once" would drop what is asked for while
        # something that was stopped has not ended yet.
        model: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": None, "trigger_mode": "multiple"}
        model |= quiet
        model |= {"preprocess": False}
        # The page knows where the picture's upload lies; `held` only lends it a place among the inputs.
        with_picture = (
            "async (...fields) => [...fields.slice(0, -1), (await document.querySelector('#picture').path) || '']"
        )
        asks = "async (...fields) => [...fields.slice(0, -1), await document.querySelector('#stage').asks()]"
        going = gr.on(
            [start.click, form.prompt.submit], generate, [*fields, held], stage, js=asks, api_name="watch", **model
        )
        forked = fork.click(branch, held, stage, js="() => document.querySelector('#stage').branch", **model)
        lit = lighter.click(speed_of_light, held, stage, js="() => document.querySelector('#stage').light", **model)
        for runs_on in (going, forked, lit):
            runs_on.failure(None, js="() => document.querySelector('#stage').failed()", queue=False, **quiet)
        # Nothing is cancelled by Gradio, which would cancel whatever else of the same kind its session has asked for.
        halt.click(stop, held, None, js="() => document.querySelector('#stage').stops()", queue=False, **quiet)
        link.click(make_link, [*fields, held], [held, stage], js=with_picture, queue=False, **quiet).then(
            None, held, None, js=(Path(__file__).parent / "link.js").read_text(encoding="utf-8"), queue=False, **quiet
        )
        page.load(follow_link, held, [*fields, more, stage, top, pictured], js=KEPT, queue=False, **quiet)
        changes: list[Any] = fields
        gr.on([field.change for field in changes], None, fields, None, js=KEEP, queue=False, **quiet)
        if settings.choose:
            swapped = choice(checkpoints, turns, [top, *shows.values()], held, model)
            swapped.then(lambda: slot.state(), None, pictured, queue=False, **quiet)
        for draws in (panel.expand, redraw.click):
            draws(draw, held, plots, js="() => document.querySelector('#stage').trace()", queue=False, **quiet)
        # As it was sent: the button's own conversion would leave an empty file on the disk each time.
        opener.upload(open_trace, opener, stage, preprocess=False, **quiet)
        examples.click(
            lambda index: EXAMPLES[index % len(EXAMPLES)].prompt, examples, form.prompt, queue=False, **quiet
        )
        form.wire(quiet)
    shared = {key: model[key] for key in ("concurrency_id", "concurrency_limit")}
    api.add(page, checkpoints, settings, turns, **shared)
    compare.add(page, tabs, checkpoints, settings, turns=turns, model=model)
    return page


def choice(checkpoints: models.Checkpoints, turns: Turns, shows: list[Any], held: Any, model: dict[str, Any]) -> Any:
    """Wire the header's choice of a checkpoint. Only where the owner lets visitors make it: nothing is there else.

    shows: the header, then the fields whose defaults are the checkpoint's. model: how events that need the model queue.
    Returns the event after which another one may run.
    """

    def fetch(name: str, visitor: gr.Request) -> Iterator[str]:
        yield from checkpoints.fetch(name, visitor.session_hash)

    def swap(visitor: gr.Request) -> Iterator[list[Any]]:
        if not checkpoints.ready(visitor.session_hash):
            yield [gr.skip()] * len(shows)  # for Gradio a generator that yields nothing has emptied the fields
            return
        before = checkpoints.engine
        states = turns.take(
            visitor,
            lambda _: checkpoints.swap(visitor.session_hash),
            lambda *_: checkpoints.waits(visitor.session_hash),
            lambda text: checkpoints.state(error=text),
            (f"checkpoint {visitor.session_hash}",),
            halted=checkpoints.state,
        )
        for state in states:
            new = checkpoints.engine is not before
            yield [state, *(checkpoints.defaults.values() if new else [gr.skip()] * (len(shows) - 1))]

    def cancel(visitor: gr.Request) -> str:
        turns.halt(f"checkpoint {visitor.session_hash}")
        return checkpoints.cancel(visitor.session_hash)

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    switch = gr.Button("Load", visible="hidden", elem_id="switch")
    halt = gr.Button("Cancel", visible="hidden", elem_id="cancel-switch")
    chosen = "() => document.querySelector('#checkpoint').chosen"
    alone: dict[str, Any] = {"concurrency_id": "checkpoint", "concurrency_limit": 1, "trigger_mode": "multiple"}
    fetching = switch.click(fetch, held, shows[0], js=chosen, **alone, **quiet)
    swapping = fetching.then(swap, None, shows, **model)
    for part in (fetching, swapping):
        # Without a word of the server, which may be what is missing.
        part.failure(None, js="() => document.querySelector('#checkpoint').failed()", queue=False, **quiet)
    halt.click(cancel, None, shows[0], queue=False, **quiet)
    return swapping
