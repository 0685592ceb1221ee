"""Questions about drawings, each in several wordings, with their one right answer."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nemodiff.tasks.drawings.scenes import COLOURS, FOREIGN, SHAPES, SIZES, Scene, Thing

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
#: What is said of a picture of another kind, whatever the question.
REFUSAL = "I only know simple drawings, bar charts, short words and digits."


@dataclass(frozen=True, slots=True)
class Question:
    """A question about one scene. topic: what it is about, under which results are counted."""

    topic: str
    text: str
    answer: str


def ask(scene: Scene, seed: int | str, *, held_out: bool = False) -> Question:
    """One question about a scene, the topic and the wording drawn by the seed; `held_out`: in a wording that training
    never uses."""
    questions = questions_of(scene, random.Random(f"ask/{seed}"), held_out=held_out)
    shares = [SHARES.get(question.topic, 1) for question in questions]
    return random.Random(f"topic/{seed}").choices(questions, shares)[0]


def questions_of(scene: Scene, rng: random.Random, *, held_out: bool = False) -> list[Question]:
    """One question of every topic that fits a scene; any topic may be asked about a foreign picture, and all get
    REFUSAL."""
    return [
        Question(topic, _worded(topic, rng, held_out).format(*parts), answer)
        for topic, answer, *parts in _TOPICS[scene.kind](scene, rng)
    ]


#: How often a topic is asked about, where not 1: to find one thing among several takes the most learning.
SHARES = {"shape": 8, "colour": 6, "size": 3, "presence": 2, "relation": 2, "topmost": 3, "digit": 3}
SHARES |= {"tallest": 3, "shortest": 4, "value": 3, "describe": 3, "json": 6}
#: Topic → wordings; the last of each is held out.
WORDINGS: dict[str, tuple[str, ...]] = {
    "count": (
        "How many shapes are in the picture?",
        "How many shapes do you see?",
        "Count the shapes.",
        "What is the number of shapes in this picture?",
        "How many shapes does the picture have?",
    ),
    "shape": (
        "Which shape is {0}?",
        "What shape is {0} in the picture?",
        "What is the {0} shape called?",
        "Name the shape that is {0}.",
        "What kind of shape is the {0} one?",
    ),
    "colour": (
        "What colour is the {0}?",
        "Which colour does the {0} have?",
        "What is the colour of the {0}?",
        "Name the colour of the {0}.",
        "Tell me the colour of the {0}.",
    ),
    "size": (
        "Is the {0} small or large?",
        "Is the {0} large or small?",
        "What size is the {0}, small or large?",
        "How big is the {0}, small or large?",
    ),
    "leftmost": ("Which shape is furthest to the left?", "What is the leftmost shape?", "Which shape is the leftmost?"),
    "rightmost": (
        "Which shape is furthest to the right?",
        "What is the rightmost shape?",
        "Which shape is the rightmost?",
    ),
    "topmost": ("Which shape is at the top?", "What is the topmost shape?", "Which shape is the highest?"),
    "relation": (
        "Is the {0} to the left or to the right of the {1}?",
        "On which side of the {1} is the {0}, left or right?",
        "Does the {0} lie to the left or to the right of the {1}?",
    ),
    "presence": ("Is there a {0}?", "Do you see a {0}?", "Does the picture have a {0}?", "Can you find a {0}?"),
    "describe": (
        "What is in the picture?",
        "Describe the picture.",
        "What do you see?",
        "Describe this image.",
        "What does the picture show?",
    ),
    "json": (
        "List what is in the picture as JSON.",
        "Describe the picture as JSON.",
        "Write what you see as JSON.",
        "Give the contents of the picture as JSON.",
    ),
    "bars": ("How many bars are there?", "Count the bars.", "How many bars does the chart have?"),
    "tallest": ("Which bar is the tallest?", "Which bar is the highest?", "What is the tallest bar?"),
    "shortest": ("Which bar is the shortest?", "Which bar is the lowest?", "What is the shortest bar?"),
    "value": (
        "How high is the {0} bar?",
        "What is the value of the {0} bar?",
        "Read the value of the {0} bar.",
        "Which value does the {0} bar have?",
    ),
    "word": (
        "What does the picture say?",
        "Which word is written?",
        "Read the word, letter by letter.",
        "Spell the word in the picture.",
        "What word do you read?",
    ),
    "letters": ("How many letters does the word have?", "Count the letters.", "How many letters are there?"),
    "digit": (
        "Which digit is this?",
        "What digit is in the picture?",
        "Which number is written here?",
        "What number do you see?",
        "Read the digit.",
    ),
}


#: Topic → the words, some of which an answer gives. What is not here is right as a whole or not at all.
_GIVEN: dict[str, frozenset[str]] = (
    dict.fromkeys(("count", "bars", "letters"), frozenset(NUMBERS))
    | dict.fromkeys(("tallest", "shortest", "colour"), frozenset(COLOURS))
    | dict.fromkeys(("leftmost", "rightmost", "topmost"), frozenset(COLOURS) | frozenset(SHAPES))
    | dict.fromkeys(("digit", "value"), frozenset(map(str, range(10))))
    | {"shape": frozenset(SHAPES), "size": frozenset(SIZES)}
    | {"relation": frozenset(("left", "right")), "presence": frozenset(("yes", "no"))}
)


def is_right(topic: str, answer: str, expected: str) -> bool:
    """Whether an answer gives what the expected one gives, in whatever sentence: "The red one is a ring." for "The red
    shape is a ring." An answer that gives more than one thing to choose from is wrong."""
    if topic not in _GIVEN or expected == REFUSAL:
        return answer.strip() == expected
    said, wanted = ({word.lower() for word in re.findall(r"[A-Za-z]+|\d+", text)} for text in (answer, expected))
    return said & _GIVEN[topic] == wanted & _GIVEN[topic]


