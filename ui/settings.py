"""How the page runs: read once from the environment, every value checked when the app starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Le
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from nemodiff import markdown
from nemodiff.errors import NemodiffError
from nemodiff.request import MAX_NEW_TOKENS, MAX_PROMPT_CHARACTERS

ASSETS = Path(__file__).parent.parent / "assets"
#: Where a page is served to nobody but the machine's own people.
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ON = ("1", "true", "yes", "on")


class SettingsError(NemodiffError):
    """Variables that cannot be used: one sentence each, a line each."""


def _names(value: Any) -> Any:
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


def _graphs(value: Any) -> Any:
    """As they are called; 1 and 0 were their names once."""
    return {"1": "on", "0": "off"}.get(value.lower(), value.lower()) if isinstance(value, str) else value


Graphs = Annotated[Literal["auto", "on", "off"], BeforeValidator(_graphs)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]
Device = Annotated[str, StringConstraints(pattern=r"^cpu$|^cuda(:\d{1,2})?$")]
Address = Annotated[
    str,
    StringConstraints(pattern=r"^$|^https?://[^\s/?#@]+(/[^\s?#]*)?$"),
    AfterValidator(lambda text: text.rstrip("/")),
]


def variable(
    name: str,
    default: Any,
    what: str,
    low: float | None = None,
    high: float | None = None,
    *,
    said: str | None = None,
    wanted: str | None = None,
) -> Any:
    """A field that an environment variable sets. what: what it does. said: the default in words; wanted: what a value
    must be, where its type does not say it."""
    words: dict[str, Any] = {"said": said, "wanted": wanted}
    return Field(default, validation_alias=name, description=what, ge=low, le=high, json_schema_extra=words)


class Settings(BaseSettings):
    """What the environment says, by `from_environment`; made by hand it takes these names and reads no environment.

    private: nobody but the machine's own people is served. zero: whether this is a ZeroGPU Space.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    checkpoint: str = variable("NEMODIFF_CHECKPOINT", "smollm2-135m-tri", "what runs: a name, a folder or a hub id")
    device: Device | None = variable(
        "NEMODIFF_DEVICE", None, "cpu or cuda", said="a GPU if there is one", wanted="cpu or cuda"
    )
    dtype: Literal["float32", "bfloat16", "int8"] | None = variable(
        "NEMODIFF_DTYPE",
        None,
        "float32 or bfloat16 or int8",
        said="the device's fastest",
        wanted="float32 or bfloat16 or int8",
    )
    threads: int | None = variable(
        "NEMODIFF_THREADS", None, "threads that the model uses on a CPU", 1, 1024, said="torch's"
    )
    graphs: Graphs = variable(
        "NEMODIFF_GRAPHS", "auto", "CUDA graphs on a GPU: auto, on or off, see below", wanted="auto or on or off"
    )
    serve_url: Address = variable(
        "NEMODIFF_SERVE_URL",
        "",
        "replicas (`python -m ui.backends.serve`) that decode instead",
        wanted="an address such as http://127.0.0.1:8000",
    )
    max_new_tokens: int = variable(
        "NEMODIFF_MAX_NEW_TOKENS", 512, "new tokens that a run may ask for", 1, MAX_NEW_TOKENS
    )
    max_prompt: int = variable(
        "NEMODIFF_MAX_PROMPT", 12_000, "characters that a prompt may have", 1, MAX_PROMPT_CHARACTERS
    )
    max_prompt_tokens: int = variable(
        "NEMODIFF_MAX_PROMPT_TOKENS",
        12_000,
        "tokens that a run may begin with: prompt, template, pictures, what a branch goes on from",
        1,
        10_000_000,
    )
    time_limit: float = variable("NEMODIFF_TIME_LIMIT", 120.0, "seconds that a run may take", 1, 86_400)
    queue: int = variable("NEMODIFF_QUEUE", 32, "runs that may wait for the model", 1, 1000)
    visitor_runs: int = variable(
        "NEMODIFF_VISITOR_RUNS", 4, "runs of one visitor, running and waiting; 0: any number", 0, 1000
    )
    visitor_rate: int = variable(
        "NEMODIFF_VISITOR_RATE", 30, "runs that one visitor may start a minute; 0: any number", 0, 10_000
    )
    proxies: int = variable(
        "NEMODIFF_PROXIES",
        0,
        "reverse proxies in front: the visitor's address is that many entries from the end of X-Forwarded-For",
        0,
        10,
        said="0, on a Space 1",
    )
    drain: float = variable("NEMODIFF_DRAIN", 20.0, "seconds that SIGTERM leaves to running answers", 0, 3600)
    log: Literal["text", "json"] = variable("NEMODIFF_LOG", "text", "text or json", said="text on loopback, else json")
    metrics: bool = variable("NEMODIFF_METRICS", True, "whether /metrics answers")
    choose: bool = variable(
        "NEMODIFF_CHOOSE",
        False,
        "visitors may switch the checkpoint, for all",
        said="1 on loopback without a proxy, else 0",
    )
    checkpoints: Names = variable("NEMODIFF_CHECKPOINTS", (), "what they are offered besides, with commas", said="")
    recordings: Path = variable(
        "NEMODIFF_RECORDINGS", ASSETS / "traces", "folder of runs to play before the first", said="assets/traces"
    )
    tour: bool = variable("NEMODIFF_TOUR", True, "whether a browser's first visit begins the tour")
    source: Address = variable(
        "NEMODIFF_SOURCE",
        "",
        "where this code lies, for the link below the page",
        said="on a Space its own files",
        wanted="an address such as https://example.org/owner/nemodiff",
    )
    host: str = variable(
        "GRADIO_SERVER_NAME", "127.0.0.1", "address to listen on", said="127.0.0.1, on a Space 0.0.0.0"
    )
    port: int = variable("GRADIO_SERVER_PORT", 7860, "port to listen on", 1, 65_535)
    private: bool = False
    zero: bool = False

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read VARIABLES from `os.environ` or another mapping. Raises SettingsError that names every unusable value."""
        environment = os.environ if environment is None else environment
        texts = {one.name: environment.get(one.name, "").strip() for one in VARIABLES if one.field}
        source = EnvSettingsSource(cls, case_sensitive=True)
        source.env_vars = {name: text for name, text in texts.items() if text}
        space = bool(environment.get("SPACE_ID"))
        try:
            given = cls(**source())
        except ValidationError as error:
            names = dict.fromkeys(str(one["loc"][0]) for one in error.errors())
            raise SettingsError("\n".join(_sentence(name, texts[name]) for name in names)) from None
        values = {name: getattr(given, name) for name in given.model_fields_set}
        values = ({"host": "0.0.0.0"} if space else {}) | values
        shared = environment.get("GRADIO_SHARE", "").strip().lower() in _ON
        here = values.get("host", given.host) in LOOPBACK
        private = here and not (space or shared or given.proxies)
        if given.serve_url and given.choose:
            raise SettingsError("NEMODIFF_CHOOSE must be 0 with NEMODIFF_SERVE_URL: its replicas have one checkpoint.")
        zero = environment.get("SPACES_ZERO_GPU", "").strip().lower() in _ON
        where: dict[str, Any] = {
            "choose": private and not given.serve_url,
            "log": "text" if private else "json",
            "proxies": int(space),
            "source": f"https://huggingface.co/spaces/{environment['SPACE_ID']}/tree/main" if space else "",
        }
        return cls(**where | values, private=private, zero=zero)


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable: its field of Settings (None: another module reads it), its default and what it does, as
    the documentation says them."""

    name: str
    field: str | None
    default: str
    what: str


