"""How the page runs: read once from the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ASSETS = Path(__file__).parent.parent / "assets"
#: Where a page is served to nobody but the machine's own people.
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """checkpoint, device, dtype: what to load (None: the engine decides). max_new_tokens: the most a visitor may ask
    for. time_limit: seconds of wall time a run may take. recordings: a folder of traces to play before any run.
    choose: whether a visitor may load another checkpoint, for everybody. checkpoints: what the page then offers
    besides the catalogue, folders or hub ids. graphs: forwards of fixed shapes, see `nemodiff.load`."""

    checkpoint: str = "smollm2-135m-tri"
    device: str | None = None
    dtype: str | None = None
    max_new_tokens: int = 512
    time_limit: float = 120.0
    recordings: Path = ASSETS / "traces"
    host: str = "127.0.0.1"
    port: int = 7860
    choose: bool = False
    checkpoints: tuple[str, ...] = ()
    graphs: bool = False

    @classmethod
    def from_environment(cls) -> Settings:
        """Read NEMODIFF_* and Gradio's own variables; a value that is no number falls back to the default."""
        get, default = os.environ.get, cls()
        host = get("GRADIO_SERVER_NAME") or ("0.0.0.0" if get("SPACE_ID") else default.host)
        more = get("NEMODIFF_CHECKPOINTS") or ""
        return cls(
            checkpoint=get("NEMODIFF_CHECKPOINT") or default.checkpoint,
            device=get("NEMODIFF_DEVICE") or None,
            dtype=get("NEMODIFF_DTYPE") or None,
            max_new_tokens=int(_number("NEMODIFF_MAX_NEW_TOKENS", default.max_new_tokens)),
            time_limit=_number("NEMODIFF_TIME_LIMIT", default.time_limit),
            recordings=Path(get("NEMODIFF_RECORDINGS") or default.recordings),
            host=host,
            port=int(_number("GRADIO_SERVER_PORT", default.port)),
            choose=_flag("NEMODIFF_CHOOSE", host in LOOPBACK and not get("SPACE_ID") and not _flag("GRADIO_SHARE")),
            graphs=_flag("NEMODIFF_GRAPHS"),
            checkpoints=tuple(name.strip() for name in more.split(",") if name.strip()),
        )


def _flag(name: str, default: bool = False) -> bool:
    """1, true, yes and on are on; any other word is off; unset is `default`."""
    value = os.environ.get(name, "").strip().lower()
    return value in ("1", "true", "yes", "on") if value else default


def _number(name: str, default: float) -> float:
    try:
        return float(os.environ.get(name) or default)
    except ValueError:
        return default
