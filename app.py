"""The app: settings → Engine → page → launch. Also the entry point of a Space."""

from __future__ import annotations

import sys

try:  # On ZeroGPU this has to come before torch; elsewhere it changes nothing.
    import spaces
except ImportError:
    spaces = None

import nemodiff
from ui import blocks
from ui.settings import Settings


def main() -> None:
    settings = Settings.from_environment()
    engine, problem = None, ""
    try:
        engine = nemodiff.load(
            settings.checkpoint,
            device=settings.device,
            dtype=settings.dtype,
            graphs=settings.graphs,
            report=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except nemodiff.CheckpointError as error:
        problem = str(error)
        print(f"{problem} The page starts without a model and replays recorded runs.", file=sys.stderr)
    gpu = spaces.GPU(duration=120) if spaces else lambda function: function
    page = blocks.build(engine, settings, problem=problem, gpu=gpu)
    page.queue(max_size=16, default_concurrency_limit=4, api_open=False)
    page.launch(
        server_name=settings.host,
        server_port=settings.port,
        theme=blocks.theme(),
        css_paths=blocks.STYLES,
        footer_links=[],
        show_error=False,
        max_file_size="32mb",
        allowed_paths=[],
        strict_cors=True,
        enable_monitoring=False,
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
    )


if __name__ == "__main__":
    main()
