"""Requests that make no sense, to every route that takes a body and some that do not exist."""

from __future__ import annotations

import json
import random


def nonsense(chance: random.Random, number: int, functions: list[int]) -> tuple[str, str, bytes, str]:
    """A request that makes no sense: method, path, body, content type."""
    values = [
        None,
        -1,
        2**70,
        1e308,
        "",
        "x" * 5000,
        [],
        {},
        [[[]]],
        {"a": {"b": [None]}},
        "\0",
        "../../etc/passwd",
        True,
    ]
    pick = lambda: chance.choice(values)  # noqa: E731
    file = {
        "path": chance.choice(["/etc/passwd", "x", ""]),
        "meta": {"_type": "gradio.FileData"},
        "url": "http://[::1]/",
    }
    session = f"m{number}"
    bodies = [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[" * 50_000,
        b'{"data": ' + b"[" * 3000 + b"]" * 3000 + b"}",
        json.dumps({"data": [pick() for _ in range(chance.randrange(20))]}).encode(),
        json.dumps({"fn_index": pick(), "session_hash": pick(), "data": pick()}).encode(),
        json.dumps({"fn_index": chance.choice(functions), "session_hash": session, "data": [file] * 2}).encode(),
        json.dumps(
            {
                "fn_index": chance.choice(functions),
                "session_hash": session,
                "data": [pick() for _ in range(chance.randrange(18))],
            }
        ).encode(),
        json.dumps({"prompt": pick(), "mode": pick(), "seed": pick()}).encode(),
        chance.randbytes(chance.randrange(2000)),
    ]
    paths = [
        "/gradio_api/queue/join",
        "/gradio_api/queue/join",
        "/gradio_api/call/generate",
        "/gradio_api/call/v2/generate",
        "/gradio_api/call/v2/none",
        "/gradio_api/run/predict",
        "/gradio_api/upload",
        "/gradio_api/component_server",
        "/file",
        "/gradio_api/reset",
        "/gradio_api/cancel",
        "/gradio_api/mcp/",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/queue/data?session_hash=" + session,
        "/%2e%2e/%2e%2e/etc/passwd",
        "/none",
        "/health",
    ]
    path = chance.choice(paths)
    method = chance.choice(["POST", "POST", "POST", "PUT", "GET", "DELETE"])
    if "queue/data" in path:
        method = "POST"  # a GET would wait for events, as it should
    kinds = [
        "application/json",
        "application/json",
        "text/plain",
        "multipart/form-data; boundary=x",
        "multipart/form-data",
    ]
    return method, path, chance.choice(bodies), chance.choice(kinds)
