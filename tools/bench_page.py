"""How fast the stage is: `python -m tools.bench_page`. Prints figures and asserts nothing.

Three lanes of 512 tokens are fed to the stage at 100 events a second, as a live run's batches, in headless Chromium:
once into the bare stage, once through the real page, whose engine is then a recording that plays at that rate. Lag is
from an event's arrival to the end of the frame that shows it. A scrub is one jump to a random place; its time includes
the wait for the next frame, its work is the main thread's part alone. Before that the page is opened a few times with
an empty cache.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import statistics
import time
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, ClassVar

from playwright.sync_api import Browser, Page, sync_playwright

from nemodiff.engine.interface import Bounds, Defaults, EngineInterface
from nemodiff.errors import RequestError
from nemodiff.request import Request
from nemodiff.trace import player
from nemodiff.trace.events import MODES, SCHEMA, Event, Trace
from nemodiff.trace.oracle import Progress
from nemodiff.trace.recorder import Recorder
from tests.helpers.browser import FLAGS, find_chromium
from ui.page import build
from ui.settings import Settings

LENGTH, BLOCK, RATE, BATCH_MS = 512, 8, 100, 40
WORDS = [" the", " of", " model", ",", " token", "\n", " forward", ".", " a", " block", "ing", " 12", " draft", "    "]

PROBE = """
const later = (then) => { // after the frame that follows: its scripts, its layout and its painting are then done
  const channel = new MessageChannel();
  channel.port1.onmessage = () => then(performance.now());
  requestAnimationFrame(() => channel.port2.postMessage(0));
};
const bench = { lags: [], frames: [], on: false };
bench.watch = () => {
  bench.on = true;
  const tick = (now) => { if (bench.on) { bench.frames.push(now); requestAnimationFrame(tick); } };
  requestAnimationFrame(tick);
};
bench.arrived = () => { const at = performance.now(); later((now) => bench.lags.push(now - at)); };
bench.jump = (scrub, to) => new Promise((done) => {
  const asked = performance.now();
  let began = 0;
  requestAnimationFrame(() => (began = performance.now()));
  scrub.value = to;
  scrub.dispatchEvent(new Event("input"));
  later((now) => done([now - asked, now - began]));
});
window.bench = bench;
"""
#: Times since the visit began, in ms, and what came by kind: [files, bytes sent, bytes unpacked].
OPENING = """() => {
  const kinds = {};
  for (const entry of performance.getEntriesByType("navigation").concat(performance.getEntriesByType("resource"))) {
    const path = new URL(entry.name).pathname;
    const named = { js: "scripts", css: "styles" }[path.split(".").at(-1)] || "the rest";
    const kind = entry.entryType === "navigation" ? "the document" : named;
    const sum = (kinds[kind] ||= [0, 0, 0]);
    sum[0] += 1;
    sum[1] += entry.transferSize;
    sum[2] += entry.decodedBodySize;
  }
  const painted = performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? 0;
  return { painted, ready: performance.now(), kinds };
}"""


def made_run(seed: int = 0) -> Trace:
    """Three lanes whose lengths are those of a real run: about 2 tokens per diffusion forward, 4 per cycle."""
    dice = random.Random(seed)
    tokens = [dice.randrange(len(WORDS)) for _ in range(LENGTH)]
    lanes: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}

    def position(index: int, state: str, token: int | None = None) -> dict[str, Any]:
        token = tokens[index] if token is None else token
        others = [[(token + i) % len(WORDS), round(0.2 / (i + 1), 3)] for i in range(5)]
        return {"index": index, "token": token, "state": state, "confidence": round(dice.random(), 3), "top": others}

    def event(mode: str, phase: str, start: int, length: int, positions: list[dict[str, Any]]) -> None:
        forward = len(lanes[mode])
        common = {"forward": forward, "phase": phase, "clock_ms": 20.0 * (forward + 1)}
        lanes[mode].append(common | {"start": start, "length": length, "positions": positions})

    for i in range(LENGTH):
        event("ar", "decode" if i else "prefill", i, 1, [position(i, "committed")])
    event("diffusion", "prefill", 0, 1, [position(0, "seed")])
    for start in range(0, LENGTH, BLOCK):
        waiting = list(range(start + (start == 0), start + BLOCK))
        while waiting:
            taken = set(dice.sample(waiting, min(len(waiting), dice.randint(1, 3))))
            guesses = [position(i, "masked", dice.randrange(len(WORDS))) for i in waiting if i not in taken]
            event("diffusion", "denoise", start, BLOCK, [*guesses, *(position(i, "committed") for i in taken)])
            waiting = [i for i in waiting if i not in taken]
    event("self-speculation", "prefill", 0, 1, [position(0, "seed")])
    at = 1
    while at < LENGTH:
        wrong = min(LENGTH, at + dice.randint(1, BLOCK - 1)) - 1
        drafts = [position(i, "drafted") for i in range(at, min(LENGTH, at + BLOCK - 1))]
        drafts[wrong - at]["token"] = (tokens[wrong] + 1) % len(WORDS)
        event("self-speculation", "draft", at, BLOCK, drafts)
        verdicts = [position(i, "accepted") for i in range(at, wrong)]
        verdicts.append(drafts[wrong - at] | {"state": "rejected", "verifier": tokens[wrong]})
        event("self-speculation", "verify", at, BLOCK, [*verdicts, position(wrong, "corrected")])
        at = wrong + 1
    return Trace.from_json(
        json.dumps(
            {
                "schema": SCHEMA,
                "checkpoint": Recording.checkpoint,
                "request": {"prompt": "A benchmark", "modes": MODES, "block_length": BLOCK, "threshold": 0.9},
                "tokens": {str(i): word for i, word in enumerate(WORDS)},
                "lanes": [
                    {"mode": mode, "events": events, "tokens": tokens, "finish": "length"}
                    for mode, events in lanes.items()
                ],
            }
        )
    )


def in_turn(run: Trace) -> Iterator[Event]:
    """The lanes' events, one of each at a time."""
    return (event for row in zip_longest(*(lane.events for lane in run.lanes)) for event in row if event)


