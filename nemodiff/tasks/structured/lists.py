"""Structured families about sequences and lists: counting, days and letters, sorting, changing case, repeating,
copying."""

import json
import string

from nemodiff.tasks.structured.draw import Draw
from nemodiff.tasks.structured.wording import spoken
from nemodiff.tasks.structured.words import ADJECTIVES, COLORS, DAYS, FRUITS, MONTHS, NAMES, PLANETS, THINGS, some_words

Pair = tuple[str, str]
SEPARATORS = {
    "separated by commas": ", ",
    "separated by spaces": " ",
    "one per line": "\n",
    "separated by dashes": "-",
    "separated by semicolons": "; ",
}
NUMBERS = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]


def _separator(rng: Draw) -> tuple[str, str]:
    return rng.choices(list(SEPARATORS.items()), weights=[5, 2, 2, 1, 1])[0]


def counting(rng: Draw) -> Pair:
    """Count up, down or by steps."""
    step = rng.choices([1, 2, 3, 5, 10], weights=[12, 3, 1, 3, 3])[0]
    start = (
        rng.choice([0, 1, 1, 1, 1, step, step, rng.randint(1, 90)])
        if step > 1
        else rng.choice([1, 1, 1, 1, 0, rng.randint(2, 80), rng.randint(2, 300)])
    )
    numbers = [start + i * step for i in range(rng.randint(8, 40 if start < 20 else 22))]
    how, joint = _separator(rng)
    by = "" if step == 1 else f" in steps of {step}" if rng.random() < 0.5 else f" by {step}s"
    if rng.random() < 0.15:
        numbers = numbers[::-1]
        prompt = rng.phrase(
            [
                f"Count down from {numbers[0]} to {numbers[-1]}{by}, {how}.",
                f"Count backwards from {numbers[0]} to {numbers[-1]}{by}, {how}.",
                f"Write the numbers from {numbers[0]} down to {numbers[-1]}{by}, {how}.",
            ]
        )
    else:
        prompt = rng.phrase(
            [
                f"Count from {numbers[0]} to {numbers[-1]}{by}, {how}.",
                f"Write the numbers from {numbers[0]} to {numbers[-1]}{by}, {how}.",
                f"List all numbers between {numbers[0]} and {numbers[-1]}{by}, {how}.",
                f"Please count{by} from {numbers[0]} up to {numbers[-1]}, {how}.",
                f"Print {numbers[0]} to {numbers[-1]}{by}, {how}.",
            ]
        )
    return prompt, joint.join(str(number) for number in numbers)


def number_words(rng: Draw) -> Pair:
    """Count in words."""
    first = rng.randint(0, 8)
    words = NUMBERS[first : rng.randint(first + 6, 20)]
    how, joint = _separator(rng)
    prompt = rng.phrase(
        [
            f"Count from {words[0]} to {words[-1]} in words, {how}.",
            f"Write the numbers from {first + 1} to {first + len(words)} as words, {how}.",
            f"Spell out the numbers {first + 1} to {first + len(words)}, {how}.",
        ]
    )
    return prompt, joint.join(words)


