"""A setting is added in one place: with a line more in nemodiff/settings.py it is everywhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEW = """
    sparkle: int = declare(
        3, Whole(0, 9), "how much it sparkles", label="much sparkle", key="sp", of=("sampler", ("confidence",))
    )
"""
LOOK = """
import argparse, json
from pathlib import Path
import nemodiff
from gradio.mcp import GradioMCPServer
from nemodiff.cli import generate, options
from nemodiff.errors import NemodiffError
from nemodiff.settings import table
from ui import api, values
from ui.live.models import Checkpoints
from ui.page import build, permalink
from ui.settings import Settings

def said(act):
    try:
        return act()
    except NemodiffError as error:
        return str(error)

def command(*more):
    parser = argparse.ArgumentParser()
    generate.add_parser(parser.add_subparsers())
    return generate._request(parser.parse_args(["generate", "--prompt", "x", *more])).sparkle

def trace(value):
    request = nemodiff.Request(prompt="x").to_json() | {"sparkle": value}
    lane = {"mode": "ar", "events": [], "tokens": []}
    head = {"schema": "nemodiff.trace/1", "checkpoint": "made", "request": request, "lanes": [lane]}
    return nemodiff.Trace.from_json(json.dumps(head)).request["sparkle"]

page = build.build(None, Settings(recordings=Path("none")), problem="There is no model.")
field = next(one["props"] for one in page.config["components"] if one["props"].get("elem_id") == "sparkle")
parameters = page.get_api_info()["named_endpoints"]["/generate"]["parameters"]
tools = GradioMCPServer(page)
described = tools.get_fn_description(tools.get_block_fn_from_endpoint_name("/generate"), "generate")[1]
wrong, defaults = permalink.read({"sp": "10"})[1], [None] * len(permalink.FIELDS)
print(json.dumps({
    "request": [nemodiff.Request(prompt="x").sparkle, said(lambda: nemodiff.Request(prompt="x", sparkle=99))],
    "command": [said(lambda: command("--sparkle", "4")), said(lambda: command("--sparkle", "4", "--sampler", "fixed"))],
    "field": [field["label"], field["value"]],
    "link": [permalink.read({"sp": "5"})[0], wrong, permalink.query(["x", *defaults[1:-1], 7], defaults)],
    "words": [values.NAMES["sparkle"], permalink.LABELS["sp"]],
    "api": [api.NAMES[-1], parameters[-1]["parameter_name"], parameters[-1]["parameter_default"]],
    "mcp": tools.get_input_schema("generate", described)[0]["properties"]["sparkle"],
    "trace": [said(lambda: trace(5)), said(lambda: trace("much"))],
    "docs": "how much it sparkles (sampler confidence)" in table(),
}))
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """This repository with the new setting, and nothing else changed."""
    (tmp_path / "nemodiff").mkdir()
    for path in (ROOT / "nemodiff").iterdir():
        if path.suffix == ".py":
            shutil.copy(path, tmp_path / "nemodiff")
        elif path.is_dir():
            (tmp_path / "nemodiff" / path.name).symlink_to(path)
    for name in ("ui", "assets"):
        (tmp_path / name).symlink_to(ROOT / name)
    file = tmp_path / "nemodiff" / "settings.py"
    before, settings_of, after = file.read_text(encoding="utf-8").partition("\n\ndef settings_of")
    file.write_text(before + NEW + settings_of + after, encoding="utf-8")
    return tmp_path


def test_a_setting_that_is_declared_once_is_everywhere(tree: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", LOOK], cwd=tree, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["request"] == [3, "sparkle must be a whole number from 0 to 9, not 99."]
    assert found["command"] == [4, "--sampler fixed does not use --sparkle: leave it out."]
    assert found["field"] == ["much sparkle", 3]
    assert found["link"] == [{"sp": 5}, ["sp"], "prompt=x&sp=7"]
    assert found["words"] == ["much sparkle", "much sparkle"]
    assert found["api"] == ["sparkle", "sparkle", 3]
    assert found["mcp"]["type"] == "integer" and found["mcp"]["description"].startswith("how much it sparkles")
    assert found["trace"][0] == 5 and "request.sparkle" in found["trace"][1]
    assert found["docs"]