class Recording(EngineInterface):
    """An engine for the page that plays a made run at RATE; there is no model in it."""

    checkpoint, device, dtype, attention = "made for the benchmark", "no device", "none", "none"
    versions: ClassVar = {}
    defaults = Defaults(BLOCK, 0.9)
    exact, bounds = True, Bounds(len(WORDS), 2 * LENGTH, 0, False)

    def __init__(self) -> None:
        self.run = made_run()

    def encode(self, request: Request) -> list[int]:
        return [1]

    def settle(self) -> None:
        """Nothing is computed here."""

    def close(self) -> None:
        """Nothing is held."""

    def ceiling(self, request: Request, budget: int | None = None) -> Iterator[Progress | None]:
        raise RequestError("A made run has no ceiling.")

    def recorder(self, request: Request) -> Recorder:
        head = dataclasses.replace(self.run, lanes=[], vocabulary={})
        return Recorder(head, MODES, lambda ids: "".join(WORDS[i] for i in ids), WORDS.__getitem__)

    def stream(self, request: Request) -> Iterator[Event]:
        began = time.monotonic()
        for number, event in enumerate(in_turn(self.run)):
            time.sleep(max(0, began + number / RATE - time.monotonic()))
            yield event


def payloads(run: Trace) -> list[str]:
    """The run as a server sends it: batches of BATCH_MS, then the end."""
    wires = [{"q": q, "mode": event.mode, **event.to_json()} for q, event in enumerate(in_turn(run), 1)]
    size = RATE * BATCH_MS // 1000
    batches = [{"run": "r", "ev": wires[i : i + size]} for i in range(0, len(wires), size)]
    batches[0] |= {"head": run.head(), "tokens": run.vocabulary}
    batches.append({"run": "r", "ev": [], "end": {"finish": dict.fromkeys(MODES, "length"), "events": len(wires)}})
    return [json.dumps(batch) for batch in batches]


def bare_stage(browser: Browser) -> Page:
    page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
    page.set_content(player.template())
    page.add_style_tag(content=player.STYLE.read_text(encoding="utf-8"))
    page.add_script_tag(content=player.script() + PROBE + "window.stage = mount(document.getElementById('stage'));")
    page.evaluate(
        """([payloads, pause]) => {
          bench.watch();
          let sent = 0;
          const began = performance.now();
          const send = () => {
            while (sent < payloads.length && sent * pause <= performance.now() - began) {
              bench.arrived();
              window.stage.ingest(payloads[sent++]);
            }
            if (sent < payloads.length) setTimeout(send, 4);
          };
          send();
        }""",
        [payloads(made_run()), BATCH_MS],
    )
    return page


