"""The Watch tab: what is asked above, the stage below, and what connects them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from nemodiff.engine.interface import EngineInterface
from nemodiff.errors import RequestError, TraceError
from nemodiff.examples import OFFERED
from nemodiff.request import Request
from nemodiff.trace import player
from nemodiff.trace.events import Trace
from nemodiff.trace.limits import MAX_BYTES
from nemodiff.trace.opening import read_trace
from ui import wire
from ui.live import backlog, branch, oracle, tickets
from ui.live.desk import Desk
from ui.live.limits import within
from ui.live.messages import Finished, Refused, Waiting
from ui.live.models import Checkpoints
from ui.live.stage import packed
from ui.page import conversation, files, permalink, picture_slot, tour, words
from ui.page.form import Form
from ui.page.shelf import Shelf
from ui.render import charts
from ui.render.charts.figure import empty
from ui.render.positions import escaped
from ui.settings import Settings
from ui.signature import parameter, sign
from ui.values import uploaded, worded

CHARTS = (
    charts.tokens_over_seconds,
    charts.tokens_over_forwards,
    charts.commit_order,
    charts.acceptance_lengths,
    charts.drafts_accepted,
    charts.confidence_agreement,
)
#: Options of events that show nothing by themselves and are no program's to call.
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
#: Options of events that use the model. Who waits is in our own line (`ui.live.fair_queue`), so Gradio's lets everybody
#: in. Values come as they were sent and are checked in one place, where what is wrong becomes a sentence. What the page
#: may ask twice is decided on the page (`asking.js`): "once" would drop what is asked for while something that was
#: stopped has not ended yet.
MODEL: dict[str, Any] = {
    "concurrency_id": "model",
    "concurrency_limit": None,
    "trigger_mode": "multiple",
    "preprocess": False,
    **QUIET,
}
#: Options of events that last and do not use the model.
SIDE: dict[str, Any] = {"concurrency_limit": None, "trigger_mode": "multiple", "preprocess": False}
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
  document.dispatchEvent(new Event("nemodiff-fields"));
}}"""
#: What the page adds to the fields, in the stage's place: the ticket and where the picture's upload lies.
ASKS = "async (...fields) => [...fields.slice(0, -1), await document.querySelector('#stage').asks()]"
COPY_LINK = "(...fields) => document.querySelector('#stage').link(fields)"
EXAMPLE = f"(index) => {json.dumps([one.prompt for one in OFFERED])}[index]"
DRAW = "() => { const stage = document.querySelector('#stage'); stage.trigger('draw', stage.trace()); }"


def of_stage(member: str) -> str:
    """What the stage's own code knows, as the script of an event."""
    return f"() => document.querySelector('#stage').{member}"


