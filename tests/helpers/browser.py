"""Driving a real browser on a real app."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, Playwright, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

ROOT = Path(__file__).parents[2]
BRIDGE = Path(__file__).with_name("bidi_bridge.py")


FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium() -> str | None:
    """The shell first, which has no windows and menus to draw: it opens the page in about half the time."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def find_firefox() -> str | None:
    return os.environ.get("FIREFOX") or next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)


@contextlib.contextmanager
def launch(playwright: Playwright, name: str) -> Iterator[Browser]:
    """A headless browser of this machine: chromium or firefox. In Firefox motion is reduced whatever a context asks
    for, and a tap is a click: Playwright has neither for it."""
    path = {"chromium": find_chromium, "firefox": find_firefox}[name]()
    if not path:
        pytest.fail(f"{name.title()} is missing: install it with apt-get, or name it in ${name.upper()}.")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if name == "chromium":
            browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        else:
            starter = Path(folder) / "firefox"
            starter.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{BRIDGE}" "{path}" "$@"\n', encoding="utf-8")
            starter.chmod(0o700)
            patch.setattr(Locator, "tap", Locator.click)
            browser = playwright.firefox.launch(
                channel="moz-firefox", executable_path=starter, firefox_user_prefs={"ui.prefersReducedMotion": 1}
            )
        yield browser
        browser.close()


@contextlib.contextmanager
def running(log: Path, settings: dict[str, str], port: int = 0, kill: bool = False) -> Iterator[str]:
    """The address of app.py, started with these environment variables; its output goes to `log`. kill: at the end, in
    place of asking it to end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = port or probe.getsockname()[1]
    environment = os.environ | {
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "NEMODIFF_TOUR": "0",
    }
    environment.pop("OMP_NUM_THREADS", None)  # on one thread the small model ends before a test's Stop
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=environment | settings, stdout=output, stderr=subprocess.STDOUT
        )
    address = f"http://127.0.0.1:{port}"
    try:
        while not _answers(address):
            try:
                server.wait(0.25)
                pytest.fail(f"app.py ended at once:\n{log.read_text(encoding='utf-8')[-2000:]}")
            except subprocess.TimeoutExpired:
                continue
        yield address
    finally:
        (server.kill if kill else server.terminate)()
        server.wait(20)


def fill_field(page: Page, name: str, value: str) -> None:
    """Type into a numeric field of the form, again where the field was drawn anew beneath the typing: a section that
    has just been opened does so."""
    before = page.evaluate(HELD)
    for _ in range(20):
        page.locator(f"#{name} input").fill(value)
        with contextlib.suppress(PlaywrightTimeoutError):
            page.wait_for_function(f"(before) => ({HELD})() !== before", arg=before, timeout=1000)
            return
    pytest.fail(f"The field {name} does not take {value!r}.")


#: What the page itself holds of its fields: it changes with every value that arrives.
HELD = "() => JSON.stringify(window.nemodiff?.fields)"


def _answers(address: str) -> bool:
    """Whether the page is there and its model's load has ended, well or badly."""
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return bool(answer)
    except urllib.error.HTTPError as error:
        return json.loads(error.read())["status"] != "loading"
    except (urllib.error.URLError, OSError):
        return False


def metric(address: str, sample: str) -> float:
    """What /metrics says of a sample; 0 where it does not stand there."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(f"{sample} ")), 0.0)


def wait_for_metric(address: str, sample: str, value: float) -> None:
    """Wait until /metrics says so."""
    for _ in range(PATIENCE // 100):
        if metric(address, sample) == value:
            return
        threading.Event().wait(0.1)
    pytest.fail(f"{sample} is {metric(address, sample)}, not {value}")


PATIENCE = 180_000  # ms: the machine that runs this may be busy


def take_away(page: Any, name: str) -> None:
    """Choose an entry of the stage's menu, by its name: what it downloads is the caller's to expect."""
    page.get_by_role("button", name="Take it away").click()
    page.get_by_role("menuitem", name=name).click()


SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])


def findings(page: Page) -> list[str]:
    """Serious and critical violations, a line each: rule, how it fails, the element."""
    result = Axe().run(page, options={"resultTypes": ["violations"]}).response
    assert result["testEngine"]["name"] == "axe-core"
    return [
        f"{rule['id']} ({rule['impact']}): {node['html'][:160]} | {node['failureSummary'][:240]}"
        for rule in result["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


def pick(page: Page, title: str) -> None:
    page.locator("#checkpoint .chip").click()
    page.locator("#checkpoint li > button", has_text=title).click()


def ask(
    page: Page, prompt: str, blocks: str, thresholds: str, tokens: int, drafts: Sequence[str] = ("linear",)
) -> None:
    """Fill in what Compare is to measure: one example prompt, or none, and these values."""
    for label in page.locator("#sweep-prompts label.selected").all_inner_texts():
        page.get_by_label(label, exact=True).uncheck()
    if prompt:
        page.get_by_label(prompt, exact=True).check()
    for draft in ("linear", "quadratic", "tree"):
        page.locator("#sweep-drafts").get_by_label(draft, exact=True).set_checked(draft in drafts)
    page.locator("#sweep-blocks input").fill(blocks)
    page.locator("#sweep-thresholds input").fill(thresholds)
    page.locator("#sweep-tokens input").fill(str(tokens))


def ingest(page: Page, trace: dict) -> None:
    page.evaluate("text => window.stage.ingest(text)", json.dumps({"kind": "replay", "run": "r", "trace": trace}))
    expect(page.locator("#stage")).to_have_attribute("data-cursor", "4")


def token(page: Page, mode: str, index: int) -> Locator:
    return page.locator(f'[data-lane="{mode}"] .t[data-index="{index}"]:not([data-state="rejected"])')


def seek(page: Page, cursor: int) -> None:
    page.evaluate("cursor => { window.stage.transport.seek(cursor) }", cursor)
    expect(page.locator("#stage")).to_have_attribute("data-cursor", str(cursor))


def download(page: Page, name: str, folder: Path) -> Path:
    """The file that an entry of the menu "Take it away" saves, in `folder`."""
    with page.expect_download() as pending:
        take_away(page, name)
    path = folder / pending.value.suggested_filename
    pending.value.save_as(path)
    return path
