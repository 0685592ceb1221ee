"""For programs: `generate` by gradio_client, HTTP and MCP, in the same line and within the same limits as the page."""

# Gradio makes the endpoint's schema of the annotations as they stand, so these are evaluated here, not strings.

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import gradio as gr

from nemodiff.errors import RequestError
from nemodiff.request import Request
from nemodiff.trace.events import MODES
from ui.live import backlog
from ui.live.desk import Turns
from ui.live.fair_queue import Ticket
from ui.live.limits import within
from ui.live.models import Checkpoints
from ui.live.run import Decode, Run
from ui.live.stream import BEHIND, PATIENCE
from ui.settings import Settings
from ui.values import UNREAD, whole
from ui.wire import explain

#: Seconds between two answers so far.
PAUSE = 0.1
#: The same for a program that does not take them.
SLOW = 5.0

NAMES = (
    *("prompt", "mode", "max_new_tokens", "block_length", "sampler", "threshold", "entropy_bound", "steps", "draft"),
    *("acceptance", "ar_weight", "temperature", "seed", "ignore_eos", "raw", "trace", "order", "rows"),
)


def add(
    page: gr.Blocks, checkpoints: Checkpoints, settings: Settings, turns: Turns, decode: Decode | None, **model: Any
) -> None:
    """The endpoint `/generate`. decode: as for a Run. model: the event options that all uses of the model share."""

    # What it yields, as Gradio wants to be told: an object.
    def generate(  # type: ignore[misc]
        prompt: str,
        mode: Literal["ar", "diffusion", "self-speculation", "all"] = "self-speculation",
        max_new_tokens: int = 128,
        block_length: int | None = None,
        sampler: Literal["confidence", "entropy", "fixed", "trained"] = "confidence",
        threshold: float | None = None,
        entropy_bound: float = 0.3,
        steps: int | None = None,
        draft: Literal["linear", "quadratic", "tree"] = "linear",
        acceptance: Literal["match", "independent", "sampling"] = "match",
        ar_weight: float = 1.0,
        temperature: float = 0.0,
        seed: int = 0,
        ignore_eos: bool = False,
        raw: bool = False,
        trace: bool = False,
        order: Literal["best", "leftmost"] | None = None,
        rows: int | None = None,
        visitor: gr.Request = None,  # type: ignore[assignment]  # Gradio fills it in, and wants a default after others
    ) -> dict[str, Any]:
        """Answer a prompt with one language model in one of its decoding modes, or in all of them at once.

        Figures: forwards are those after the prefill, whose token counts, so tpf (tokens a forward) of ar is a little above 1; nfe is what the released code counts.

        Args:
            prompt: what to answer
            mode: ar (one token a forward), diffusion (several a forward), self-speculation (ar's text in fewer forwards), or all three in one run; text is then ar's
            max_new_tokens: at most so many tokens; a page has its own limit, by default 512
            block_length: tokens of a block, 2 to 64; null for the checkpoint's
            sampler: which masked positions diffusion commits
            threshold: confidence at which it does, 0 to 1; null for the checkpoint's
            entropy_bound: nats that a forward may commit (sampler entropy)
            steps: denoising forwards a block (sampler fixed)
            draft: how self-speculation drafts
            acceptance: what a draft must do to stand, at a temperature
            ar_weight: AR's weight in the verifier (draft quadratic)
            temperature: 0 is greedy
            seed: of the noise at a temperature
            ignore_eos: go on after the end of the answer
            raw: take the prompt as it is, without the chat template; control tokens that are written out in it take effect
            trace: return the run's trace, too
            order: where diffusion commits first, what is surest or what is leftmost; null for the checkpoint's
            rows: of a forward at most, 2 to 64 (draft tree); null where their cost on this machine decides
        """  # noqa: E501 - Gradio takes a parameter's description from one line
        try:
            if mode not in (*MODES, "all"):
                said = repr(mode[:40]) if isinstance(mode, str) else "of no name"
                raise RequestError(f"Unknown mode {said}: choose {', '.join(MODES)} or all.")
            request = _request(
                checkpoints,
                settings,
                prompt=prompt,
                modes=MODES if mode == "all" else (mode,),
                max_new_tokens=whole("max_new_tokens", max_new_tokens),
                block_length=whole("block_length", block_length),
                sampler=sampler,
                order=order,
                threshold=threshold,
                entropy_bound=entropy_bound,
                steps=whole("steps", steps),
                draft=draft,
                rows=whole("rows", rows),
                acceptance=acceptance,
                ar_weight=ar_weight,
                temperature=temperature,
                seed=whole("seed", seed),
                ignore_eos=bool(ignore_eos),
                raw=bool(raw),
            )
            behind = backlog.behind(page, visitor.session_hash)
            for answer in _answers(checkpoints, turns, decode, request, visitor, behind, bool(trace)):
                yield _for_mcp(answer) if visitor.headers.get("x-gradio-user") == "mcp" else answer
        except Exception as error:
            # Gradio hands the sentence of a gr.Error alone to the caller.
            raise gr.Error(explain(error), print_exception=False) from None

    with page:
        gr.api(generate, api_name="generate", **model)


