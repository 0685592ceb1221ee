"""The Compare tab: a sweep over threshold and block length, drawn as it goes on, kept in the visitor's browser."""

from __future__ import annotations

import html
import json
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr

from nemodiff.errors import RequestError
from nemodiff.evaluate.sweep import COUNTED, HEADS, Point, cells
from nemodiff.evaluate.sweep_results import Results
from nemodiff.examples import EXAMPLES
from nemodiff.request import Request
from ui.backends import zero
from ui.live.desk import Desk
from ui.live.fair_queue import Ticket
from ui.live.limits import within
from ui.live.messages import Finished, Refused, Waiting
from ui.live.models import Checkpoints
from ui.live.sweep_run import Plan, Sweep
from ui.render.charts.compare import seconds_a_token, tokens_a_forward
from ui.render.charts.figure import LANES, plural
from ui.settings import Settings
from ui.wire import explain

STYLE = Path(__file__).parent / "compare.css"
BUSY = "The sweep could not go on: the server is busy or the connection was lost. What was measured is kept."
WAITING = "Waiting for the model…"
INTRO = (
    "What a threshold or a block length gains in forwards and in seconds, and what it costs in agreement with AR: "
    "AR is run once a prompt, then diffusion with every pair, then self-speculation with every block length."
)
CHOSEN = ("Days as JSON", "JSON person", "Dataclass", "Thank-you note")
STOPPING = "Stopping after this forward…"
#: A sweep may take this many times the time limit of a run.
LIMIT = 10


QUIET: dict[str, Any] = {
    "show_progress": "hidden",
    "api_visibility": "private",
    "queue": False,
    "preprocess": False,
}


class Compare:
    """The tab. desk: the line for the model, which a sweep joins anew after a run when others wait."""

    def __init__(self, checkpoints: Checkpoints, settings: Settings, desk: Desk) -> None:
        self._checkpoints, self._settings, self._desk = checkpoints, settings, desk

    def add(self, page: gr.Blocks, tabs: gr.Tabs, model: dict[str, Any]) -> None:
        """Lay out and wire the tab. model: the event options that all uses of the model share."""
        with page:
            # The visitor's browser keeps what was measured; the key only hides it from a glance. Outside the tab, since
            # what is in a tab that was not opened yet has no value.
            kept = gr.BrowserState(None, storage_key="nemodiff-compare", secret="nemodiff")
        with page, tabs, gr.Tab("Compare", id="compare", elem_id="compare", render_children=True):
            gr.HTML(f'<p class="intro">{INTRO}</p>', apply_default_css=False, js_on_load=None)
            with gr.Column(elem_id="sweep-card"):
                fields = self._lay_out_form()
                status = gr.HTML(_status("idle", ""), apply_default_css=False, js_on_load=None, elem_id="sweep-status")
            with gr.Row(elem_id="sweep-charts"):
                nothing = Results()
                plots = [
                    gr.Plot(chart(nothing), show_label=False, elem_classes="chart", min_width=320)
                    for chart in (tokens_a_forward, seconds_a_token)
                ]
            figures = gr.HTML(apply_default_css=False, js_on_load=None, elem_id="sweep-table")

            drawn = [status, *plots, figures, kept]
            going = self.start.click(self.compare, [*fields, kept], drawn, **model)
            # Without a word of the server, which may be what is missing.
            going.failure(None, None, status, js=f"() => {json.dumps(_status('error', BUSY))}", **QUIET)
            self.halt.click(self.stop, None, None, **QUIET)
            for field in fields:
                field.change(self.count, fields, self.planned, **QUIET)
            page.load(self.restore, kept, drawn[1:-1], **QUIET)

    def _lay_out_form(self) -> list[Any]:
        """The fields of a plan; how many runs it has stands beside them."""
        prompts = gr.CheckboxGroup(
            [one.label for one in EXAMPLES], value=list(CHOSEN), label="Prompts", elem_id="sweep-prompts"
        )
        with gr.Row(elem_id="sweep-ask"):
            blocks = _field("block lengths", "4, 8, 16", "sweep-blocks")
            thresholds = _field("thresholds", "0.8, 0.9, 0.95, 0.99", "sweep-thresholds")
            tokens = gr.Number(48, label="new tokens", step=1, elem_id="sweep-tokens", min_width=60)
            self.planned = gr.HTML(apply_default_css=False, js_on_load=None, elem_id="sweep-plan")
            self.halt = gr.Button("Stop", elem_id="sweep-stop", min_width=80, scale=0)
            self.start = gr.Button("Sweep", variant="primary", elem_id="sweep-start", min_width=110, scale=0)
        fields: list[Any] = [prompts, blocks, thresholds, tokens]
        self.planned.value = self.count(*(field.value for field in fields))
        return fields

    def _plan(self, labels: list[str], blocks: str, thresholds: str, tokens: float | None) -> Plan:
        return Plan.of(labels, blocks, thresholds, tokens, self._settings.max_new_tokens)

    def count(self, labels: list[str], blocks: str, thresholds: str, tokens: float | None) -> str:
        try:
            plan = self._plan(labels, blocks, thresholds, tokens)
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            return _sentence(explain(error), "plan")
        return _sentence(f"{plan.runs} runs of at most {plural(plan.max_new_tokens, 'token')}", "plan")

    def compare(
        self,
        labels: list[str],
        blocks: str,
        thresholds: str,
        tokens: float | None,
        earlier: Any,
        visitor: gr.Request,
    ) -> Iterator[list[Any]]:
        try:
            engine = self._checkpoints.loaded("nothing can be measured")
            if self._settings.zero:
                raise RequestError(zero.COMPARE)
            plan = self._plan(labels, blocks, thresholds, tokens)
            for prompt in plan.prompts:
                within(Request(prompt=prompt, max_new_tokens=plan.max_new_tokens), self._settings, engine)
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            yield [_status("error", explain(error)), *_unchanged()]
            return
        name = _name(visitor)
        yield [_status("going", WAITING), *_unchanged()]
        # Pressed twice, it begins anew with what was measured.
        measure = lambda ticket: self._measure(plan, earlier, ticket)  # noqa: E731
        with closing(self._desk.take(visitor, measure, (name,), name)) as messages:
            for message in messages:
                match message:
                    case Waiting(sentence):
                        yield [_status("going", sentence), *_unchanged()]
                    case Refused(sentence):
                        yield [_status("error", sentence), *_unchanged()]
                    case Finished():
                        yield [_status("idle", ""), *_unchanged()]
                    case list():
                        yield message

    def _measure(self, plan: Plan, earlier: Any, ticket: Ticket) -> Generator[list[Any], None, None]:
        try:
            engine = self._checkpoints.loaded("nothing can be measured")
            sweep = Sweep(engine, plan, LIMIT * self._settings.time_limit, ticket)
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            yield [_status("error", explain(error)), *_unchanged()]
            return
        results = Results.of(engine, plan.labels, plan.max_new_tokens).resume(Results.from_json(earlier))
        for points in sweep.steps():
            for point in points:
                results.add(point)
            yield [_progress(sweep), *(_drawn(results) if points else _unchanged())]
        yield [end(sweep), *_unchanged()]

    def stop(self, visitor: gr.Request) -> None:
        self._desk.halt(_name(visitor))  # whoever waits or sweeps says itself how that ended

    def restore(self, earlier: Any) -> list[Any]:
        results = Results.from_json(earlier)
        return _drawn(results)[:-1] if results else _unchanged()[:-1]


