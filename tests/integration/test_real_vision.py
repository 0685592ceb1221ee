"""What the default checkpoint sees: held-out drawings are answered rightly, in three modes, and text as before."""

import json
import random
import subprocess
import sys

import pytest

from nemodiff.checkpoints.catalogue import DEFAULT
from nemodiff.engine.loading import load
from nemodiff.engine.local import Engine
from nemodiff.examples import PICTURES
from nemodiff.pictures import Picture, open_picture
from nemodiff.request import Request
from nemodiff.tasks.drawings.free_scenes import free_scene
from nemodiff.tasks.drawings.questions import REFUSAL, is_right, questions_of
from nemodiff.tasks.drawings.scenes import FOREIGN, KINDS, scene
from ui.page.picture_slot import IMAGES


@pytest.fixture(scope="module")
def seeing() -> Engine:
    return load(DEFAULT)


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


def test_drawings_placed_freely_are_mostly_answered_and_seldom_refused(seeing):
    right, refused, asked = 0, 0, 0
    for kind in KINDS:
        for seed in range(4):
            one = free_scene(kind, f"test {seed}", held_out=True)
            question = questions_of(one, random.Random(seed))[0]
            request = Request(prompt=question.text, images=(Picture.of(one.image),), modes=("ar",), max_new_tokens=48)
            said = seeing.generate(request).lanes[0].text
            asked += 1
            right += is_right(question.topic, said, question.answer)
            refused += said.strip() == REFUSAL
    assert right >= 0.5 * asked and refused <= 1


def test_foreign_pictures_are_refused(seeing):
    refused = []
    for seed in range(12):
        one = free_scene(FOREIGN, f"test {seed}", held_out=True)
        question = random.Random(seed).choice(questions_of(one, random.Random(seed)))
        request = Request(prompt=question.text, images=(Picture.of(one.image),), max_new_tokens=32, alternatives=0)
        refused.append([lane.text.strip() == REFUSAL for lane in seeing.generate(request).lanes])
    assert sum(map(all, refused)) >= 10


def test_text_is_the_text_weights_own(seeing):
    """The tower is loaded by now, with its update of the weights: text has the bits of an engine that never saw."""
    one = Picture.of(scene("shapes", "text", held_out=True).image)
    question = Request(prompt="What is in the picture?", images=(one,), modes=("ar",), max_new_tokens=8)
    request = Request(prompt="Name three fruits.", max_new_tokens=24)
    before = seeing.generate(question)
    told, fresh = seeing.generate(request), load(DEFAULT).generate(request)
    assert [lane.tokens for lane in told.lanes] == [lane.tokens for lane in fresh.lanes]
    chances = [
        [[position.confidence for position in event.positions] for lane in trace.lanes for event in lane.events]
        for trace in (told, fresh)
    ]
    assert chances[0] == chances[1]
    assert seeing.generate(question).lanes[0].tokens == before.lanes[0].tokens


def test_the_tower_may_be_loaded_at_once():
    late, early = (load(DEFAULT, lazy_sight=lazy).weight_bytes for lazy in (True, False))
    assert late < early < 2.2 * late


def test_the_pages_pictures_are_answered(seeing):
    """A picture larger than the tower's is shrunk to it."""
    said = {}
    for name, question in PICTURES.items():
        one = open_picture((IMAGES / f"{name}.png").read_bytes())
        assert max(one.width, one.height) > 80
        request = Request(prompt=question, images=(one,), modes=("ar",), max_new_tokens=64, alternatives=0)
        said[name] = seeing.generate(request).lanes[0].text.strip()
    assert said == {
        "shapes": "There is a small black circle, a small green square and a large blue circle.",
        "bars": "The green bar is the tallest.",
        "word": "The word is H-A-W-K.",
        "digit": "The digit is 8.",
    }


def test_the_command_line_looks_at_a_picture():
    command = [sys.executable, "-m", "nemodiff", "generate", "--checkpoint", DEFAULT, "--mode", "all", "--json"]
    command += ["--image", str(IMAGES / "bars.png"), "--prompt", PICTURES["bars"], "--max-new-tokens", "32"]
    lanes = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["lanes"]
    assert set(lanes) == {"ar", "diffusion", "self-speculation"}
    assert lanes["self-speculation"]["tokens"] == lanes["ar"]["tokens"] and "bar" in lanes["ar"]["text"]
