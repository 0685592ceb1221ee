"""Start replicas and keep them: python -m ui.backends.serve --replicas 2. Pages then run with NEMODIFF_SERVE_URL."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from nemodiff.checkpoints.catalogue import DEFAULT, folder_of, is_folder

ROOT = Path(__file__).parents[3]
NAME = "nemodiff"
#: Seconds between two looks of Ray Serve at a replica, and without an answer after which it is replaced.
LOOK, PATIENCE = 5.0, 30.0


def main(arguments: list[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_SERVE_ENABLE_HA_PROXY", "0")
    try:
        import ray
        from ray import serve
    except ImportError:
        print("Ray is not installed: pip install -r requirements-serve.txt", file=sys.stderr)
        return 2
    most = max(args.replicas, args.max_replicas or 0)
    cores = os.cpu_count() or 1
    threads = args.threads or (None if args.address else max(1, cores // most))
    folder = folder_of(args.checkpoint)
    checkpoint = str(folder.resolve()) if is_folder(args.checkpoint) else args.checkpoint
    ray.init(**_cluster(args.address, cores, most))
    try:
        serve.start(http_options={"host": args.host, "port": args.port})
        options = {"device": args.device, "dtype": args.dtype, "graphs": args.graphs}
        serve.run(application(checkpoint, options, args.replicas, most, threads, args.drain), name=NAME)
        address = f"http://{args.host}:{args.port}"
        print(f"{args.checkpoint} answers at {address}: NEMODIFF_SERVE_URL={address} python app.py", flush=True)
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        ended.wait()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)  # a second one ends at once
        serve.shutdown()
    finally:
        ray.shutdown()
    return 0


def application(
    checkpoint: str,
    options: dict[str, Any],
    replicas: int = 1,
    most: int = 1,
    threads: int | None = None,
    drain: float = 20.0,
) -> Any:
    """The Serve application. replicas, most: at least and at most so many; options: of `nemodiff.load`.

    A replica takes one run at a time, and Serve gives a run to one that is free: which one does not matter.
    """
    from ray import serve

    from ui.backends.serve.decoder import Decoder

    gpu = options.get("device") == "cuda"
    scale: dict[str, Any] = {"num_replicas": replicas}
    if most > replicas:
        one = {"target_ongoing_requests": 1, "upscale_delay_s": 5, "downscale_delay_s": 300}
        scale = {"autoscaling_config": {"min_replicas": replicas, "max_replicas": most, **one}}
    deployment = serve.deployment(
        name=NAME,
        max_ongoing_requests=1,
        ray_actor_options={"num_cpus": threads or 1, "num_gpus": int(gpu)},
        health_check_period_s=LOOK,
        health_check_timeout_s=PATIENCE,
        graceful_shutdown_timeout_s=drain,
        logging_config={"enable_access_log": False},
        **scale,
    )(Decoder)
    return deployment.bind(checkpoint, options, threads, most)


def _cluster(address: str | None, cores: int, most: int) -> dict[str, Any]:
    """ray.init's arguments: this machine alone, or a cluster that runs, which is sent this code."""
    if address:
        unneeded = [".git", ".venv", "tests", "assets/screenshots", "assets/traces"]
        return {"address": address, "runtime_env": {"working_dir": str(ROOT), "excludes": unneeded}}
    return {
        "num_cpus": max(cores, most),
        "include_dashboard": False,
        "runtime_env": {"env_vars": {"PYTHONPATH": str(ROOT)}},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ui.backends.serve", description=__doc__.partition(":")[0])
    parser.add_argument("--checkpoint", default=DEFAULT, help="a name, a folder or a hub id")
    parser.add_argument("--replicas", type=_count, default=1, metavar="N", help="at least so many")
    parser.add_argument("--max-replicas", type=_count, metavar="N", help="at most so many: more than --replicas scales")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="cuda gives every replica a GPU")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "int8"))
    parser.add_argument(
        "--graphs", nargs="?", const="on", default="auto", choices=("auto", "on", "off"), help="see docs/gpu.md"
    )
    parser.add_argument(
        "--threads", type=_count, metavar="N", help="of a replica, on a CPU; cores are shared out if not"
    )
    parser.add_argument("--host", default="127.0.0.1", help="whoever reaches it may use the model: keep it inside")
    parser.add_argument("--port", type=_count, default=8000)
    parser.add_argument(
        "--address", help="a Ray cluster that runs already, such as auto; by default this machine alone"
    )
    parser.add_argument(
        "--drain", type=float, default=20.0, help="seconds that a replica's answer may go on at its end"
    )
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
