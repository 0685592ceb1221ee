"""Firefox, by Playwright, and WebKit, by Selenium and Debian's WebKitWebDriver, behind the few verbs that a test of the
page needs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Browser, Page

from tests.helpers.browser import PATIENCE

MINIBROWSERS = "webkit2gtk-4.1/MiniBrowser"
WIDE, NARROW = (1400, 1000), (390, 844)

#: Errors as the page meets them, for a driver that hears of none.
LISTEN = """
if (!location.protocol.startsWith("http") || location.pathname === "/health") return false;
if (window.failures) return true;
window.failures = [];
addEventListener("error", (event) => event.message && failures.push(event.message));
addEventListener("unhandledrejection", (event) => failures.push(String(event.reason)));
const tell = console.error;
console.error = (...all) => { failures.push(all.map(String).join(" ")); tell(...all); };
return true;
"""


class Visitor(ABC):
    """Somebody before the page: what can be seen is an expression of JavaScript."""

    version: str
    folder: Path

    @abstractmethod
    def open(self, address: str, narrow: bool = False) -> None: ...

    @abstractmethod
    def see(self, expression: str): ...

    @abstractmethod
    def click(self, selector: str) -> None: ...

    @abstractmethod
    def fill(self, selector: str, text: str) -> None: ...

    @abstractmethod
    def press(self, key: str) -> None: ...

    @abstractmethod
    def failures(self) -> list[str]: ...

    def until(self, expression: str) -> None:
        """Wait until this holds."""
        for _ in range(PATIENCE // 100):
            if self.see(expression):
                return
            threading.Event().wait(0.1)
        pytest.fail(f"It does not come to this: {expression}; errors: {self.failures()}")

    def download(self, selector: str) -> Path:
        """The file that a press of this saves."""
        before = set(self.folder.iterdir())
        self.click(selector)
        for _ in range(PATIENCE // 100):
            new = [path for path in set(self.folder.iterdir()) - before if path.suffix in (".json", ".html")]
            if new and new[0].stat().st_size:
                return new[0]
            threading.Event().wait(0.1)
        return pytest.fail(f"{selector} saves nothing")


class Firefox(Visitor):
    def __init__(self, browser: Browser, folder: Path) -> None:
        self.browser, self.folder, self.version = browser, folder, browser.version
        self.errors: list[str] = []
        self.page: Page | None = None

    def open(self, address: str, narrow: bool = False) -> None:
        self.close()
        width, height = NARROW if narrow else WIDE
        self.page = self.browser.new_context(viewport={"width": width, "height": height}).new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: said.type == "error" and self.errors.append(said.text))
        self.page.goto(address)

    def see(self, expression: str):
        return self.page.evaluate(expression)

    def click(self, selector: str) -> None:
        self.page.locator(selector).first.click()

    def fill(self, selector: str, text: str) -> None:
        self.page.locator(selector).fill(text)

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)

    def download(self, selector: str) -> Path:
        with self.page.expect_download() as pending:
            self.click(selector)
        path = self.folder / pending.value.suggested_filename
        pending.value.save_as(path)
        return path

    def failures(self) -> list[str]:
        return self.errors

    def close(self) -> None:
        if self.page:
            self.page.context.close()


def insist(act: Callable[[], Any]) -> Any:
    """What is still moved, covered or loaded is tried again, as Playwright does by itself."""
    from selenium.common.exceptions import WebDriverException

    for _ in range(100):
        with contextlib.suppress(WebDriverException):
            return act()
        threading.Event().wait(0.05)
    return act()


class WebKit(Visitor):
    def __init__(self, driver, folder: Path) -> None:
        self.driver, self.folder = driver, folder
        self.version = driver.capabilities["browserVersion"]
        driver.set_window_size(*WIDE)

    def open(self, address: str, narrow: bool = False) -> None:
        # By way of a page without scripts, where what the tab keeps of the last visit is forgotten.
        self.driver.get(urljoin(address, "/health"))
        self.until("location.pathname === '/health' && document.readyState === 'complete'")
        self.see("sessionStorage.clear()")
        if narrow:  # in a frame, since no window of MiniBrowser's is narrower than 447 px
            width, height = NARROW
            frame = f"<iframe src='{address}' width={width} height={height} style='border: 0'>"
            self.script("document.body.innerHTML = arguments[0]", frame)
            self.driver.switch_to.frame(0)
        else:
            self.driver.get(address)
        # The driver hears of no errors, so the page is asked to note them, as soon as it is there.
        for _ in range(PATIENCE // 10):
            if self.script(LISTEN):
                return
            threading.Event().wait(0.01)

    def script(self, body: str, *given):
        return insist(lambda: self.driver.execute_script(body, *given))

    def see(self, expression: str):
        return self.script(f"return {expression}")

    def click(self, selector: str) -> None:
        insist(lambda: self.driver.find_element("css selector", selector).click())

    def fill(self, selector: str, text: str) -> None:
        field = self.driver.find_element("css selector", selector)
        field.clear()
        field.send_keys(text)

    def press(self, key: str) -> None:
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.keys import Keys

        names = {"Home": Keys.HOME, "End": Keys.END, "ArrowRight": Keys.ARROW_RIGHT, "ArrowLeft": Keys.ARROW_LEFT}
        ActionChains(self.driver).send_keys(names[key]).perform()

    def failures(self) -> list[str]:
        return self.see("window.failures") or []


def find_webkit() -> tuple[str, str] | None:
    """WebKitWebDriver and the browser that it drives, where both are there and a display can be made."""
    browsers = sorted(Path("/usr/lib").glob(f"*/{MINIBROWSERS}"))
    driver = shutil.which("WebKitWebDriver")
    return (driver, str(browsers[0])) if driver and browsers and shutil.which("Xvfb") else None


@contextlib.contextmanager
def display() -> Iterator[str]:
    """A display that nobody looks at."""
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "1600x1200x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout
        yield f":{server.stdout.readline().strip()}"
        server.terminate()


@contextlib.contextmanager
def webkit(found: tuple[str, str], folder: Path) -> Iterator[WebKit]:
    """A WebKit whose settings and downloads lie in this folder; motion is reduced, by GTK's setting."""
    from selenium import webdriver
    from selenium.webdriver.webkitgtk.service import Service

    downloads, gtk = folder / "downloads", folder / "gtk-3.0" / "settings.ini"
    downloads.mkdir()
    gtk.parent.mkdir()
    gtk.write_text("[Settings]\ngtk-enable-animations=0\n", encoding="utf-8")
    (folder / "user-dirs.dirs").write_text(f'XDG_DOWNLOAD_DIR="{downloads}"\n', encoding="utf-8")
    options = webdriver.WebKitGTKOptions()
    options.binary_location = found[1]
    options.add_argument("--automation")
    options.page_load_strategy = "none"
    with display() as screen:
        environment = os.environ | {"DISPLAY": screen, "XDG_CONFIG_HOME": str(folder)}
        driver = webdriver.WebKitGTK(options=options, service=Service(found[0], env=environment))
        try:
            yield WebKit(driver, downloads)
        finally:
            driver.quit()
