"""Traces and events made by hand, small enough to know every figure of."""

from __future__ import annotations

from nemodiff.request import Request
from nemodiff.trace.events import Event, Position, Trace
from nemodiff.trace.recorder import Recorder


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


WORDS = {1: "<img onerror=alert(1)>", 2: "${alert(1)}", 3: "</script>", 4: "\u2028", 5: " a\n", 6: "x", 7: "$x$"}


def record(events: list[Event], finish: str = "length") -> Trace:
    head = Trace("tiny", "tiny", "Test <b>CPU</b>", "float32", True, {}, Request(prompt="hi").to_json())
    modes = [mode for mode in ("ar", "diffusion", "self-speculation") if any(e.mode == mode for e in events)]
    recorder = Recorder(head, modes, lambda ids: "", lambda token: b"\xe2\x9c" if token == 9 else WORDS[token])
    for event in events:
        recorder.add(event)
    return recorder.finish(finish)


def ar() -> list[Event]:
    return [
        Event("ar", i, "decode" if i else "prefill", 10.0 * (i + 1), i, 1, [Position(i, t, "committed", 0.5)])
        for i, t in enumerate([1, 2, 3, 4, 5])
    ]


def diffusion() -> list[Event]:
    def at(index, token, state="committed", confidence=0.95):
        return Position(index, token, state, confidence)

    return [
        Event("diffusion", 0, "prefill", 10.0, 0, 1, [at(0, 1, "seed")]),
        Event("diffusion", 1, "denoise", 20.0, 0, 3, [at(1, 6, "masked", 0.2), at(2, 3)]),
        Event("diffusion", 2, "denoise", 30.0, 0, 3, [at(1, 2, confidence=0.45)]),
        Event("diffusion", 3, "refresh", 40.0, 3, 1, [at(3, 6, "seed")]),
        Event("diffusion", 4, "denoise", 50.0, 3, 3, [at(4, 5), at(5, 6, "discarded")]),
    ]


def speculation() -> list[Event]:
    mode = "self-speculation"

    def at(index, token, state, confidence=0.9, **more):
        return Position(index, token, state, confidence, **more)

    return [
        Event(mode, 0, "prefill", 10.0, 0, 1, [at(0, 1, "seed")]),
        Event(mode, 1, "draft", 20.0, 0, 3, [at(1, 2, "drafted", 0.91), at(2, 6, "drafted", 0.3)]),
        Event(
            mode,
            2,
            "verify",
            30.0,
            0,
            3,
            [at(1, 2, "accepted"), at(2, 6, "rejected", verifier=3), at(2, 3, "corrected")],
        ),
        Event(mode, 3, "draft", 40.0, 2, 3, [at(3, 4, "drafted", 0.99), at(4, 5, "drafted", 0.98)]),
        Event(mode, 4, "verify", 50.0, 2, 3, [at(3, 4, "accepted"), at(4, 5, "accepted"), at(5, 7, "bonus")]),
    ]


#: Texts of `three_lanes`.
SENTENCE = {"1": "One", "2": " two", "3": " three", "4": " four", "5": "."}


def three_lanes(words: dict[str, str] = SENTENCE) -> dict:
    """AR, diffusion (a guess that waits for three forwards) and self-speculation, which rejects its last draft."""
    trace = trace_of(words, [1, 2, 3, 4, 5], device="Test CPU")
    trace["request"] |= {"modes": ["ar", "diffusion", "self-speculation"], "sampler": "confidence", "threshold": 0.9}

    def denoise(forward: int, *positions: tuple[int, int, str, float]) -> dict:
        keys = ("index", "token", "state", "confidence")
        event = {"forward": forward, "phase": "denoise", "clock_ms": 10.0 * (forward + 1), "start": 0, "length": 5}
        return event | {"positions": [dict(zip(keys, one, strict=True)) for one in positions]}

    seed = {"index": 0, "token": 1, "state": "seed", "confidence": 0.5}
    prefill = {"forward": 0, "phase": "prefill", "clock_ms": 10.0, "start": 0, "length": 1, "positions": [seed]}
    events = [
        prefill,
        denoise(1, (1, 2, "committed", 0.95), (2, 5, "masked", 0.3), (3, 4, "committed", 0.9), (4, 5, "masked", 0.4)),
        denoise(2, (2, 4, "masked", 0.5), (4, 5, "committed", 0.6)),
        denoise(3, (2, 3, "committed", 0.7)),
    ]
    trace["lanes"].append({"mode": "diffusion", "events": events, "tokens": [1, 2, 3, 4, 5], "finish": "length"})
    return trace


JSON = {"1": '{"a"', "2": ":", "3": " 1", "4": "}", "5": "<eos>"}


def json_lanes(diffusion: list[int], ar: list[int]) -> dict:
    """Three lanes that end by themselves, asked for JSON: [1, 2, 3, 4, 5] is `{"a": 1}`."""
    trace = three_lanes(JSON) | {"special": [5]}
    trace["request"] |= {"prompt": "Write a JSON object."}
    for lane in trace["lanes"]:
        tokens = diffusion if lane["mode"] == "diffusion" else ar
        for event in lane["events"]:
            for position in event["positions"]:
                position["token"] = tokens[min(position["index"], len(tokens) - 1)]
        lane |= {"tokens": tokens, "finish": "eos"}
    return trace