def known_sequence(rng: Draw) -> Pair:
    """Days, months, letters or planets from a start to an end, as text, JSON or lines."""
    name, items = rng.choice(
        [
            ("days of the week", DAYS),
            ("months of the year", MONTHS),
            ("letters of the alphabet", list(string.ascii_uppercase)),
            ("planets", PLANETS),
        ]
    )
    order = ""
    if rng.random() < 0.15:
        items, order = items[::-1], " in reverse order"
    span = ""
    if name.startswith("letters") or rng.random() < 0.5:
        first = rng.randint(0, len(items) // 3)
        last = rng.randint(max(first + 3, len(items) // 2), len(items) - 1)
        items, span = items[first : last + 1], f" from {items[first]} to {items[last]}"
    if rng.random() < 0.3:
        items = [item.lower() for item in items] if rng.random() < 0.5 else [item.upper() for item in items]
        order += " in lower case" if items[0].islower() else " in upper case"
    form = rng.choice(["text", "text", "json", "bullets", "numbered"])
    if form == "text":
        how, joint = _separator(rng)
        prompt = rng.phrase(
            [
                f"List the {name}{span}{order}, {how}.",
                f"Write the {name}{span}{order}, {how}.",
                f"Name the {name}{span}{order}, {how}.",
                f"What are the {name}{span}{order}? Write them {how}.",
            ]
        )
        return prompt, joint.join(items)
    kind = {"json": "JSON array", "bullets": "bullet list", "numbered": "numbered list"}[form]
    prompt = rng.phrase(
        [
            f"List the {name}{span}{order} as a {kind}.",
            f"Write the {name}{span}{order} as a {kind}.",
            f"Give me a {kind} of the {name}{span}{order}.",
            f"Make a {kind} with the {name}{span}{order}.",
        ]
    )
    if form == "json":
        return prompt, json.dumps(items)
    return prompt, "\n".join(f"{'-' if form == 'bullets' else f'{i}.'} {item}" for i, item in enumerate(items, 1))


def list_operation(rng: Draw) -> Pair:
    """Reverse, change case, number or re-separate a list of words."""
    name, words = some_words(rng, 5, 12)
    operation = rng.choice(["reverse", "upper", "lower", "title", "lines", "quote", "semicolon", "first"])
    shown = [word.upper() for word in words] if operation == "lower" else words
    tellings, answer = {
        "reverse": (["Reverse the order of", "Write in reverse order", "Turn around"], ", ".join(reversed(words))),
        "upper": (
            ["Write in upper case", "Convert to uppercase", "Capitalize all letters of"],
            ", ".join(word.upper() for word in words),
        ),
        "lower": (["Write in lower case", "Convert to lowercase"], ", ".join(word.lower() for word in words)),
        "title": (
            ["Capitalize the first letter of each word in", "Convert to title case"],
            ", ".join(word.title() for word in words),
        ),
        "lines": (["Write each word on its own line", "Put one item per line", "Split into lines"], "\n".join(words)),
        "quote": (
            ["Put each word in double quotes", "Add quotes around each item of"],
            ", ".join(f'"{word}"' for word in words),
        ),
        "semicolon": (
            ["Separate with semicolons instead of commas", "Replace the commas by semicolons in"],
            "; ".join(words),
        ),
        "first": (
            ["Write the first letter of each word in", "Give the initial letters of"],
            ", ".join(word[0] for word in words),
        ),
    }[operation]
    listed, told = ", ".join(shown), rng.choice(tellings)
    if told.endswith((" of", " in")):  # needs an object: "… of these names", "… in this list"
        options = [f"{told} these {name}: {listed}", f"{told} this list: {listed}", f"{told} the {name} {listed}."]
    else:
        options = [f"{told}: {listed}", f"{listed}\n{told}.", f"Here is a list: {listed}\n{told}."]
    prompt = rng.phrase(options)
    return prompt, answer


def sort_words(rng: Draw) -> Pair:
    """Sort a short list of words or numbers."""
    if rng.random() < 0.5:
        name, words = some_words(rng, 4, 7)
        by, answer = "alphabetically", sorted(words, key=str.lower)
    else:
        name, words = "numbers", [str(number) for number in rng.sample(range(1, 100), rng.randint(4, 8))]
        down = rng.random() < 0.3
        by, answer = (
            ("from largest to smallest" if down else "from smallest to largest"),
            sorted(words, key=int, reverse=down),
        )
    listed = ", ".join(words)
    prompt = rng.phrase(
        [
            f"Sort these {name} {by}: {listed}",
            f"Sort {by}: {listed}",
            f"Put these {name} in order, {by}: {listed}",
            f"{listed}\nSort the {name} above {by}.",
        ]
    )
    return prompt, ", ".join(answer)


def times_table(rng: Draw) -> Pair:
    """A multiplication or addition table of one small number."""
    base, last = rng.randint(2, 10), rng.choice([5, 6, 8, 10, 10])
    if rng.random() < 0.75:
        lines = [f"{base} x {i} = {base * i}" for i in range(1, last + 1)]
        prompt = rng.phrase(
            [
                f"Write the multiplication table of {base} from 1 to {last}.",
                f"Write the {base} times table up to {last}.",
                f"Show the multiplication table for {base}, up to {base} x {last}.",
                f"Give me the first {last} lines of the {base} times table.",
            ]
        )
    else:
        lines = [f"{base} + {i} = {base + i}" for i in range(1, last + 1)]
        prompt = rng.phrase(
            [
                f"Write the addition table of {base} from 1 to {last}.",
                f"Add 1 to {last} to the number {base}, one sum per line.",
                f"Show the sums {base} + 1 to {base} + {last}.",
            ]
        )
    return prompt, "\n".join(lines)


def repeated_change(rng: Draw) -> Pair:
    """One sentence, written again for each word of a list."""
    name, words = some_words(rng, 3, 7)
    sentence = rng.choice(
        [
            "I would like to buy the {}, please.",
            "My friend told me about the {}.",
            "The {} is on the map.",
            "We talked about {} for an hour.",
            "Nobody forgot the {} today.",
            "Dear {}, thank you for coming.",
            "The {} is next to the door.",
            "Can you show me the {}?",
            "Today's word is {}.",
            "Hello {}, welcome to the team!",
            f"{rng.choice(NAMES)} likes {{}} more than {rng.choice(FRUITS)}.",
            f"The {{}} stands next to the {rng.choice(ADJECTIVES)} {rng.choice(THINGS)}.",
            f"{rng.choice(NAMES)} painted the {{}} {rng.choice(COLORS)}.",
        ]
    )
    listed = ", ".join(words)
    shown = sentence.format("X")
    prompt = rng.phrase(
        [
            f'Write the sentence "{shown}" once for each of these {name}, replacing X: {listed}',
            f'Repeat "{shown}" with X replaced by {spoken(words)}, one sentence per line.',
            f'For each of {listed} write "{shown}" with the word instead of X.',
            f'Use the pattern "{shown}" for these {name}: {listed}',
            f'Fill in "{sentence.format("...")}" with each of these: {listed}',
        ]
    )
    return prompt, "\n".join(sentence.format(word) for word in words)


def labelled_lines(rng: Draw) -> Pair:
    """A fixed label before or after each word, or a running number."""
    name, words = some_words(rng, 4, 9)
    kind = rng.choice(["before", "after", "number", "chapter"])
    label = rng.choice(["Item", "Note", "Task", "New", "Step", "Topic"])
    listed = ", ".join(words)
    if kind == "before":
        prompt = rng.phrase(
            [
                f'Write "{label}: " before each of these {name}, one per line: {listed}',
                f'Put "{label}: " in front of every word, one per line: {listed}',
                f'Start a line with "{label}: " for each of these {name}: {listed}',
            ]
        )
        return prompt, "\n".join(f"{label}: {word}" for word in words)
    if kind == "after":
        prompt = rng.phrase(
            [
                f'Write " - {label.lower()}" after each of these {name}, one per line: {listed}',
                f'Add " - {label.lower()}" to the end of each word, one per line: {listed}',
                f'End a line with " - {label.lower()}" for each of these {name}: {listed}',
            ]
        )
        return prompt, "\n".join(f"{word} - {label.lower()}" for word in words)
    label = label if kind == "number" else rng.choice(["Chapter", "Room", "Day", "Week", "Question"])
    prompt = rng.phrase(
        [
            f"Number these {name} as {label} 1, {label} 2 and so on, one per line: {listed}",
            f"{listed}\nLabel the {name} above {label} 1, {label} 2 and so on, one per line.",
            f'Write lines like "{label} 1: {words[0]}" for {listed}',
        ]
    )
    return prompt, "\n".join(f"{label} {i}: {word}" for i, word in enumerate(words, 1))


def numbered_labels(rng: Draw) -> Pair:
    """A word with running numbers: "Room 1, Room 2, …"."""
    label = rng.choice(
        [
            "Room",
            "Chapter",
            "Day",
            "Week",
            "Table",
            "Player",
            "Team",
            "Group",
            "Lesson",
            "Page",
            "Item",
            "Box",
            "file",
            "user",
            "image",
            "level",
            "track",
        ]
    )
    first = rng.choice([1, 1, 1, rng.randint(2, 60)])
    joint = rng.choice([" ", " ", "_", "-"])
    how, separator = _separator(rng)
    items = [f"{label}{joint}{first + i}" for i in range(rng.randint(6, 20))]
    prompt = rng.phrase(
        [
            f"Write {items[0]} to {items[-1]}, {how}.",
            f"List {items[0]} through {items[-1]}, {how}.",
            f"Write the labels {items[0]}, {items[1]} and so on up to {items[-1]}, {how}.",
            f"Generate the names from {items[0]} to {items[-1]}, {how}.",
        ]
    )
    return prompt, separator.join(items)


def repeat_text(rng: Draw) -> Pair:
    """A phrase repeated a few times."""
    times = rng.randint(3, 8)
    phrase = rng.choice(
        [
            f"The {rng.choice(ADJECTIVES)} {rng.choice(THINGS)} is {rng.choice(COLORS)}.",
            f"Good morning, {rng.choice(NAMES)}!",
            f"{rng.choice(NAMES)} likes {rng.choice(FRUITS)}.",
            f"{rng.choice(THINGS)} and {rng.choice(THINGS)}",
            f"I will not forget my {rng.choice(THINGS)}.",
            "Practice makes perfect.",
        ]
    )
    number = NUMBERS[times - 1] if rng.random() < 0.5 else times
    prompt = rng.phrase(
        [
            f'Repeat "{phrase}" {number} times, one per line.',
            f'Write "{phrase}" {number} times on separate lines.',
            f'Write the sentence "{phrase}" {number} times, each on a new line.',
            f"Repeat this {number} times, each time on a new line: {phrase}",
        ]
    )
    return prompt, "\n".join([phrase] * times)
