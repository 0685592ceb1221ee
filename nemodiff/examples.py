"""Twelve prompts to start from, from very predictable to open-ended: the page offers them, and the bench runs the ten
in English. And a few pictures with a question each, for checkpoints that see.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt, a short label for it, and whether its answer is structured (else open-ended)."""

    label: str
    prompt: str
    structured: bool


EXAMPLES: tuple[Example, ...] = (
    Example("Count to 30", "Count from 1 to 30, separated by commas.", True),
    Example("Days as JSON", "List the days of the week as a JSON array.", True),
    Example(
        "JSON person",
        "Write a JSON object for a person with name Maria, age 34, city Lisbon and the hobbies reading, hiking and "
        "cooking.",
        True,
    ),
    Example(
        "CSV to table",
        "Convert this CSV to a markdown table:\nname,price,stock\napple,0.40,120\npear,0.55,80\nplum,0.30,200",
        True,
    ),
    Example(
        "Dataclass",
        "Write a Python dataclass named Book with the fields title: str, author: str, year: int and pages: int.",
        True,
    ),
    Example(
        "SQL inserts",
        "Write SQL INSERT statements for the table cities (name, country, founded) with these rows:\n"
        "Lisbon, Portugal, 1147\nKyoto, Japan, 794\nQuito, Ecuador, 1534",
        True,
    ),
    Example("Blue sky", "Explain why the sky is blue.", False),
    Example("Sleep", "Give me three tips for sleeping better.", False),
    Example("Thank-you note", "Write a short thank-you note to a teacher.", False),
    Example("Lighthouse", "Write a two-sentence story about a lighthouse keeper.", False),
)

#: Prompts in scripts whose letters are several tokens each, pieces of their bytes: AR copies all of them, and diffusion
#: alone loses some of the Greek ones.
SCRIPTS: tuple[Example, ...] = (
    Example(
        "Greek JSON",
        "Write a JSON object for a person with name Ελένη, age 27, city Πάτρα and the hobbies μουσική and χορός.",
        True,
    ),
    Example(
        "Japanese JSON",
        "Write a JSON object for a city with name 東京, country 日本 and language 日本語.",
        True,
    ),
)

#: What the page offers, from predictable to open-ended.
OFFERED = tuple(sorted(EXAMPLES + SCRIPTS, key=lambda example: not example.structured))

#: assets/images/NAME.png → what to ask about it. They are drawings such as the small checkpoint that sees knows.
PICTURES: dict[str, str] = {
    "shapes": "Describe the picture.",
    "bars": "Which bar is the tallest?",
    "word": "What does the picture say?",
    "digit": "Which digit is this?",
}