class Watch:
    """The tab. `lay_out` makes its components, where it is called; `wire` connects them."""

    def __init__(self, page: gr.Blocks, checkpoints: Checkpoints, settings: Settings, desk: Desk) -> None:
        self._page, self._checkpoints, self._settings, self._desk = page, checkpoints, settings, desk
        self.slot, self.form = picture_slot.Slot(checkpoints), Form(checkpoints, settings)
        self.shelf = Shelf(settings.recordings)

    def lay_out(self) -> None:
        with gr.Row(elem_id="ask"):
            self.pictured = self.slot.component()
            self.form.ask()
            self.halt = gr.Button("Stop", elem_id="stop", min_width=80, scale=0)
            self.start = gr.Button("Generate", variant="primary", elem_id="generate", min_width=110, scale=0)
        self.talk = conversation.view()
        self.examples = gr.Dataset(
            components=[self.form.prompt],
            samples=[[one.prompt] for one in OFFERED],
            sample_labels=[one.label for one in OFFERED],
            show_label=False,
            samples_per_page=len(OFFERED),
            type="index",
            elem_id="examples",
        )
        words.component()
        self.more = self.form.options()
        self.link = gr.Button("Copy link", elem_id="link", min_width=96, scale=0)
        self.shelf.component()
        self.stage = gr.HTML(
            value=self.shelf.first(),
            html_template=player.template(),
            js_on_load=player.script(*player.PAGE),
            apply_default_css=False,
            server_functions=self._server_functions(),
            formats=list(files.FORMATS),
            server_id=self._desk.server,
            limit=MAX_BYTES,
            elem_id="stage-host",
        )
        with gr.Accordion("Charts of this run", open=False, elem_id="charts") as self.panel, gr.Row():
            self.plots = [gr.Plot(show_label=False, elem_classes="chart", min_width=320) for _ in CHARTS]
        tour.component(self._settings.tour)
        # Of any name: what a file is, its content says.
        self.opener = gr.UploadButton("Open a trace", visible="hidden", elem_id="open-trace")

    def wire(self, top: gr.HTML) -> None:
        """top: the page's header, which says what runs."""
        fields, stage = self.form.fields, self.stage
        going = gr.on(
            [self.start.click, self.form.prompt.submit],
            self._generate(),
            [*fields, stage],
            stage,
            js=ASKS,
            api_name="watch",
            **MODEL,
        )
        # The stage's own events, which `gradio.js` triggers.
        forked = stage.branch(self.branch, None, stage, **MODEL)
        lit = stage.light(self.speed_of_light, None, stage, **MODEL)
        for runs_on in (going, forked, lit):
            runs_on.failure(None, js=of_stage("failed()"), queue=False, **QUIET)
        asked_on = [self.form.history, self.form.system, self.form.prompt]
        stage.ask_on(None, None, asked_on, js=of_stage("goesOn"), queue=False, **QUIET)
        self.talk.let_go(None, None, self.form.history, js="() => ''", queue=False, **QUIET)
        # Nothing is cancelled by Gradio, which would cancel whatever else of the same kind its session has asked for.
        stage.halt(self.stop, None, None, queue=False, **QUIET)
        self.link.click(None, fields, None, js=COPY_LINK, queue=False, **QUIET)
        loaded = [*fields, self.more, stage, top, self.pictured]
        # The header asks for this while the page's first model is being loaded.
        decided = self.form.of_checkpoint
        there = top.arrive(self.arrive, None, [top, self.pictured], **SIDE, **QUIET)
        there.then(self.settle, decided, decided, queue=False, **QUIET)
        begun = self._page.load(self.follow_link, stage, loaded, js=KEPT, queue=False, **QUIET)
        begun.then(None, js=of_stage("ready()"), queue=False, **QUIET)
        gr.on([field.change for field in fields], None, fields, None, js=KEEP, queue=False, **QUIET)
        # The page holds the trace and sends it along, so that any process can draw it.
        stage.draw(self.draw, None, self.plots, queue=False, **QUIET)
        self.panel.expand(None, js=DRAW, queue=False, **QUIET)
        # As it was sent: the button's own conversion would leave an empty file on the disk each time.
        self.opener.upload(self.open_trace, self.opener, stage, preprocess=False, **QUIET)
        # In the browser, so that a press of Generate right after it runs this prompt.
        self.examples.click(None, self.examples, self.form.prompt, js=EXAMPLE, queue=False, **QUIET)
        self.form.wire(QUIET)

    # What the visitor asks the model.

    def engine(self) -> EngineInterface:
        return self._checkpoints.loaded("only recorded runs can be played")

    def _generate(self) -> Callable[..., Iterator[str]]:
        """The function of Generate: the fields in their order, then the ticket with the picture, then who asks."""

        def generate(*sent: Any) -> Iterator[str]:
            *values, shown, visitor = sent
            ticket, shown = tickets.ticket_of(shown)
            unloaded = False
            for line in self._checkpoints.until_loaded():
                unloaded = True
                yield from packed(Waiting(f"The model is being loaded. {line}".rstrip(), 0), ticket)
            if unloaded:
                values = self.form.caught_up(values)
            try:
                self.engine()
                brought = conversation.pictures(values[permalink.HISTORY], self._desk.runs)
                request = self.form.request(values, brought + self.slot.images(shown))
            except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
                yield from packed(Refused(wire.explain(worded(error))), ticket)
                return
            yield from self._run(request, visitor, ticket)

        names = [parameter(name, Any) for name in (*permalink.FIELDS, "shown")]
        sign(generate, [*names, parameter("visitor", gr.Request)])
        return generate

    def branch(self, event: gr.EventData, visitor: gr.Request) -> Iterator[str]:
        ticket, asked = tickets.ticket_of(event._data)
        try:
            made_by = self._checkpoints.loaded("no run can branch").checkpoint
            request = branch.request_of(asked, made_by, self._settings.time_limit, self._desk.runs)
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            yield from packed(Refused(wire.explain(error)), ticket)
            return
        yield from self._run(request, visitor, ticket)

    def _run(self, request: Request, visitor: gr.Request, ticket: str) -> Iterator[str]:
        behind = backlog.behind(self._page, visitor.session_hash)
        with closing(self._desk.run(request, visitor, self.engine, ticket=ticket, behind=behind)) as messages:
            for message in messages:
                yield from packed(message, ticket)

    def speed_of_light(self, event: gr.EventData, visitor: gr.Request) -> Iterator[str]:
        ticket, asked = tickets.ticket_of(event._data)
        seconds, runs = self._settings.time_limit, self._desk.runs
        try:
            engine = self._checkpoints.loaded("no ceiling can be searched")
            within(branch.request_of(asked, engine.checkpoint, seconds, runs), self._settings, engine)
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            yield oracle.refusal(asked, wire.explain(error))
            return
        names = tickets.names(ticket, visitor.session_hash)
        search = lambda _: oracle.stream(self._checkpoints, asked, seconds, runs)  # noqa: E731
        with closing(self._desk.take(visitor, search, names)) as messages:
            for message in messages:
                match message:
                    case Waiting():
                        yield oracle.progress(asked)
                    case Refused(sentence):
                        yield oracle.refusal(asked, sentence)
                    case str():
                        yield message
                    case Finished():
                        pass  # Stop was pressed, which the stage knows

    def arrive(self) -> Iterator[tuple[str, Any]]:
        """What the page shows of its first model's load, then that it is there."""
        for state in self._checkpoints.arriving():
            yield state, gr.skip() if self._checkpoints.loading else self.slot.state()

    def settle(self, *held: Any) -> list[Any]:
        """The fields that the first model decides, once it is there; held: their values, some by the visitor."""
        return self.form.shown(held)

    def stop(self, event: gr.EventData) -> None:
        for name in tickets.names_of(event._data):
            if not self._desk.halt(tickets.own(name), early=True) and (run := self._desk.runs.get(name)):
                run.stop()

    # What is drawn and made of traces.

    def _server_functions(self) -> list[Callable[..., Any]]:
        """What the stage's code calls. Gradio marks it, which a method does not let it."""

        def opened(path: str, visitor: gr.Request) -> str:  # what was dropped on the stage
            return str(self.open_trace({"path": str(path)}, visitor))

        def linked(values: Any) -> str:
            return self.make_link(values)

        return [opened, linked]

    def draw(self, event: gr.EventData, visitor: gr.Request) -> list[Any]:
        trace = event._data
        if not isinstance(trace, str) or not trace:
            return [gr.skip()] * len(CHARTS)
        try:
            self._desk.count(visitor)
            with files.making() as go_on:
                run, drawn = Trace.from_json(trace), []
                for chart in CHARTS:
                    go_on()
                    drawn.append(chart(run))
                return drawn
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            return [empty("Charts of this run", escaped(wire.explain(error)))] * len(CHARTS)

    def open_trace(self, sent: Any, visitor: gr.Request) -> Any:
        path = sent.get("path") if isinstance(sent, dict) else None
        if path is None:
            return gr.skip()
        try:
            if not uploaded(path):
                raise TraceError("The file was not uploaded to this server: load it again.")
            self._desk.count(visitor)
            with files.making():
                return wire.replay(read_trace(path))
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            return wire.failure(wire.explain(error))

    # Links.

    def make_link(self, values: Any) -> str:
        """The query of a link, or a sentence, in JSON. values: of all fields, then where the picture's upload lies."""
        try:
            if not isinstance(values, list) or len(values) != len(permalink.FIELDS) + 1:
                raise RequestError("The fields could not be read: reload the page and try again.")
            *fields, shown = values
            query = permalink.query(fields, self.form.defaults(), self.slot.link(shown))
            return wire.pack({"query": query})
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            return wire.failure(wire.explain(error))

    def follow_link(self, kept: str, visitor: gr.Request) -> list[Any]:
        """What the page shows at first: the link's values, or what was in the fields before a reload."""
        values, wrong = permalink.read(dict(visitor.query_params))
        linked, before = values.keys(), permalink.restored(kept)
        own = dict(zip(permalink.FIELDS, self.form.defaults(), strict=True))
        changed = {name for name, value in before.items() if value != own[name]}
        opened = gr.update(open=True) if permalink.MORE & (linked | changed) else gr.skip()
        # Only what another checkpoint changed is sent: whoever types while the page loads keeps what was typed.
        shown = self.form.by_checkpoint
        own = {name: value for name, value in self._checkpoints.defaults.items() if value != shown[name].value}
        values = own | values | before
        names = ", ".join(permalink.LABELS.get(name, name) for name in wrong)
        notice = f"The link's values for {names} were left out: they are not usable here."
        try:
            chosen = self.slot.follow(visitor.query_params.get(permalink.PICTURE)) or self.slot.state()
        except RequestError as error:
            wrong, notice, chosen = [permalink.PICTURE], str(error), self.slot.state()
        told = wire.failure(notice) if wrong else gr.skip()
        return [*self.form.updates(values), opened, told, self._checkpoints.state(), chosen]
