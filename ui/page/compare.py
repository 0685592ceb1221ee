"""The Compare tab: a sweep over settings of decoding, drawn as it goes on, kept in the visitor's browser."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr

from nemodiff.engine.interface import EngineInterface
from nemodiff.errors import RequestError
from nemodiff.evaluate.prompt_file import MAX_CHARACTERS
from nemodiff.evaluate.sweep_results import Kept, Results, csv_text
from nemodiff.examples import OFFERED
from nemodiff.request import DRAFTS, ORDERS, SAMPLERS
from ui.backends import zero
from ui.live.desk import Desk
from ui.live.fair_queue import Ticket
from ui.live.limits import within
from ui.live.messages import Finished, Refused, Waiting
from ui.live.models import Checkpoints
from ui.live.sweep_plan import Pace, Plan, short_run
from ui.live.sweep_run import Sweep
from ui.page.sweep_view import advised, end, figures, planned, progress, sentence, status
from ui.render.charts.compare import seconds_a_token, tokens_a_forward
from ui.render.sweep_page import sweep_page
from ui.settings import Settings
from ui.signature import parameter, sign
from ui.values import uploaded
from ui.wire import explain

STYLE = Path(__file__).parent / "compare.css"
BUSY = "The sweep could not go on: the server is busy or the connection was lost. What was measured is kept."
WAITING = "Waiting for the model…"
INTRO = (
    "What a setting gains in forwards and in seconds, and whether the text stays AR's. AR is run once per prompt, then "
    "every setting of diffusion and of self-speculation."
)
#: What is chosen at first: few enough for a machine with two cores.
CHOSEN = ("Days as JSON", "JSON person", "Thank-you note")
BLOCKS, THRESHOLDS, TOKENS, FIRST_DRAFTS = "8", "0.9, 0.95", 48, ("linear", "tree")
#: A sweep may take this many times the time limit of a run.
LIMIT = 10
#: Short runs that are remembered, one a checkpoint on a device.
MAX_PACES = 32

QUIET: dict[str, Any] = {
    "show_progress": "hidden",
    "api_visibility": "private",
    "queue": False,
    "preprocess": False,
}
#: What was asked for, its name's ending first, into the visitor's downloads.
SAVE = """(text) => {
  const [ending, ...rest] = String(text || "").split("\\n");
  if (!rest.length) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([rest.join("\\n")], { type: ending === "csv" ? "text/csv" : "text/html" }));
  link.download = `nemodiff-sweep.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}"""


class Compare:
    """The tab. desk: the line for the model, which a sweep joins anew after a run when others wait."""

    def __init__(self, checkpoints: Checkpoints, settings: Settings, desk: Desk) -> None:
        self._checkpoints, self._settings, self._desk = checkpoints, settings, desk
        self._paces: dict[tuple[str, str, str], Pace] = {}

    def add(self, page: gr.Blocks, tabs: gr.Tabs, model: dict[str, Any]) -> None:
        """Lay out and wire the tab. model: the event options that all uses of the model share."""
        with page:
            # The visitor's browser keeps what was measured; the key only hides it from a glance. Outside the tab, since
            # what is in a tab that was not opened yet has no value.
            kept = gr.BrowserState(None, storage_key="nemodiff-compare", secret="nemodiff")
            made = gr.Textbox(visible="hidden")
        with page, tabs, gr.Tab("Compare", id="compare", elem_id="compare", render_children=True) as tab:
            gr.HTML(f'<p class="intro">{INTRO}</p>', apply_default_css=False, js_on_load=None)
            with gr.Column(elem_id="sweep-card"):
                fields = self._lay_out_form()
                told = gr.HTML(status("idle", ""), apply_default_css=False, js_on_load=None, elem_id="sweep-status")
            said = gr.HTML(apply_default_css=False, js_on_load=None, elem_id="sweep-advice")
            with gr.Row(elem_id="sweep-charts"):
                nothing = Results()
                plots = [
                    gr.Plot(chart(nothing), show_label=False, elem_classes="chart", min_width=320)
                    for chart in (tokens_a_forward, seconds_a_token)
                ]
            shown = gr.HTML(apply_default_css=False, js_on_load=None, elem_id="sweep-table")
            with gr.Row(elem_id="sweep-away"):
                csv = gr.Button("Save as CSV", elem_id="sweep-csv", min_width=80, scale=0)
                alone = gr.Button("Save as a page", elem_id="sweep-page", min_width=80, scale=0)
                forget = gr.Button("Forget all", elem_id="sweep-forget", min_width=80, scale=0)

        drawn = [told, said, *plots, shown, kept]
        with page:
            going = self.start.click(_of_fields(self.compare, len(fields)), [*fields, kept], drawn, **model)
            # Without a word of the server, which may be what is missing.
            going.failure(None, None, told, js=f"() => {json.dumps(status('error', BUSY))}", **QUIET)
            going.then(self.count, [*fields, kept], self.planned, **QUIET)
            self.halt.click(self.stop, None, None, **QUIET)
            # One event for all, so that no older answer comes after a newer one.
            counts = [*(field.change for field in fields), tab.select]
            gr.on(counts, self.count, [*fields, kept], self.planned, trigger_mode="always_last", **QUIET)
            self.same.change(self.restore, [kept, self.same], drawn[1:-1], **QUIET)
            paced = tab.select(_of_fields(self.measure_pace, len(fields)), [*fields, kept], None, **model)
            paced.then(self.count, [*fields, kept], self.planned, **QUIET)  # of what the fields hold by then
            self.load.upload(self.load_prompts, self.load, [self.own, told], **QUIET)
            csv.click(self.save_csv, kept, made, **QUIET).then(None, made, None, js=SAVE, **QUIET)
            alone.click(self.save_page, [kept, self.same], made, **QUIET).then(None, made, None, js=SAVE, **QUIET)
            forget.click(self.forget, None, drawn, **QUIET)
            page.load(self.restore, [kept, self.same], drawn[1:-1], **QUIET)

    def _lay_out_form(self) -> list[Any]:
        """The fields of a plan; how many runs it has stands beside them."""
        prompts = gr.CheckboxGroup(
            [one.label for one in OFFERED],
            value=list(CHOSEN),
            label="Prompts",
            elem_id="sweep-prompts",
            elem_classes="pills",
        )
        with gr.Accordion("Own prompts", open=False, elem_id="sweep-mine"):
            self.own = gr.Textbox(
                label='one prompt per line, or {"prompt": "…", "expected": "…"}',
                lines=3,
                max_lines=8,
                max_length=MAX_CHARACTERS,
                elem_id="sweep-own",
            )
            self.load = gr.UploadButton("Read a file", elem_id="sweep-file", min_width=80, scale=0)
        with gr.Row(elem_id="sweep-axes"):
            drafts = _pills("drafts", DRAFTS, FIRST_DRAFTS)
            blocks = _field("block lengths", BLOCKS, "sweep-blocks")
            thresholds = _field("thresholds", THRESHOLDS, "sweep-thresholds")
            tokens = gr.Number(TOKENS, label="new tokens", step=1, elem_id="sweep-tokens", min_width=60)
            repeats = gr.Number(1, label="repeats", step=1, elem_id="sweep-repeats", min_width=60)
        with gr.Accordion("More to vary", open=False, elem_id="sweep-more"), gr.Row(elem_id="sweep-extras"):
            samplers = _pills("samplers", SAMPLERS, ("confidence",))
            orders = _pills("orders", ORDERS, ())
            rows = _field("rows of trees", "auto", "sweep-rows")
            temperatures = _field("temperatures", "0", "sweep-temperatures")
            self.same = gr.Checkbox(True, label="advise only what writes AR's text", elem_id="sweep-same", min_width=60)
        fields: list[Any] = [prompts, blocks, thresholds, tokens, self.own, drafts, repeats]
        fields += [samplers, orders, rows, temperatures]
        with gr.Row(elem_id="sweep-ask"):
            self.planned = gr.HTML(apply_default_css=False, js_on_load=None, elem_id="sweep-plan")
            self.halt = gr.Button("Stop", elem_id="sweep-stop", min_width=80, scale=0)
            self.start = gr.Button("Sweep", variant="primary", elem_id="sweep-start", min_width=110, scale=0)
        self.planned.value = self.count(*(field.value for field in fields), None)
        return [*fields, self.same]

    # What is to be measured.

    def _plan(self, sent: Any) -> Plan:
        labels, blocks, thresholds, tokens, own, drafts, repeats, samplers, orders, rows, temperatures = sent[:11]
        return Plan.of(
            labels,
            blocks,
            thresholds,
            tokens,
            self._settings.max_new_tokens,
            own=own or "",
            drafts=drafts,
            repeats=repeats,
            samplers=samplers,
            orders=orders,
            rows=rows,
            temperatures=temperatures,
        )

    def count(self, *sent: Any) -> str:
        """How many runs the fields' plan has. sent: the fields' values, and what the browser keeps."""
        try:
            plan = self._plan(sent)
            engine = self._checkpoints.engine
            if engine is None:
                return planned(plan, None, None)
            return planned(plan, _begun(engine, plan, sent[-1]), self._paces.get(_where(engine)))
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            return sentence(explain(error), "plan")

    def measure_pace(self, sent: Sequence[Any], visitor: gr.Request) -> Iterator[None]:
        """The first time that somebody looks: a short run, so that it can be said how long a sweep takes."""
        yield  # nothing is shown by it: the plan is counted anew behind it
        try:
            engine, plan = self._checkpoints.loaded("nothing can be measured"), self._plan(sent)
            if self._settings.zero or _where(engine) in self._paces or self._desk.line.waiting:
                return
            request = short_run(plan)
            within(request, self._settings, engine)

            def work(ticket: Ticket) -> Generator[Pace, None, None]:
                yield Pace.of(self._checkpoints.loaded("nothing can be measured").generate(request))

            with closing(self._desk.take(visitor, work)) as messages:
                for message in messages:
                    if isinstance(message, Pace):
                        while len(self._paces) >= MAX_PACES:
                            del self._paces[next(iter(self._paces))]
                        self._paces[_where(engine)] = message
        except Exception:  # noqa: BLE001 - it is only about how long a sweep takes, which then is not said
            return

    def load_prompts(self, sent: Any) -> list[Any]:
        """A file of prompts into their field."""
        try:
            path = sent.get("path") if isinstance(sent, dict) else None
            if not uploaded(path):
                raise RequestError("The file was not uploaded to this server: choose it again.")
            with Path(str(path)).open("rb") as file:
                text = file.read(4 * MAX_CHARACTERS + 1).decode("utf-8-sig")
            if len(text) > MAX_CHARACTERS:
                raise RequestError(f"The file has more than {MAX_CHARACTERS:,} characters: take a part of it.")
            return [text, status("idle", "")]
        except UnicodeDecodeError:
            return [gr.skip(), status("error", "The file is no text in UTF-8: save it as such and choose it again.")]
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            return [gr.skip(), status("error", explain(error))]

    # What is measured.

    def compare(self, sent: Sequence[Any], visitor: gr.Request) -> Iterator[list[Any]]:
        try:
            engine = self._checkpoints.loaded("nothing can be measured")
            if self._settings.zero:
                raise RequestError(zero.COMPARE)
            plan = self._plan(sent)
            for one in plan.asked:
                within(plan.variants[0].request(one.prompt, plan.max_new_tokens), self._settings, engine)
            for variant in plan.variants:
                within(variant.request(plan.asked[0].prompt, plan.max_new_tokens), self._settings, engine)
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            yield [status("error", explain(error)), *_unchanged()]
            return
        name = _name(visitor)
        yield [status("going", WAITING), *_unchanged()]
        same, earlier = bool(sent[-2]), sent[-1]
        # Pressed twice, it begins anew with what was measured.
        measure = lambda ticket: self._measure(plan, earlier, same, ticket)  # noqa: E731
        with closing(self._desk.take(visitor, measure, (name,), name)) as messages:
            for message in messages:
                match message:
                    case Waiting(said):
                        yield [status("going", said), *_unchanged()]
                    case Refused(said):
                        yield [status("error", said), *_unchanged()]
                    case Finished():
                        yield [status("idle", ""), *_unchanged()]
                    case list():
                        yield message

    def _measure(self, plan: Plan, earlier: Any, same: bool, ticket: Ticket) -> Generator[list[Any], None, None]:
        kept = Kept.from_json(earlier)
        try:
            engine = self._checkpoints.loaded("nothing can be measured")
            results = kept.begun(_begun(engine, plan, None))
            done, pace = plan.without(results.measured(plan.repeats)), self._paces.get(_where(engine))
            sweep = Sweep(engine, plan, LIMIT * self._settings.time_limit, ticket, without=done, pace=pace)
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            yield [status("error", explain(error)), *_unchanged()]
            return
        for points in sweep.steps():
            for point in points:
                results.add(point)
            yield [progress(sweep), *(_drawn(kept, same) if points else _unchanged())]
        yield [end(sweep), *_unchanged()]

    def stop(self, visitor: gr.Request) -> None:
        self._desk.halt(_name(visitor))  # whoever waits or sweeps says itself how that ended

    # What was measured.

    def restore(self, earlier: Any, same: Any) -> list[Any]:
        kept = Kept.from_json(earlier)
        return _drawn(kept, bool(same))[:-1] if kept.sweeps else _unchanged()[:-1]

    def forget(self) -> list[Any]:
        return [status("idle", ""), *_drawn(Kept(), True)[:-1], None]

    def save_csv(self, earlier: Any) -> str:
        kept = Kept.from_json(earlier)
        return f"csv\n{csv_text(kept.sweeps)}" if kept.sweeps else ""

    def save_page(self, earlier: Any, same: Any) -> str:
        kept = Kept.from_json(earlier)
        return f"html\n{sweep_page(kept.sweeps, bool(same))}" if kept.sweeps else ""


def _of_fields(method: Callable[[Sequence[Any], gr.Request], Iterator[Any]], count: int) -> Callable[..., Any]:
    """A method of the fields' values, what the browser keeps and the visitor, as a function that Gradio calls."""

    def called(*sent: Any) -> Iterator[Any]:
        *values, visitor = sent
        yield from method(values, visitor)

    called.__name__ = method.__name__
    fields = [parameter(f"field_{i}", Any) for i in range(count)]
    sign(called, [*fields, parameter("earlier", Any), parameter("visitor", gr.Request)])
    return called


def _field(label: str, value: str, name: str) -> gr.Textbox:
    return gr.Textbox(value, label=label, lines=1, max_lines=1, max_length=200, elem_id=name, min_width=60)


def _pills(label: str, offered: tuple[str, ...], chosen: tuple[str, ...]) -> gr.CheckboxGroup:
    name = f"sweep-{label}"
    return gr.CheckboxGroup(list(offered), value=list(chosen), label=label, elem_id=name, elem_classes="pills")


def _name(visitor: gr.Request) -> str:
    """What the line knows this page's sweep by."""
    return f"sweep {visitor.session_hash}"


def _where(engine: EngineInterface) -> tuple[str, str, str]:
    return engine.checkpoint, engine.device, engine.dtype


def _begun(engine: EngineInterface, plan: Plan, earlier: Any) -> Results:
    """Results under the plan's conditions, with what of them a browser keeps."""
    return Kept.from_json(earlier).begun(Results.of(engine, plan.labels, plan.max_new_tokens, plan.asked))


def _unchanged() -> list[Any]:
    return [gr.skip()] * 5


def _drawn(kept: Kept, same: bool) -> list[Any]:
    newest = kept.sweeps[0] if kept.sweeps else Results()
    charts = [tokens_a_forward(newest), seconds_a_token(newest)]
    return [advised(kept, same), *charts, figures(kept, same), kept.to_json()]