def _field(label: str, value: str, name: str) -> gr.Textbox:
    return gr.Textbox(value, label=label, lines=1, max_lines=1, max_length=200, elem_id=name, min_width=60)


def _name(visitor: gr.Request) -> str:
    """What the line knows this page's sweep by."""
    return f"sweep {visitor.session_hash}"


def _unchanged() -> list[Any]:
    return [gr.skip()] * 4


def _drawn(results: Results) -> list[Any]:
    return [tokens_a_forward(results), seconds_a_token(results), table(results), results.to_json()]


def _sentence(text: str, name: str) -> str:
    return f'<p class="{name}">{html.escape(text)}</p>'


def _status(state: str, text: str, done: int = 0, total: int = 0) -> str:
    bar = (
        f'<div class="bar" role="progressbar" aria-label="Runs of the sweep" aria-valuemin="0" aria-valuemax="{total}" '
        f'aria-valuenow="{done}"><i style="width: {100 * done / total:.1f}%"></i></div>'
        if total
        else ""
    )
    role = ' role="status"' if state in ("done", "error") else ""
    going = " sweep-going" if state == "going" else ""
    return (
        f'<div class="sweep{going}" data-state="{state}" data-done="{done}">{bar}<p{role}>{html.escape(text)}</p></div>'
    )


def _progress(sweep: Sweep) -> str:
    if sweep.stopping:
        return _status("going", STOPPING, sweep.done, sweep.total)
    parts = [f"{sweep.done} of {sweep.total} runs"]
    if 0 < sweep.done < sweep.total:
        left = (time.monotonic() - sweep.began) / sweep.done * (sweep.total - sweep.done)
        parts.append(f"about {left:.0f} s left" if left < 90 else f"about {left / 60:.0f} min left")
    return _status("going", " · ".join(parts), sweep.done, sweep.total)


def end(sweep: Sweep) -> str:
    took = time.monotonic() - sweep.began
    if sweep.error:
        return _status("error", f"{sweep.error} What was measured is kept.", sweep.done, sweep.total)
    if sweep.finished:
        return _status("done", f"{sweep.total} runs in {took:.0f} s", sweep.done, sweep.total)
    kept = f"Stopped after {sweep.done} of {sweep.total} runs; every setting that was finished is kept."
    return _status("done", kept, sweep.done, sweep.total)


def table(results: Results) -> str:
    """Every point in figures: what the charts show, for reading and for screen readers."""
    conditions = [results.checkpoint, results.device, results.dtype, f"at most {results.max_new_tokens} new tokens"]
    head = "".join(f'<th scope="col">{name}</th>' for name in HEADS)
    rows = "".join(_row(point) for mode in LANES for point in results.of_mode(mode))
    return (
        f"<h2>Measured</h2><p>{html.escape(' · '.join(conditions))}. "
        f"Prompts: {html.escape(', '.join(results.labels))}.</p><p>{COUNTED}</p>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Figures of the sweep">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(point: Point) -> str:
    figures = "".join(f"<td>{figure}</td>" for figure in cells(point))
    return f'<tr data-mode="{point.mode}"><th scope="row">{LANES[point.mode]}</th>{figures}</tr>'
