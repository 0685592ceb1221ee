"""The bundled checkpoint that sees: held-out drawings are answered rightly, in three modes."""

import json
import random
import subprocess
import sys

import pytest

from nemodiff.checkpoints.catalogue import SEEING
from nemodiff.engine.loading import load
from nemodiff.engine.local import Engine
from nemodiff.examples import PICTURES
from nemodiff.pictures import Picture, open_picture
from nemodiff.request import Request
from nemodiff.tasks.drawings.questions import questions_of
from nemodiff.tasks.drawings.scenes import KINDS, scene
from ui.page.picture_slot import IMAGES


@pytest.fixture(scope="module")
def seeing() -> Engine:
    return load(SEEING)


def test_held_out_drawings_are_answered(seeing):
    right, asked = 0, 0
    for kind in KINDS:
        for seed in range(4):
            one = scene(kind, f"test {seed}", held_out=True)
            question = questions_of(one, random.Random(seed))[0]  # the kind's own: how many, which digit …
            request = Request(prompt=question.text, images=(Picture.of(one.image),), max_new_tokens=32, alternatives=0)
            trace = seeing.generate(request)
            assert trace.lane("self-speculation").tokens == trace.lane("ar").tokens
            assert trace.lane("diffusion").text.strip()
            asked += 1
            right += trace.lane("ar").text.strip() == question.answer
    assert right >= 0.75 * asked


def test_the_pages_pictures_are_answered(seeing):
    """A picture larger than the tower's is shrunk to it."""
    said = {}
    for name, question in PICTURES.items():
        one = open_picture((IMAGES / f"{name}.png").read_bytes())
        assert max(one.width, one.height) > 80
        request = Request(prompt=question, images=(one,), modes=("ar",), max_new_tokens=64, alternatives=0)
        said[name] = seeing.generate(request).lanes[0].text.strip()
    assert "tallest" in said["bars"] and said["digit"].startswith("The digit is ") and "-" in said["word"]
    assert json.loads(said["shapes"])[0].keys() == {"size", "color", "shape"}


def test_the_command_line_looks_at_a_picture():
    command = [sys.executable, "-m", "nemodiff", "generate", "--checkpoint", SEEING, "--mode", "all", "--json"]
    command += ["--image", str(IMAGES / "bars.png"), "--prompt", PICTURES["bars"], "--max-new-tokens", "32"]
    lanes = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["lanes"]
    assert set(lanes) == {"ar", "diffusion", "self-speculation"}
    assert lanes["self-speculation"]["tokens"] == lanes["ar"]["tokens"] and "bar" in lanes["ar"]["text"]
