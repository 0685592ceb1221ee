"""Drawings, what is asked about them, and what a tower is trained with."""

import json
import random

import pytest
import torch

from nemodiff.checkpoints.catalogue import ASSETS, DEFAULT, resolve
from nemodiff.errors import CheckpointError
from nemodiff.model.config import VisionConfig
from nemodiff.model.vision import preprocess
from nemodiff.model.weights import read_config, unpack
from nemodiff.pictures import Picture
from nemodiff.tasks.drawings import free_scenes
from nemodiff.tasks.drawings.codes import ATTRIBUTES, KNOWN_OF_CROWDS, attributes, covered
from nemodiff.tasks.drawings.free_scenes import (
    APART,
    HELD_OUT_LONG_WORDS,
    MOST_LETTERS,
    MOST_THINGS,
    free_scene,
)
from nemodiff.tasks.drawings.questions import NUMBERS, REFUSAL, WORDINGS, ask, is_right, questions_of
from nemodiff.tasks.drawings.scenes import CANVASES, CELL, COLOURS, CROWDS, FOREIGN, HELD_OUT_WORDS, KINDS, scene
from nemodiff.training.drawings import drawn, fit_codes
from nemodiff.training.tower import TOWER, Heads, new_vision, pixels, see
from tests.helpers.official import random_ministral, write_nvidia

NAMES = list(ATTRIBUTES)