def _variable(name: str, field: FieldInfo) -> Variable:
    value, text = field.default, _words(field)["said"]
    if text is None:
        text = f"{value:g}" if isinstance(value, bool | float) else str(value)
    return Variable(str(field.validation_alias), name, text, str(field.description))


def _words(field: FieldInfo) -> dict[str, Any]:
    assert isinstance(field.json_schema_extra, dict)  # as `variable` makes it
    return field.json_schema_extra


def _sentence(name: str, text: str) -> str:
    field = next(one for one in Settings.model_fields.values() if one.validation_alias == name)
    return f"{name} must be {_words(field)['wanted'] or _wanted(field)}, not {text[:60]!r}."


def _wanted(field: FieldInfo) -> str:
    """What a value must be, by the field's type and bounds."""
    kind = field.annotation
    if kind is bool:
        return "1 or 0"
    low = next((one.ge for one in field.metadata if isinstance(one, Ge)), None)
    high = next((one.le for one in field.metadata if isinstance(one, Le)), None)
    if low is None:
        return " or ".join(map(str, get_args(kind)))
    return f"a {'whole ' if kind is int or int in get_args(kind) else ''}number from {low} to {high}"


VARIABLES = (
    *(_variable(name, field) for name, field in Settings.model_fields.items() if field.validation_alias),
    Variable(
        "NEMODIFF_CPU_TILE",
        None,
        "auto",
        "instructions of the CPU kernels: auto, amx, vnni, avx512, avx2 or generic",
    ),
    Variable("NEMODIFF_CACHE", None, "~/.cache/nemodiff", "where fetched and converted weights are kept"),
)


def table() -> str:
    """VARIABLES as the Markdown table of the documentation."""
    rows = ((f"`{one.name}`", one.default, one.what) for one in VARIABLES)
    return markdown.table(["variable", "default", "what it does"], rows)
