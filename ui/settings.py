"""How the page runs: read once from the environment, every value checked when the app starts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemodiff.errors import NemodiffError
from nemodiff.request import MAX_NEW_TOKENS, MAX_PROMPT_CHARACTERS

ASSETS = Path(__file__).parent.parent / "assets"
#: Where a page is served to nobody but the machine's own people.
LOOPBACK = ("127.0.0.1", "localhost", "::1")
DTYPES = ("float32", "bfloat16", "int8")


class SettingsError(NemodiffError):
    """Variables that cannot be used: one sentence each, a line each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What VARIABLES says, by the names of its fields. private: nobody but the machine's own people is served. zero:
    whether this is a ZeroGPU Space."""

    checkpoint: str = "smollm2-135m-tri"
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    graphs: bool = False
    serve_url: str = ""
    max_new_tokens: int = 512
    max_prompt: int = 12_000
    max_prompt_tokens: int = 12_000
    time_limit: float = 120.0
    queue: int = 32
    visitor_runs: int = 4
    visitor_rate: int = 30
    proxies: int = 0
    drain: float = 20.0
    log: str = "text"
    metrics: bool = True
    choose: bool = False
    checkpoints: tuple[str, ...] = ()
    recordings: Path = ASSETS / "traces"
    host: str = "127.0.0.1"
    port: int = 7860
    private: bool = False
    zero: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read VARIABLES from `os.environ` or another mapping. Raises SettingsError that names every unusable value."""
        environment = os.environ if environment is None else environment
        space = bool(environment.get("SPACE_ID"))
        values: dict[str, Any] = {"host": "0.0.0.0"} if space else {}
        problems = []
        for variable in VARIABLES:
            text = environment.get(variable.name, "").strip()
            if not text or variable.field is None:
                continue
            try:
                values[variable.field] = variable.read(text)
            except ValueError as error:
                problems.append(f"{variable.name} must be {error}, not {text[:60]!r}.")
        if problems:
            raise SettingsError("\n".join(problems))
        shared = environment.get("GRADIO_SHARE", "").strip().lower() in _ON
        here = values.get("host", cls().host) in LOOPBACK
        private = here and not (space or shared or values.get("proxies"))
        if values.get("serve_url") and values.get("choose"):
            raise SettingsError("NEMODIFF_CHOOSE must be 0 with NEMODIFF_SERVE_URL: its replicas have one checkpoint.")
        zero = environment.get("SPACES_ZERO_GPU", "").strip().lower() in _ON
        where = {
            "choose": private and not values.get("serve_url"),
            "log": "text" if private else "json",
            "proxies": int(space),
        }
        return cls(**where | values, private=private, zero=zero)


