"""`python -m nemodiff show`: files in the browser with no model; what cannot be shown is one sentence."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemodiff.cli import show
from nemodiff.cli.main import main
from nemodiff.trace.events import Trace
from nemodiff.trace.replay import embedded, replay_html, side_by_side
from tests.helpers.traces import three_lanes
from ui.page import files

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(three_lanes()), encoding="utf-8")
    return path


def frames(page: str) -> list[str]:
    return [html.unescape(inside) for inside in re.findall(r'srcdoc="([^"]*)"', page)]


def test_one_file_is_the_replay(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run.html"
    assert main(["show", str(run), "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8") == replay_html(Trace.from_json(run.read_bytes()))
    assert "open it in a browser" in capsys.readouterr().err


def test_several_stand_side_by_side_under_one_policy(run: Path, tmp_path: Path) -> None:
    hostile = tmp_path / '"><script>x'
    hostile.write_bytes(run.read_bytes())
    out = tmp_path / "both.html"
    assert main(["show", str(run), str(hostile), "--out", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    outside = re.sub(r'srcdoc="[^"]*"', "", page)
    assert outside.count("<script") == 1 and "&quot;&gt;&lt;script&gt;x" in outside
    assert frames(page) == [replay_html(Trace.from_json(run.read_bytes()))] * 2
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', outside)
    inside = re.search(r"script-src ('sha256-[^']*')", frames(page)[0])
    assert policy and inside and inside[1] in policy[1] and policy[1].startswith("default-src 'none'")
    assert outside.count('sandbox="allow-scripts allow-downloads"') == 2


def test_a_notebook_and_a_page_get_a_frame_of_its_own(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = Trace.from_json(run.read_bytes())
    trace.vocabulary[1] = '"></iframe><script>alert(1)</script>'
    shown = trace._repr_html_()
    assert shown == str(trace.show()) == embedded(trace, 900).html
    assert shown.count("<iframe") == 1 and "<script" not in shown and shown.endswith("></iframe>")
    assert "height: 500px" in str(trace.show(height=500)) and "allow-same-origin" not in shown
    assert frames(shown) == [replay_html(trace)]
    assert main(["show", str(run), "--embed"]) == 0
    assert capsys.readouterr().out.strip() == str(Trace.from_json(run.read_bytes()).show())
    form, made = files.make("embed", run.read_text(encoding="utf-8"))
    assert form.ending == "embed.html" and made.decode() == str(Trace.from_json(run.read_bytes()).show())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.json"], "There is no file at none.json."),
        (["bad.json"], "bad.json: The file is not a nemodiff.trace/1 trace: schema is missing or not as expected."),
        (["text.txt"], "text.txt: The file is not a trace: it holds no valid JSON."),
        (["."], ".: The file could not be read"),
        (["run.json", "bad.json"], "bad.json: The file is not"),
        (["run.json", "--out", "no/such/folder.html"], "could not be written to no/such/folder.html"),
        (["run.json", "--out", "a.html", "--port", "5"], "--out does not use --port"),
        (["run.json", "run.json", "--embed"], "--embed takes one file"),
        (["run.json"] * 7, "Up to 6 runs are shown side by side, not 7"),
        (["\0"], "There is no file at"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(run.parent)
    Path("bad.json").write_text('{"schema": "other/1"}', encoding="utf-8")
    Path("text.txt").write_text("hello", encoding="utf-8")
    assert main(["show", *arguments]) == 2
    sentence = capsys.readouterr().err
    assert says in sentence and sentence.count("\n") == 1


@pytest.fixture
def served(run: Path) -> Iterator[str]:
    """The address of `show`, as its own process prints it."""
    command = [sys.executable, "-m", "nemodiff", "show", str(run), "--no-browser"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[0]
        process.terminate()


def fetch(address: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_file_is_served_anew_with_every_load(served: str, run: Path) -> None:
    assert served.startswith("http://127.0.0.1:")
    assert fetch(served) == (200, replay_html(Trace.from_json(run.read_bytes())))
    run.write_text("<script>", encoding="utf-8")
    status, page = fetch(served)
    assert status == 200 and "holds no valid JSON." in page and "<script" not in page
    assert fetch(f"{served}etc/passwd")[0] == 404
    assert fetch(served, Host="rebound.example")[0] == 403
    assert fetch(served, Host="localhost:1")[0] == 200


def test_a_port_that_is_taken_is_one_sentence(served: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = served.rstrip("/").rpartition(":")[2]
    assert main(["show", str(run), "--port", port, "--no-browser"]) == 2
    assert f"Port {port} of 127.0.0.1 cannot be used" in capsys.readouterr().err


def test_side_by_side_names_its_runs_as_text(run: Path) -> None:
    trace = Trace.from_json(run.read_bytes())
    page = side_by_side([("<b>", trace), ("b", trace)])
    assert "<title>&lt;b&gt;, b · nemodiff</title>" in page and "<b>" not in re.sub(r'srcdoc="[^"]*"', "", page)
    assert show.MOST >= 2
