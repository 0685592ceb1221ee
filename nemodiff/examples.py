"""Ten prompts to start from, from very predictable to open-ended: the page offers them and the bench runs them.

And a few pictures with a question each, for checkpoints that see.
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

#: assets/images/NAME.png → what to ask about it.
PICTURES: dict[str, str] = {
    "shapes": "How many shapes are in the picture, and which colours do they have?",
    "bars": "Which bar is the tallest?",
    "word": "What does the picture say?",
}