LENGTH = 400


def long_trace() -> dict:
    """400 AR forwards and, beside them, diffusion blocks of 8 in which a guess changes before it is committed."""
    trace = trace_of({str(i): f" w{i}" for i in range(50)}, [1, 2, 3])
    tokens = [i % 50 for i in range(LENGTH)]
    ar, diffusion, forward = [], [], 0
    for i, token in enumerate(tokens):
        position = {"index": i, "token": token, "state": "committed", "confidence": 0.9}
        common = {"forward": i, "phase": "decode" if i else "prefill", "clock_ms": i + 1.0, "start": i, "length": 1}
        ar.append(common | {"positions": [position]})
    for start in range(0, LENGTH, 8):
        for step in range(4):
            positions = [
                {"index": i, "token": tokens[i], "state": "committed", "confidence": 0.95}
                if i < start + 2 * (step + 1)
                else {"index": i, "token": (tokens[i] + 1 + step) % 50, "state": "masked", "confidence": 0.3}
                for i in range(start + 2 * step, start + 8)
            ]
            forward += 1
            block = {"forward": forward, "phase": "denoise", "clock_ms": forward * 1.2, "start": start, "length": 8}
            diffusion.append(block | {"positions": positions})
    trace["request"]["modes"] = ["ar", "diffusion"]
    trace["lanes"] = [
        {"mode": "ar", "events": ar, "tokens": tokens, "finish": "length"},
        {"mode": "diffusion", "events": diffusion, "tokens": tokens, "finish": "length"},
    ]
    return trace


def live(run: str, numbers: list[int], head: bool = True, **more) -> dict:
    events = [
        {"q": q, "mode": "ar", "forward": q - 1, "phase": "decode", "clock_ms": float(q), "start": q - 1, "length": 1}
        | {"positions": [{"index": q - 1, "token": 1, "state": "committed"}]}
        for q in numbers
    ]
    start = {"head": {"checkpoint": "made", "request": {"modes": ["ar"]}}} if head else {}
    return {"run": run, "ev": events, "tokens": {"1": "x"}} | start | more


#: Texts of `quadratic` and `tree`.
DRAFTED = {"1": "One", "2": " two", "3": " three", "4": " four", "5": ".", "6": "<img src=x onerror=window.hacked=1>"}


def quadratic() -> dict:
    """Two cycles of a block of 3: first drafts, then one accepted, one rejected; the second group goes on."""
    trace = trace_of(DRAFTED, [1, 2, 3, 4, 5])

    def at(index: int, token: int, state: str, **more) -> dict:
        return {"index": index, "token": token, "state": state, "confidence": 0.8} | more

    block = {"phase": "verify", "start": 0, "length": 3}
    first = [at(1, 2, "bonus"), at(2, 3, "drafted"), at(3, 6, "drafted")]
    second = [at(2, 3, "accepted"), at(3, 6, "rejected", verifier=4), at(3, 4, "corrected")]
    second += [at(4, 5, "drafted"), at(5, 6, "drafted")]
    third = [at(4, 5, "accepted"), at(5, 6, "discarded")]
    trace["lanes"][1]["events"][1:] = [
        block | {"forward": 1, "clock_ms": 20.0, "positions": first, "rows": 3, "groups": [[[3, 0.8], [6, 0.8]]]},
        block
        | {"forward": 2, "clock_ms": 30.0, "start": 1, "positions": second, "rows": 9}
        | {"groups": [[[2, 0.1], [2, 0.1]], [[5, 0.8], [6, 0.8]], [[6, 0.3], [6, 0.2]]]},
        block
        | {"forward": 3, "clock_ms": 40.0, "start": 3, "positions": third, "rows": 9, "finish": "length"}
        | {"groups": [[[2, 0.1], [2, 0.1]], [[5, 0.8], [6, 0.8]], [[6, 0.3], [6, 0.2]]]},
    ]
    trace["request"] |= {"draft": "quadratic", "block_length": 3}
    return trace


def tree() -> dict:
    """A forward without drafts, then one over five candidates of which two are accepted; its second group goes on."""
    trace = quadratic()

    def at(index: int, token: int, state: str, **more) -> dict:
        return {"index": index, "token": token, "state": state, "confidence": 0.8} | more

    block = {"phase": "verify"}
    first = [at(1, 2, "bonus"), at(2, 3, "drafted"), at(3, 4, "drafted")]
    second = [at(2, 3, "accepted"), at(3, 4, "accepted"), at(4, 5, "corrected")]
    second.insert(2, at(4, 6, "rejected", verifier=5))
    nodes = {"tree": [[3, 0.6], [4, 0.7], [6, 0.3], [2, 0.2], [6, 0.9]], "parents": [0, 1, 0, 1, 2]}
    trace["lanes"][1]["events"][1:] = [
        block | {"forward": 1, "clock_ms": 20.0, "start": 0, "length": 1, "positions": first, "rows": 4, "behind": [0]},
        block
        | {"forward": 2, "clock_ms": 30.0, "start": 1, "length": 4, "positions": second, "rows": 10, "behind": [1, 2]}
        | nodes
        | {"groups": [[[2, 0.5]], [[5, 0.8]]], "expected": 2.4, "finish": "length"},
    ]
    trace["request"] |= {"draft": "tree", "block_length": 3}
    return trace
