"""For programs: `generate` by gradio_client, HTTP and MCP, in the same line and within the same limits as the page."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Literal

import gradio as gr

from nemodiff.engine.interface import EngineInterface
from nemodiff.errors import RequestError
from nemodiff.request import Request
from nemodiff.setting_kinds import Flag, Number, Texts, Whole
from nemodiff.settings import Setting, offered
from nemodiff.trace.events import MODES
from ui.live import backlog
from ui.live.desk import Desk
from ui.live.messages import Batch, Finished, Message, Refused, Waiting
from ui.live.models import Checkpoints
from ui.live.stream import BEHIND
from ui.settings import Settings
from ui.signature import EMPTY, parameter, sign
from ui.values import UNREAD, whole
from ui.wire import explain

#: Seconds between two answers so far.
PAUSE = 0.1
#: The same for a program that does not take them.
SLOW = 5.0

#: The first parameters of `/generate`, which programs may send by place; what is newer in the table follows.
FIRST = (
    *("prompt", "mode", "max_new_tokens", "block_length", "sampler", "threshold", "entropy_bound", "steps", "draft"),
    *("acceptance", "ar_weight", "temperature", "seed", "ignore_eos", "raw", "trace", "order", "rows", "stop"),
    *("system", "history"),
)
#: What they are besides the settings of the table: type, default (EMPTY: there has to be one), description.
OTHERS: dict[str, tuple[Any, Any, str]] = {
    "prompt": (str, EMPTY, "what to answer"),
    "mode": (
        Literal["ar", "diffusion", "self-speculation", "all"],
        "self-speculation",
        "ar (one token per forward), diffusion (several per forward), self-speculation (ar's text in fewer forwards), "
        "or all three in one run; text is then ar's",
    ),
    "trace": (bool, False, "return the run's trace, too"),
    "system": (str, "", "a system prompt, the chat template's first message"),
    "history": (
        list[dict[str, str]],
        [],
        "earlier turns, which the prompt follows, such as "
        '[{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]',
    ),
}
SETTINGS = {setting.name: setting for setting in offered("api")}
NAMES = (*FIRST, *(name for name in SETTINGS if name not in FIRST))
ABOUT = """Answer a prompt with one language model in one of its decoding modes, or in all of them at once.

Figures: forwards are those after the prefill, whose token counts, so tpf (tokens per forward) of ar is a little above 1; nfe is what the released code counts.

Args:
"""  # noqa: E501 - Gradio takes a description from one line


def add(page: gr.Blocks, checkpoints: Checkpoints, settings: Settings, desk: Desk, **model: Any) -> None:
    """The endpoint `/generate`. model: the event options that all uses of the model share."""

    def engine() -> EngineInterface:
        return checkpoints.loaded("nothing can be generated")

    def generate(*sent: Any) -> Iterator[Any]:
        *values, visitor = sent
        try:
            asked = dict(zip(NAMES, values, strict=True))
            request, behind = _request(settings, asked), backlog.behind(page, visitor.session_hash)
            with closing(desk.run(request, visitor, engine, keeps=False)) as messages:
                for answer in _answers(messages, behind, bool(asked["trace"])):
                    yield _for_mcp(answer) if visitor.headers.get("x-gradio-user") == "mcp" else answer
        except Exception as error:
            # Gradio hands the sentence of a gr.Error alone to the caller.
            raise gr.Error(explain(error), print_exception=False) from None

    # What it yields, as Gradio wants to be told: an object. And Gradio fills the visitor in.
    sign(generate, [*map(_parameter, NAMES), parameter("visitor", gr.Request, None)], dict[str, Any])
    generate.__doc__ = ABOUT + "\n".join(f"    {name}: {_about(name)}" for name in NAMES)
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


def _parameter(name: str) -> inspect.Parameter:
    if name in OTHERS:
        kind, default, _ = OTHERS[name]
        return parameter(name, kind, default)
    setting = SETTINGS[name]
    kind = setting.kind.type | None if setting.default is None else setting.kind.type
    return parameter(name, kind, list(setting.default) if isinstance(setting.kind, Texts) else setting.default)


def _about(name: str) -> str:
    if name in OTHERS:
        return OTHERS[name][2]
    setting = SETTINGS[name]
    words = setting.kind.words if isinstance(setting.kind, Whole | Number | Texts) else ""
    uses = f"for {setting.of[0]} {' or '.join(setting.of[1])}" if setting.of else ""
    auto = "null: auto" if setting.default is None else ""
    more = "; ".join(filter(None, (words, uses, auto)))
    return f"{setting.help} ({more})" if more else setting.help


def _request(settings: Settings, asked: dict[str, Any]) -> Request:
    mode = asked["mode"]
    if mode not in (*MODES, "all"):
        said = repr(mode[:40]) if isinstance(mode, str) else "of no name"
        raise RequestError(f"Unknown mode {said}: choose {', '.join(MODES)} or all.")
    return Request(
        prompt=asked["prompt"],
        system=asked["system"],
        history=asked["history"],
        modes=MODES if mode == "all" else (mode,),
        time_limit=settings.time_limit,
        **{name: _plain(setting, asked[name]) for name, setting in SETTINGS.items()},
    )


def _plain(setting: Setting, value: Any) -> Any:
    """A value out of JSON as a Request takes it. Raises RequestError."""
    if isinstance(setting.kind, Whole):
        return whole(setting.name, value)
    return bool(value) if isinstance(setting.kind, Flag) else value


def _answers(messages: Iterator[Message], behind: Callable[[], int], with_trace: bool) -> Iterator[dict[str, Any]]:
    """Answers so far, the last one with figures. behind: answers that the program has not taken yet."""
    told = 0.0
    for message in messages:
        match message:
            case Waiting(sentence, ahead):
                yield _answer("waiting", "", message=sentence, ahead=ahead)
            case Refused(sentence):
                raise RequestError(sentence)
            case Batch(run):
                if time.monotonic() - told > (PAUSE if behind() < BEHIND else SLOW):
                    told = time.monotonic()
                    yield _answer("running", run.recorder.text(run.recorder.trace.lanes[0].mode))
            case Finished(run) if run is not None:
                if run.error:
                    raise RequestError(run.error)
                trace = run.recorder.trace
                yield _answer("done", trace.lanes[0].text, trace.figures(), trace.to_dict() if with_trace else None)


def _answer(
    state: str, text: str, figures: dict[str, Any] | None = None, trace: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    return {"state": state, "text": text, "figures": figures, "trace": trace} | more


def _for_mcp(answer: dict[str, Any]) -> str:
    """Gradio's MCP server would show an object as Python writes it."""
    return json.dumps(answer, ensure_ascii=False)
