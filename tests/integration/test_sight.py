"""A second model for prompts with pictures: loaded with the first one, and never met by text."""

import pytest
import torch
from PIL import Image

from nemodiff.checkpoints.catalogue import ASSETS, BASE, DEFAULT, current_name, resolve
from nemodiff.engine.loading import load
from nemodiff.engine.local import Engine
from nemodiff.engine.sight import Sight
from nemodiff.errors import CheckpointError, RequestError
from nemodiff.model.runner import Runner
from nemodiff.pictures import Picture
from nemodiff.request import Request
from tests.helpers.official import random_ministral, write_nvidia
from tests.helpers.released import FREQUENT
from tests.helpers.vlm import write_vlm

TEXT = Request(prompt="w20 w21 w22", max_new_tokens=12)


def picture(seed: int = 0) -> Picture:
    noise = torch.randint(0, 256, (24, 16, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Picture.of(Image.fromarray(noise.numpy()))


class Opener:
    """Loads the seeing model, and counts how often it was asked to."""

    def __init__(self, model: Runner, problem: str = "") -> None:
        self.model, self.problem, self.times = model, problem, 0

    def __call__(self) -> Runner:
        self.times += 1
        if self.problem:
            raise CheckpointError(self.problem)
        return self.model


@pytest.fixture(scope="module")
def seeing(tmp_path_factory) -> Engine:
    return load(str(write_vlm(tmp_path_factory.mktemp("vlm") / "m", tokenizer=True)), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Engine:
    """Other weights than those that see."""
    folder = write_nvidia(random_ministral(seed=9, frequent=FREQUENT), tmp_path_factory.mktemp("text") / "m")
    return load(str(folder), device="cpu", dtype="float32")


def both(text: Engine, seeing: Engine, problem: str = "") -> tuple[Engine, Opener]:
    opener = Opener(seeing.model, problem)
    sight = Sight(seeing.model.config.vision, opener)
    return Engine("both", text.model, seeing.tokenizer, seeing.defaults, sight=sight), opener


def tokens(engine: Engine, request: Request) -> dict[str, list[int]]:
    return {lane.mode: lane.tokens for lane in engine.generate(request).lanes}


def test_text_never_meets_the_seeing_weights(text, seeing):
    engine, opener = both(text, seeing)
    alone = Engine("alone", text.model, seeing.tokenizer, seeing.defaults)
    expected = tokens(alone, TEXT)
    assert engine.sees and not alone.sees
    assert tokens(engine, TEXT) == expected and opener.times == 0
    asked = Request(prompt="w20 w21 w22", images=(picture(),), max_new_tokens=12)
    assert tokens(engine, asked) == tokens(seeing, asked)
    assert tokens(engine, TEXT) == expected != tokens(seeing, TEXT)
    assert tokens(engine, asked) == tokens(seeing, asked) and opener.times == 1


@pytest.mark.parametrize("draft", ["linear", "quadratic", "tree"])
def test_every_draft_runs_in_the_seeing_weights(text, seeing, draft):
    engine, _ = both(text, seeing)
    asked = Request(prompt="w20", images=(picture(3),), max_new_tokens=9, draft=draft, modes=("ar", "self-speculation"))
    found = tokens(engine, asked)
    assert found == tokens(seeing, asked) and found["ar"] == found["self-speculation"]


def test_the_grid_is_known_before_anything_is_loaded(text, seeing):
    engine, opener = both(text, seeing)
    request = Request(prompt="w20", images=(picture(),))
    assert engine.grids(request) == seeing.grids(request) == [(3, 2)]
    assert engine.encode(request) == seeing.encode(request) and opener.times == 0


def test_closing_gives_back_both(text, seeing):
    engine, _ = both(text, seeing)
    one = engine.weight_bytes
    engine.generate(Request(prompt="w20", images=(picture(),), max_new_tokens=1))
    assert engine.weight_bytes == one + seeing.model.nbytes
    engine.settle()
    engine.close()
    assert engine.weight_bytes == 0 and not engine.sees


def test_a_tower_that_cannot_be_loaded_leaves_text_alone(text, seeing):
    engine, opener = both(text, seeing, problem="vision is damaged: fetch it again.")
    before = tokens(engine, TEXT)
    for _ in range(2):
        with pytest.raises(RequestError, match="^The picture cannot be looked at: vision is damaged"):
            engine.generate(Request(prompt="w20", images=(picture(),), max_new_tokens=4))
    assert tokens(engine, TEXT) == before and opener.times == 2


def test_the_default_checkpoint_has_its_tower(monkeypatch, tmp_path):
    monkeypatch.setattr("nemodiff.checkpoints.catalogue.base_weights", lambda report=None: tmp_path / BASE)
    files, old = resolve(DEFAULT), resolve("smollm2-135m-tri-vision")
    assert files == old and files.name == DEFAULT == current_name("smollm2-135m-tri-vision")
    assert (files.adapter, files.vision) == (ASSETS / DEFAULT, ASSETS / DEFAULT / "vision")