def misread(path: str, asked: Any) -> str | None:
    """What is wrong with a POST to the endpoint, as a sentence; Gradio would answer with an empty error.

    asked: what its body holds, see `ui.server.guard.Guard`.
    """
    name, named = path.rstrip("/").rpartition("/call/")[2], True
    if name == "generate":
        named = False
    elif name != "v2/generate":
        return None
    if asked is UNREAD:
        return "The body is no valid JSON."
    if not isinstance(asked, dict):
        return "The body must be a JSON object."
    if not named:
        data = asked.get("data")
        if isinstance(data, list) and len(data) == len(NAMES):
            return None
        return f'The body must be {{"data": […]}} with {len(NAMES)} values; /call/v2/generate takes them by name.'
    if unknown := next((key for key in asked if key not in NAMES), None):
        return f"There is no argument {unknown[:40]!r}: choose from {', '.join(NAMES)}."
    return None if "prompt" in asked else "The argument prompt is missing."


def _request(checkpoints: Checkpoints, settings: Settings, **values: Any) -> Request:
    engine = checkpoints.loaded("nothing can be generated")
    request = Request(**values, time_limit=settings.time_limit)
    within(request, settings, engine)  # what cannot run need not wait
    return request


def _answers(
    checkpoints: Checkpoints,
    turns: Turns,
    decode: Decode | None,
    request: Request,
    visitor: gr.Request,
    behind: Callable[[], int],
    with_trace: bool,
) -> Iterator[dict[str, Any]]:
    """Answers so far, the last one with figures. Closing it stops the model within one forward."""
    asked = time.monotonic()

    def work(ticket: Any) -> Iterator[dict[str, Any]]:
        def ended(run: Run) -> None:
            ticket.leave()
            turns.ended(run, asked)

        engine = checkpoints.loaded("nothing can be generated")
        return _run(Run(engine, request, decode, ended), ticket, behind, with_trace)

    def refused(sentence: str) -> dict[str, Any]:
        raise RequestError(sentence)

    def waiting(sentence: str, ahead: int) -> dict[str, Any]:
        return _answer("waiting", "", message=sentence, ahead=ahead)

    yield from turns.take(visitor, work, waiting, refused)


def _run(run: Run, ticket: Ticket, behind: Callable[[], int], with_trace: bool) -> Iterator[dict[str, Any]]:
    mode = run.recorder.trace.lanes[0].mode
    seen = 0
    try:
        run.start()
        ticket.hand_over(run.stop)
        while not run.ended:
            seen = run.wait(seen, PATIENCE)
            if not run.ended:
                yield _answer("running", run.recorder.text(mode))
                run.join(PAUSE if behind() < BEHIND else SLOW)
        if run.error:
            raise RequestError(run.error)
        trace = run.recorder.trace
        yield _answer("done", trace.lanes[0].text, trace.figures(), trace.to_dict() if with_trace else None)
    finally:
        run.stop()


def _answer(
    state: str, text: str, figures: dict[str, Any] | None = None, trace: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    return {"state": state, "text": text, "figures": figures, "trace": trace} | more


def _for_mcp(answer: dict[str, Any]) -> str:
    """Gradio's MCP server would show an object as Python writes it."""
    return json.dumps(answer, ensure_ascii=False)