def _worded(topic: str, rng: random.Random, held_out: bool) -> str:
    return WORDINGS[topic][-1] if held_out else rng.choice(WORDINGS[topic][:-1])


Topics = Iterator[tuple[str, ...]]


def _full(thing: Thing) -> str:
    return f"{thing.size} {thing.colour} {thing.name}"


def _with_article(text: str) -> str:
    return f"an {text}" if text[0] in "aeiou" else f"a {text}"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _number(count: int, noun: str) -> str:
    return f"There {'is' if count == 1 else 'are'} {NUMBERS[count]} {noun}{'' if count == 1 else 's'}."


def _once(things: tuple[Thing, ...], of: Callable[[Thing], str]) -> list[Thing]:
    """The things that no other one shares its `of` with."""
    names = [of(thing) for thing in things]
    return [thing for thing, name in zip(things, names, strict=True) if names.count(name) == 1]


def _ask_shapes(scene: Scene, rng: random.Random) -> Topics:
    things = scene.things
    yield "count", _number(len(things), "shape")
    if chosen := _once(things, lambda thing: thing.colour):
        thing = rng.choice(chosen)
        yield "shape", f"The {thing.colour} shape is a {thing.name}.", thing.colour
    if chosen := _once(things, lambda thing: thing.name):
        thing = rng.choice(chosen)
        yield "colour", f"The {thing.name} is {thing.colour}.", thing.name
        thing = rng.choice(chosen)
        yield "size", f"The {thing.name} is {thing.size}.", thing.name
    if len(things) > 1:
        yield "leftmost", f"The {things[0].colour} {things[0].name} is furthest to the left."
        yield "rightmost", f"The {things[-1].colour} {things[-1].name} is furthest to the right."
        top = min(things, key=lambda thing: thing.y)
        yield "topmost", f"The {top.colour} {top.name} is at the top."
        named = _once(things, lambda thing: f"{thing.colour} {thing.name}")
        if len(named) > 1:
            one, other = rng.sample(named, 2)
            side = "left" if one.x < other.x else "right"
            names = [f"{thing.colour} {thing.name}" for thing in (one, other)]
            yield "relation", f"The {names[0]} is to the {side} of the {names[1]}.", *names
    wanted = rng.choice(things).name if rng.random() < 0.5 else rng.choice(SHAPES)
    there = any(thing.name == wanted for thing in things)
    yield "presence", f"Yes, there is a {wanted}." if there else f"No, there is no {wanted}.", wanted
    yield "describe", f"There is {_listed([_with_article(_full(thing)) for thing in things])}."
    yield "json", json.dumps([{"size": t.size, "color": t.colour, "shape": t.name} for t in things])


def _ask_bars(scene: Scene, rng: random.Random) -> Topics:
    bars = scene.things
    yield "bars", _number(len(bars), "bar")
    yield "tallest", f"The {max(bars, key=lambda bar: bar.value).colour} bar is the tallest."
    yield "shortest", f"The {min(bars, key=lambda bar: bar.value).colour} bar is the shortest."
    bar = rng.choice(bars)
    yield "value", f"The {bar.colour} bar is {bar.value} high.", bar.colour
    listed = _listed([f"{bar.colour} {bar.value}" for bar in bars])
    yield "describe", f"There is a bar chart with {NUMBERS[len(bars)]} bars: {listed}."
    yield "json", json.dumps({bar.colour: bar.value for bar in bars})


def _ask_word(scene: Scene, rng: random.Random) -> Topics:
    letters = [thing.name for thing in scene.things]
    spelt, colour = "-".join(letters), scene.things[0].colour
    yield "word", f"The word is {spelt}."
    yield "letters", f"There are {NUMBERS[len(letters)]} letters."
    yield "colour", f"The word is {colour}.", "word"
    yield "describe", f"There is the word {spelt} in {colour}."
    yield "json", json.dumps({"word": letters, "color": colour})


def _ask_digit(scene: Scene, rng: random.Random) -> Topics:
    digit = scene.things[0]
    yield "digit", f"The digit is {digit.name}."
    yield "colour", f"The digit is {digit.colour}.", "digit"
    yield "describe", f"There is the digit {digit.name} in {digit.colour}."
    yield "json", json.dumps({"digit": int(digit.name), "color": digit.colour})


def _ask_foreign(scene: Scene, rng: random.Random) -> Topics:
    """What could be asked about a drawing, about a picture that is none."""
    colour, other = rng.sample(tuple(COLOURS), 2)
    shape = rng.choice(SHAPES)
    parts = {
        "shape": (colour,),
        "value": (colour,),
        "colour": (rng.choice((shape, "word", "digit")),),
        "size": (shape,),
        "presence": (shape,),
        "relation": (f"{colour} {shape}", f"{other} {rng.choice(SHAPES)}"),
    }
    for topic in WORDINGS:
        yield topic, REFUSAL, *parts.get(topic, ())


_TOPICS: dict[str, Callable[[Scene, random.Random], Topics]] = {
    FOREIGN: _ask_foreign,
    "shapes": _ask_shapes,
    "bars": _ask_bars,
    "word": _ask_word,
    "digit": _ask_digit,
}
