"""How the page runs: read once from the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ASSETS = Path(__file__).parent.parent / "assets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """checkpoint, device, dtype: what to load (None: the engine decides). max_new_tokens: the most a visitor may ask
    for. time_limit: seconds of wall time a run may take. recordings: a folder of traces to play before any run."""

    checkpoint: str = "smollm2-135m-tri"
    device: str | None = None
    dtype: str | None = None
    max_new_tokens: int = 512
    time_limit: float = 120.0
    recordings: Path = ASSETS / "traces"
    host: str = "127.0.0.1"
    port: int = 7860

    @classmethod
    def from_environment(cls) -> Settings:
        """Read NEMODIFF_* and Gradio's own variables; a value that is no number falls back to the default."""
        get, default = os.environ.get, cls()
        return cls(
            checkpoint=get("NEMODIFF_CHECKPOINT") or default.checkpoint,
            device=get("NEMODIFF_DEVICE") or None,
            dtype=get("NEMODIFF_DTYPE") or None,
            max_new_tokens=int(_number("NEMODIFF_MAX_NEW_TOKENS", default.max_new_tokens)),
            time_limit=_number("NEMODIFF_TIME_LIMIT", default.time_limit),
            recordings=Path(get("NEMODIFF_RECORDINGS") or default.recordings),
            host=get("GRADIO_SERVER_NAME") or ("0.0.0.0" if get("SPACE_ID") else default.host),
            port=int(_number("GRADIO_SERVER_PORT", default.port)),
        )


def _number(name: str, default: float) -> float:
    try:
        return float(os.environ.get(name) or default)
    except ValueError:
        return default