def named(row: torch.Tensor) -> set[str]:
    return {NAMES[i] for i in row.nonzero()[:, 0].tolist()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_is_a_scene(kind):
    one, same, other = scene(kind, 5), scene(kind, 5), scene(kind, 6)
    assert one.things == same.things and one.image.tobytes() == same.image.tobytes()
    assert one.image.tobytes() != other.image.tobytes() != scene(kind, 6, held_out=True).image.tobytes()
    assert one.image.size in CANVASES and one.image.mode == "RGB"


@pytest.mark.parametrize("kind", KINDS)
def test_things_are_in_the_picture_from_left_to_right(kind):
    for seed in range(60):
        one = scene(kind, seed)
        width, height = one.image.size
        assert [thing.x for thing in one.things] == sorted(thing.x for thing in one.things)
        for thing in one.things:
            assert 0 <= thing.x < width and 0 <= thing.y < height
            if kind in ("shapes", "bars") and thing.name != "ring":
                seen = one.image.getpixel((int(thing.x), int(thing.y)))
                assert max(abs(a - b) for a, b in zip(seen, COLOURS[thing.colour], strict=True)) < 40


def test_held_out_words_are_never_trained_on():
    trained = {"".join(thing.name for thing in scene("word", seed).things) for seed in range(600)}
    held_out = {"".join(t.name for t in scene("word", seed, held_out=True).things) for seed in range(200)}
    assert trained.isdisjoint(HELD_OUT_WORDS) and held_out == set(HELD_OUT_WORDS)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_true(kind):
    """What an answer says is read back and held against the scene."""
    for seed in range(80):
        one = scene(kind, seed)
        asked = {question.topic: question for question in questions_of(one, random.Random(seed))}
        things = one.things
        if kind == "shapes":
            listed = json.loads(asked["json"].answer)
            assert [(t["size"], t["color"], t["shape"]) for t in listed] == [(t.size, t.colour, t.name) for t in things]
            assert f" {NUMBERS[len(things)]} " in asked["count"].answer
            if "colour" in asked:
                thing = next(thing for thing in things if f"the {thing.name}" in asked["colour"].text)
                assert asked["colour"].answer == f"The {thing.name} is {thing.colour}."
            if "relation" in asked:
                words = asked["relation"].answer.rstrip(".").split()
                x = {f"{thing.colour} {thing.name}": thing.x for thing in things}
                first, second = x[" ".join(words[1:3])], x[" ".join(words[-2:])]
                assert (words[6] == "left") == (first < second)
        if kind == "bars":
            assert json.loads(asked["json"].answer) == {bar.colour: bar.value for bar in things}
            tallest = max(things, key=lambda bar: bar.value)
            assert asked["tallest"].answer == f"The {tallest.colour} bar is the tallest."
        if kind == "word":
            assert asked["word"].answer == f"The word is {'-'.join(thing.name for thing in things)}."
        if kind == "digit":
            assert asked["digit"].answer == f"The digit is {things[0].name}."


def test_an_answer_is_right_in_whatever_words():
    assert is_right("shape", "The blue one is a ring.", "The blue shape is a ring.")
    assert not is_right("shape", "The blue one is a ring or a star.", "The blue shape is a ring.")
    assert not is_right("shape", "The blue one is round.", "The blue shape is a ring.")
    assert is_right("topmost", "The green cross is the tallest.", "The green cross is at the top.")
    assert not is_right("topmost", "The green star is at the top.", "The green cross is at the top.")
    assert not is_right("relation", "To the right or to the left.", "The red star is to the left of the pink ring.")
    assert not is_right("json", '{"digit": 3,"color": "red"}', '{"digit": 3, "color": "red"}')


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_scenes_own_answer_is_right(kind):
    for seed in range(40):
        own, other = ({q.topic: q for q in questions_of(scene(kind, s), random.Random(seed))} for s in (seed, seed + 1))
        for topic in own.keys() & other.keys():
            expected = own[topic].answer
            assert is_right(topic, expected, expected)
            if topic in ("describe", "json", "digit", "count", "letters", "bars"):
                assert is_right(topic, other[topic].answer, expected) == (other[topic].answer == expected)


def test_held_out_wordings_are_never_trained_on():
    scenes = [scene(kind, seed) for kind in KINDS for seed in range(10)]
    for topic, wordings in WORDINGS.items():
        assert len(set(wordings)) == len(wordings) > 2, topic
    starts = {wordings[-1].split("{")[0]: topic for topic, wordings in WORDINGS.items()}
    for i, one in enumerate(scenes):
        question = ask(one, i)
        assert question.text not in starts
        held_out = ask(one, i, held_out=True)
        assert any(held_out.text.startswith(start) for start in starts)
        assert (held_out.topic, held_out.answer.split()[0]) == (question.topic, question.answer.split()[0])


def test_cells_hold_what_lies_in_them():
    one = scene("shapes", 3, canvas=(80, 80))
    cells = attributes(one).view(5, 5, -1)
    everywhere = {"kind shapes", f"count {NUMBERS[len(one.things)]}", *(f"has {thing.name}" for thing in one.things)}
    for place, thing in enumerate(one.things):
        own = named(cells[int(thing.y // 16), int(thing.x // 16)])
        assert own >= everywhere | {
            f"colour {thing.colour}",
            f"shape {thing.name}",
            f"size {thing.size}",
            f"order {place}",
        }
        patches = covered(one, TOWER.patch_size).view(10, 10, -1)
        assert f"shape {thing.name}" in named(patches[int(thing.y // 8), int(thing.x // 8)])
    empty = [row for row in cells.view(25, -1) if named(row) == everywhere]
    assert len(empty) == 25 - len({(int(t.y // 16), int(t.x // 16)) for t in one.things})


@pytest.mark.parametrize("kind", [*KINDS, FOREIGN, *CROWDS])
def test_a_seed_is_a_free_scene(kind):
    one, same, other = free_scene(kind, 5), free_scene(kind, 5), free_scene(kind, 6)
    assert one.things == same.things and one.image.tobytes() == same.image.tobytes()
    held_out = free_scene(kind, 6, held_out=True)
    assert len({picture.image.tobytes() for picture in (one, other, held_out)}) == 3
    assert one.image.size in CANVASES and one.image.mode == "RGB" and one.kind == kind
    assert free_scene(kind, 5, canvas=(64, 80)).image.size == (64, 80)


@pytest.mark.parametrize("kind", KINDS)
def test_free_things_are_in_the_picture_from_left_to_right(kind):
    most, off_middle = 0, 0
    for seed in range(150):
        one = free_scene(kind, seed)
        width, height = one.image.size
        things = one.things
        most = max(most, len(things))
        assert [thing.x for thing in things] == sorted(thing.x for thing in things)
        for thing in things:
            assert 0 <= thing.x < width and 0 <= thing.y < height
            off_middle += abs(thing.x % CELL - CELL / 2) > 3
        if kind == "shapes":  # left and right, above and below are never in doubt, photographed or not
            places = [(thing.x, thing.y) for thing in things]
            for i, (x, y) in enumerate(places):
                assert all(min(abs(x - u), abs(y - v)) > APART / 3 for u, v in places[i + 1 :])
    assert most == {"word": MOST_LETTERS, "digit": 1}.get(kind, MOST_THINGS)
    assert off_middle > 50


def test_free_words_are_held_out_too():
    kept = {*HELD_OUT_WORDS, *HELD_OUT_LONG_WORDS}
    trained = {"".join(thing.name for thing in free_scene("word", seed).things) for seed in range(400)}
    held_out = {"".join(t.name for t in free_scene("word", seed, held_out=True).things) for seed in range(100)}
    assert trained.isdisjoint(kept) and held_out <= kept and max(map(len, held_out)) == MOST_LETTERS


def test_a_free_thing_keeps_its_colour_under_a_camera():
    """Where a photographed thing is said to be there is its colour, more than any other one."""
    right = total = 0
    for seed in range(60):
        one = free_scene("bars", seed)
        for bar in one.things:
            seen = one.image.getpixel((int(bar.x), int((bar.box[1] + bar.box[3]) / 2)))
            nearest = min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(seen, COLOURS[name], strict=True)))
            right, total = right + (nearest == bar.colour), total + 1
    assert right > 0.9 * total


def test_free_bars_have_a_scale(monkeypatch):
    """Beside a bar of 3, 6 or 9 a line runs where it ends: its row is further from the paper than those around it."""
    monkeypatch.setattr(free_scenes, "_PHOTOGRAPHS", 0.0)
    found = 0
    for seed in range(40):
        one = free_scene("bars", seed, canvas=(80, 80))
        grey = one.image.convert("L")
        for bar, after in zip(one.things, one.things[1:], strict=False):
            if bar.value % 3 == 0 and after.value < bar.value:
                x = int((bar.box[2] + after.box[0]) / 2)
                column = [grey.getpixel((x, y)) for y in range(80)]
                top = int(bar.box[1])
                paper = column[top + 4]
                off = max(abs(column[y] - paper) for y in (top - 1, top, top + 1) if y >= 0)
                assert off > 3 + abs(column[top + 3] - paper), (seed, bar)
                found += 1
    assert found > 20


def test_crowds_are_labelled_by_what_is_seen_of_each_thing():
    for kind, least in zip(CROWDS, (8, 5), strict=True):
        for seed in range(30):
            one = free_scene(kind, seed, canvas=(80, 80))
            assert len(one.things) >= least
            cells = attributes(one)
            assert not (cells & ~KNOWN_OF_CROWDS).any()
            place = [int(t.y // CELL) * 5 + int(t.x // CELL) for t in one.things]
            for at, thing in zip(place, one.things, strict=True):
                label = f"{'letter' if kind == 'letters' else 'shape'} {thing.name}"
                assert {label, f"then {label}"} & named(cells[at]) or place.count(at) > 2


def test_answers_about_free_scenes_are_true():
    for seed in range(60):
        one = free_scene("shapes", seed)
        asked = {question.topic: question for question in questions_of(one, random.Random(seed))}
        listed = json.loads(asked["json"].answer)
        assert [(t["size"], t["color"], t["shape"]) for t in listed] == [(t.size, t.colour, t.name) for t in one.things]
        assert f" {NUMBERS[len(one.things)]} " in asked["count"].answer
        word = free_scene("word", seed)
        asked = {question.topic: question for question in questions_of(word, random.Random(seed))}
        assert asked["letters"].answer == f"There are {NUMBERS[len(word.things)]} letters."


def test_a_foreign_picture_is_refused_whatever_is_asked():
    one = free_scene(FOREIGN, 1)
    questions = questions_of(one, random.Random(0))
    assert {question.topic for question in questions} == set(WORDINGS)
    assert {question.answer for question in questions} == {REFUSAL}
    assert not any("{" in question.text for question in questions)
    assert all(is_right(question.topic, REFUSAL, REFUSAL) for question in questions)
    assert not any(is_right(question.topic, "There are two shapes.", REFUSAL) for question in questions)
    known = questions_of(free_scene("shapes", 1), random.Random(0))
    assert not any(is_right(question.topic, REFUSAL, question.answer) for question in known)


def test_foreign_pictures_are_of_many_kinds():
    pictures = [free_scene(FOREIGN, seed, canvas=(80, 80)).image for seed in range(80)]
    colours = [len(picture.getcolors(80 * 80) or []) for picture in pictures]
    assert min(colours) == 1 and max(colours) > 2000 and len({picture.tobytes() for picture in pictures}) >= 70


def test_a_cell_holds_two_letters():
    found = 0
    for seed in range(60):
        one = free_scene("word", seed)
        columns = one.image.width // CELL
        cells = attributes(one)
        places = [int(t.y // CELL) * columns + int(t.x // CELL) for t in one.things]
        for place, thing, before in zip(places, one.things, [None, *places], strict=False):
            then = "then " * (place == before)
            assert {f"{then}letter {thing.name}", f"{then}order {one.things.index(thing)}"} <= named(cells[place])
            found += bool(then)
    assert found > 30


@pytest.fixture(scope="module")
def text_config(tmp_path_factory):
    return read_config(write_nvidia(random_ministral(), tmp_path_factory.mktemp("text") / "m"))


def test_many_pictures_are_seen_as_one_by_one(text_config):
    vision = new_vision(text_config).eval()
    scenes = [scene(kind, 1, canvas=(80, 64)) for kind in KINDS]
    *_, features = see(vision, pixels(scenes))
    for one, own in zip(scenes, features, strict=True):
        picture = Picture.of(one.image)
        assert preprocess(picture, vision.config).shape == (3, 64, 80)
        torch.testing.assert_close(own, vision.encode(picture), atol=1e-4, rtol=1e-3)


def test_a_tower_learns_to_name(text_config):
    torch.manual_seed(0)
    vision = new_vision(text_config)
    heads = Heads(TOWER.hidden_size, text_config.hidden_size)
    parameters = [*vision.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    scenes = drawn("test", 4, 0)
    assert {one.image.size for one in scenes} == {scenes[0].image.size}
    wanted, batch = torch.stack([attributes(one) for one in scenes]), pixels(scenes)
    losses = []
    for _ in range(12):
        seen, inner, _ = see(vision, batch)
        loss = heads.loss(seen, inner, scenes, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_what_is_unknown_of_a_crowd_is_not_learnt(text_config):
    """Whatever a head says of a crowd's kind, number or order, the loss is the same; of a scene's it is not."""
    torch.manual_seed(0)
    heads = Heads(TOWER.hidden_size, text_config.hidden_size)
    seen, inner = torch.randn(1, 100, TOWER.hidden_size), torch.randn(1, 25, text_config.hidden_size)

    def loss(kind):
        one = free_scene(kind, 1, canvas=(80, 80))
        return heads.loss(seen, inner, [one], attributes(one)[None]).item()

    before = [loss("letters"), loss("word")]
    with torch.no_grad():
        heads.cells.bias[~KNOWN_OF_CROWDS] += 5.0
    after = [loss("letters"), loss("word")]
    assert after[0] == before[0] and after[1] > before[1]


def test_codes_are_fitted_to_what_a_tower_writes():
    """Of a tower that writes the codes of cells, sums of codes are found again, in drawings that were not fitted."""
    codes, fitted = torch.randn(len(ATTRIBUTES), 16), torch.zeros(len(ATTRIBUTES), 16)
    fit_codes(fitted, lambda scenes: torch.stack([attributes(one).float() @ codes for one in scenes]), seed=0)
    for make in (scene, free_scene):
        wanted = torch.cat([attributes(make(kind, f"new {i}")) for kind in KINDS for i in range(20)]).float()
        off = (wanted @ fitted - wanted @ codes).square().mean() / (wanted @ codes).square().mean()
        assert off < 0.02


def test_packed_tensors_are_unpacked():
    target = {"a": torch.zeros(2, 3, 1, 1), "b": torch.zeros(4)}
    steps = torch.tensor([[1, -2, 3], [4, 5, -6]], dtype=torch.int8).view(2, 3, 1, 1)
    unpack({"a": steps, "a.scale": torch.tensor([0.5, 2.0]), "b": torch.ones(4).half()}, target)
    assert target["a"].flatten().tolist() == [0.5, -1.0, 1.5, 8.0, 10.0, -12.0] and target["b"].tolist() == [1] * 4


def test_the_bundled_tower_has_its_place(tmp_path):
    settings = json.loads((ASSETS / DEFAULT / "vision" / "adapter_config.json").read_text())
    assert VisionConfig.from_json(settings, 49152) == TOWER
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | {"adapter": "another"}))
    with pytest.raises(CheckpointError, match="is for the adapter 'another', not 'smollm2-135m-tri'"):
        resolve(str(tmp_path))
