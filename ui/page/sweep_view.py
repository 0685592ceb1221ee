"""What the Compare tab shows of a sweep: how far it is, its figures, what they advise."""

from __future__ import annotations

import html
import time

from nemodiff.evaluate.advice import advice
from nemodiff.evaluate.sweep import COUNTED, HEADS, Point, cells
from nemodiff.evaluate.sweep_results import Kept, Results
from ui.live.sweep_plan import Pace, Plan
from ui.live.sweep_run import Sweep
from ui.render.charts.figure import LANES, plural

STOPPING = "Stopping after this forward…"


def sentence(text: str, name: str) -> str:
    return f'<p class="{name}">{html.escape(text)}</p>'


def status(state: str, text: str, done: int = 0, total: int = 0) -> str:
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


def progress(sweep: Sweep) -> str:
    if sweep.stopping:
        return status("going", STOPPING, sweep.done, sweep.total)
    parts = [f"{sweep.done} of {sweep.total} runs"]
    left = sweep.seconds_left()
    if left is not None and sweep.done < sweep.total:
        parts.append(f"about {duration(left)} left")
    return status("going", " · ".join(parts), sweep.done, sweep.total)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def end(sweep: Sweep) -> str:
    took = time.monotonic() - sweep.began
    if sweep.error:
        return status("error", f"{sweep.error} What was measured is kept.", sweep.done, sweep.total)
    if sweep.finished:
        return status("done", f"{sweep.total} runs in {took:.0f} s", sweep.done, sweep.total)
    kept = f"Stopped after {sweep.done} of {sweep.total} runs; every setting that was finished is kept."
    return status("done", kept, sweep.done, sweep.total)


def planned(plan: Plan, kept: Results | None, pace: Pace | None) -> str:
    """How many runs a plan has, how long they take at most, and what of it is measured already."""
    done = plan.without(kept.measured(plan.repeats)) if kept else set()
    runs = plan.runs_of(done)
    parts = [f"{plural(runs.total(), 'run')} of at most {plural(plan.max_new_tokens, 'token')}"]
    if pace:
        most = duration(pace.seconds(runs, plan.max_new_tokens))
        parts.append(f"up to about {most}, by a short run on this server")
    text = sentence(" · ".join(parts), "plan")
    if done:
        rest = "the sweep goes on with the others (AR runs again, to be held against)"
        count = f"{plural(len(done), 'setting')} of these {'is' if len(done) == 1 else 'are'} measured already"
        text += sentence(f"{count}: {rest}.", "plan more")
    return text + "".join(sentence(one, "plan wrong") for one in plan.left_out)


def advised(kept: Kept, same_text: bool) -> str:
    """What the newest sweep's figures advise."""
    return sentence(advice(kept.sweeps[0].points, same_text), "advice") if kept.sweeps else ""


def figures(kept: Kept, same_text: bool) -> str:
    """The newest sweep in figures, and the earlier ones under other conditions with what theirs advise."""
    if not kept.sweeps:
        return ""
    newest, *earlier = kept.sweeps
    text = table(newest) + ("<h2>Measured earlier, under other conditions</h2>" if earlier else "")
    for one in earlier:
        said = sentence(advice(one.points, same_text), "advice")
        text += f"<details><summary>{html.escape(conditions(one))}</summary>{said}{_rows(one)}</details>"
    return text


def conditions(results: Results) -> str:
    most = f"at most {plural(results.max_new_tokens, 'new token')}"
    where = [results.checkpoint, results.device, results.dtype, most, plural(len(results.labels), "prompt")]
    return " · ".join(filter(None, where))


def table(results: Results) -> str:
    """Every point in figures: what the charts show, for reading and for screen readers."""
    return (
        f"<h2>Measured</h2><p>{html.escape(conditions(results))}. "
        f"Prompts: {html.escape(', '.join(results.labels))}.</p><p>{COUNTED}</p>{_rows(results)}"
    )


def _rows(results: Results) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in HEADS)
    rows = "".join(_row(point) for mode in LANES for point in results.of_mode(mode))
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Figures of the sweep">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(point: Point) -> str:
    shown = "".join(f"<td>{html.escape(figure)}</td>" for figure in cells(point))
    return f'<tr data-mode="{point.mode}"><th scope="row">{LANES[point.mode]}</th>{shown}</tr>'