@contextlib.contextmanager
def served() -> Iterator[str]:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    demo = build.build(Recording(), Settings(max_new_tokens=LENGTH, tour=False))
    demo.queue()
    _, address, _ = demo.launch(
        prevent_thread_lock=True, quiet=True, theme=build.theme(), css_paths=build.STYLES, ssr_mode=False
    )
    try:
        yield address
    finally:
        demo.close()


def opening(browser: Browser, address: str, times: int = 5) -> None:
    """What opening the page takes with an empty cache: the middle of a few visits."""
    visits = []
    for _ in range(times):
        page = browser.new_context(viewport={"width": 1400, "height": 1000}, reduced_motion="reduce").new_page()
        page.goto(address)
        page.wait_for_selector('#stage[data-state="replay"]')
        visits.append(page.evaluate(OPENING))
        page.context.close()
    painted, ready = (statistics.median(visit[name] for visit in visits) for name in ("painted", "ready"))
    print(f"  first contentful paint {painted:.0f} ms, a recording on the stage {ready:.0f} ms")
    for kind, (count, sent, size) in visits[0]["kinds"].items():
        print(f"  {kind}: {count} files, {sent / 1e6:.2f} MB sent, {size / 1e6:.2f} MB unpacked")


def real_page(browser: Browser, address: str) -> Page:
    page = browser.new_context(viewport={"width": 1400, "height": 1000}, reduced_motion="reduce").new_page()
    page.goto(address)
    page.wait_for_selector('#stage[data-state="replay"]')
    page.locator("#max-new-tokens input").fill(str(LENGTH))
    page.evaluate(PROBE)
    # An event arrives when the stage is told of it: its cursor then moves in the next frame.
    page.evaluate(
        """() => {
          const parse = JSON.parse;
          JSON.parse = (text) => {
            const data = parse(text);
            if (data?.ev?.length) bench.arrived();
            return data;
          };
          bench.watch();
        }"""
    )
    page.locator("#generate").click()
    page.wait_for_selector('#stage[data-state="live"]')
    page.evaluate("() => { bench.frames.length = 0 }")
    return page


def measure(page: Page, jumps: int, seed: int = 1) -> None:
    page.wait_for_selector('#stage[data-state="done"]', timeout=120_000)
    frames, lags = page.evaluate("() => { bench.on = false; return [bench.frames, bench.lags] }")
    gaps = [b - a for a, b in zip(frames, frames[1:], strict=False)]
    total = int(page.locator("#stage").get_attribute("data-total"))
    lost = page.locator("#stage").get_attribute("data-gaps")
    print(f"  live: {1000 / statistics.mean(gaps):.1f} fps, longest frame {max(gaps):.0f} ms, {lost} gaps")
    print(f"  event to paint: {spread(lags)}")
    dice = random.Random(seed)
    places = [dice.randint(0, total) for _ in range(jumps)]
    times = page.evaluate(
        """async (places) => {
          const scrub = document.querySelector("#stage .scrub");
          const times = [];
          for (const place of places) times.push(await bench.jump(scrub, place));
          return times;
        }""",
        places,
    )
    print(f"  {jumps} random jumps: {spread([whole for whole, _ in times])}")
    print(f"  their work: {spread([work for _, work in times])}")


def spread(times: list[float]) -> str:
    ranks = statistics.quantiles(times, n=100)
    return f"p50 {ranks[49]:.1f} ms, p95 {ranks[94]:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast the stage is.")
    parser.add_argument("--jumps", type=int, default=200)
    parser.add_argument("--slowed", type=float, default=1, help="slow the page's processor down by this factor")
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        print(f"{LENGTH} tokens per lane, {RATE} events a second; load of this machine {os.getloadavg()[0]:.1f}")
        print("the stage alone")
        page = bare_stage(browser)
        if arguments.slowed != 1:
            page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": arguments.slowed})
        measure(page, arguments.jumps)
        print("the page")
        with served() as address:
            opening(browser, address)
            measure(real_page(browser, address), arguments.jumps)
        browser.close()


if __name__ == "__main__":
    main()