def _address(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", text):
        raise ValueError("an address such as http://127.0.0.1:8000")
    return text.rstrip("/")


_ON, _OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _text(text: str) -> str:
    return text


def _path(text: str) -> Path:
    return Path(text)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _flag(text: str) -> bool:
    if text.lower() not in (*_ON, *_OFF):
        raise ValueError("1 or 0")
    return text.lower() in _ON


def _choice(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(" or ".join(allowed))
        return text

    return read


def _device(text: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d{1,2})?", text):
        raise ValueError("cpu or cuda")
    return text


def _number(kind: type, low: float, high: float) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        wanted = f"a {'whole ' if kind is int else ''}number from {low} to {high}"
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(wanted) from None
        if not low <= value <= high:  # also refuses nan
            raise ValueError(wanted)
        return value

    return read


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable: its field of Settings (None: another module reads it), its default and what it does,
    as the README says it, and how its text becomes a value."""

    name: str
    field: str | None
    default: str
    what: str
    read: Callable[[str], Any] = _text


VARIABLES = (
    Variable("NEMODIFF_CHECKPOINT", "checkpoint", "smollm2-135m-tri", "what runs: a name, a folder or a hub id"),
    Variable("NEMODIFF_DEVICE", "device", "a GPU if there is one", "cpu or cuda", _device),
    Variable("NEMODIFF_DTYPE", "dtype", "the device's fastest", " or ".join(DTYPES), _choice(*DTYPES)),
    Variable("NEMODIFF_THREADS", "threads", "torch's", "threads that the model uses on a CPU", _number(int, 1, 1024)),
    Variable(
        "NEMODIFF_CPU_TILE",
        None,
        "auto",
        "instruction set of the CPU kernels: auto, vnni, avx512, avx2 or generic",
    ),
    Variable("NEMODIFF_GRAPHS", "graphs", "0", "block-shaped forwards in fixed shapes, see below", _flag),
    Variable(
        "NEMODIFF_SERVE_URL", "serve_url", "", "replicas (`python -m ui.backends.serve`) that decode instead", _address
    ),
    Variable("NEMODIFF_CACHE", None, "~/.cache/nemodiff", "where fetched and converted weights are kept"),
    Variable(
        "NEMODIFF_MAX_NEW_TOKENS",
        "max_new_tokens",
        "512",
        "new tokens that a run may ask for",
        _number(int, 1, MAX_NEW_TOKENS),
    ),
    Variable(
        "NEMODIFF_MAX_PROMPT",
        "max_prompt",
        "12000",
        "characters that a prompt may have",
        _number(int, 1, MAX_PROMPT_CHARACTERS),
    ),
    Variable(
        "NEMODIFF_MAX_PROMPT_TOKENS",
        "max_prompt_tokens",
        "12000",
        "tokens that a run may begin with: prompt, template, pictures, what a branch goes on from",
        _number(int, 1, 10_000_000),
    ),
    Variable("NEMODIFF_TIME_LIMIT", "time_limit", "120", "seconds that a run may take", _number(float, 1, 86_400)),
    Variable("NEMODIFF_QUEUE", "queue", "32", "runs that may wait for the model", _number(int, 1, 1000)),
    Variable(
        "NEMODIFF_VISITOR_RUNS",
        "visitor_runs",
        "4",
        "runs of one visitor, running and waiting; 0: any number",
        _number(int, 0, 1000),
    ),
    Variable(
        "NEMODIFF_VISITOR_RATE",
        "visitor_rate",
        "30",
        "runs that one visitor may start a minute; 0: any number",
        _number(int, 0, 10_000),
    ),
    Variable(
        "NEMODIFF_PROXIES",
        "proxies",
        "0, on a Space 1",
        "reverse proxies in front: who a visitor is stands that far from the end of X-Forwarded-For",
        _number(int, 0, 10),
    ),
    Variable(
        "NEMODIFF_DRAIN", "drain", "20", "seconds that SIGTERM leaves to running answers", _number(float, 0, 3600)
    ),
    Variable("NEMODIFF_LOG", "log", "text on loopback, else json", "text or json", _choice("text", "json")),
    Variable("NEMODIFF_METRICS", "metrics", "1", "whether /metrics answers", _flag),
    Variable(
        "NEMODIFF_CHOOSE",
        "choose",
        "1 on loopback without a proxy, else 0",
        "visitors may switch the checkpoint, for all",
        _flag,
    ),
    Variable("NEMODIFF_CHECKPOINTS", "checkpoints", "", "what they are offered besides, with commas", _names),
    Variable("NEMODIFF_RECORDINGS", "recordings", "assets/traces", "folder of runs to play before the first", _path),
    Variable("GRADIO_SERVER_NAME", "host", "127.0.0.1, on a Space 0.0.0.0", "address to listen on"),
    Variable("GRADIO_SERVER_PORT", "port", "7860", "port to listen on", _number(int, 1, 65_535)),
)


def table() -> str:
    """VARIABLES as the README's table."""
    rows = [f"| `{one.name}` | {one.default} | {one.what} |" for one in VARIABLES]
    return "\n".join(["| variable | default | what it does |", "| --- | --- | --- |", *rows])
