"""Traces made by hand, small enough to know every figure of."""

from __future__ import annotations

from typing import Any

PATIENCE = 180_000  # ms: the machine that runs this may be busy


def trace_of(texts: dict[str, str], tokens: list[int], **head) -> dict:
    """A small valid trace: AR and self-speculation over given tokens, with one rejected draft."""
    kept = [
        {"index": i, "token": token, "state": "committed", "confidence": 0.5, "top": [[token, 0.5], [tokens[0], 0.2]]}
        for i, token in enumerate(tokens)
    ]
    ar = [
        {"forward": i, "phase": "decode" if i else "prefill", "clock_ms": 10.0 * (i + 1), "start": i, "length": 1}
        | {"positions": [position]}
        for i, position in enumerate(kept)
    ]
    drafts = [{"index": i, "token": token, "state": "drafted", "confidence": 0.9} for i, token in enumerate(tokens)][1:]
    drafts[-1] = drafts[-1] | {"token": tokens[0]}
    verified = [position | {"state": "accepted"} for position in drafts[:-1]]
    verified.append(drafts[-1] | {"state": "rejected", "verifier": tokens[-1]})
    verified.append(kept[-1] | {"state": "corrected"})
    block = {"start": 0, "length": len(tokens)}
    spec = [
        {"forward": 0, "phase": "prefill", "clock_ms": 10.0, "positions": [kept[0] | {"state": "seed"}]} | block,
        {"forward": 1, "phase": "draft", "clock_ms": 20.0, "positions": drafts} | block,
        {"forward": 2, "phase": "verify", "clock_ms": 30.0, "positions": verified} | block,
    ]
    return {
        "schema": "nemodiff.trace/1",
        "checkpoint": "made-for-a-test",
        "request": {"prompt": "made for a test", "modes": ["ar", "self-speculation"], "block_length": len(tokens)},
        "tokens": texts,
        "lanes": [
            {"mode": "ar", "events": ar, "tokens": tokens, "finish": "length"},
            {"mode": "self-speculation", "events": spec, "tokens": tokens, "finish": "length"},
        ],
        **head,
    }


def take_away(page: Any, name: str) -> None:
    """Choose an entry of the stage's menu, by its name: what it downloads is the caller's to expect."""
    page.get_by_role("button", name="Take it away").click()
    page.get_by_role("menuitem", name=name).click()
