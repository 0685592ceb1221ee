"""Structured families that write described or given fields: nested JSON, counts, dates, questions about a table."""

import json

from nemodiff.tasks.structured.draw import Draw
from nemodiff.tasks.structured.wording import an, plain, plural, spoken
from nemodiff.tasks.structured.words import (
    ANIMALS,
    CITIES,
    COLORS,
    EVENTS,
    FRUITS,
    HOBBIES,
    JOBS,
    MONTHS,
    NAMES,
    STREETS,
    THINGS,
    record,
    schema,
)

Pair = tuple[str, str]


def counted_list(rng: Draw) -> Pair:
    """A sentence with counts → a titled list with amounts; every title but the held-out one."""
    title, stock = rng.choice(
        [
            ("Packing list", THINGS),
            ("Stock list", THINGS + FRUITS),
            ("Order", THINGS + FRUITS),
            ("Inventory", THINGS),
            ("Farm list", ANIMALS),
            ("Zoo list", ANIMALS),
            ("Gift list", THINGS),
        ]
    )
    items = [f"{rng.randint(2, 30)} {plural(word)}" for word in rng.sample(stock, rng.randint(3, 6))]
    told, name = spoken(items), title.lower()
    prompt = rng.phrase(
        [
            f"Write a list with the title {title}: there are {told}.",
            f"Turn this sentence into a list called {title}: We have {told}.",
            f"We have {told}. Write the {name} with one item per line.",
            f"Make the {name} from this: {told}.",
            f"There are {told}. Put them into a list under the title {title}.",
        ]
    )
    return prompt, f"{title}:\n" + "\n".join(f"- {item}" for item in items)


def guest_list(rng: Draw) -> Pair:
    """A sentence with people and what they bring → a titled list."""
    count = rng.randint(3, 5)
    guests = [
        (name, f"{rng.randint(2, 9)} {plural(thing)}")
        for name, thing in zip(rng.sample(NAMES, count), rng.sample(THINGS + FRUITS, count), strict=True)
    ]
    event = rng.choice(EVENTS)
    told = spoken([f"{name} brings {things}" for name, things in guests])
    prompt = rng.phrase(
        [
            f"Write the guest list of the {event}: {told}.",
            f"Turn this into a guest list, one guest per line: {told}.",
            f"For the {event}, {told}. Write the guest list.",
            f"Who brings what to the {event}? Make a guest list: {told}.",
        ]
    )
    return prompt, "Guest list:\n" + "\n".join(f"- {name}: {things}" for name, things in guests)


def nested_json(rng: Draw) -> Pair:
    """EngineInterface fields with a part of their own → nested JSON."""
    name, age, job = rng.choice(NAMES), rng.randint(18, 90), rng.choice(JOBS)
    city, street, number = rng.choice(CITIES), rng.choice(STREETS), rng.randint(1, 200)
    inner = {"city": city, "street": street, "number": number}
    if rng.random() < 0.4:
        del inner["number"]
    part = rng.choice(["address", "home", "office", "place"])
    outer = {"name": name, "age": age} if rng.random() < 0.5 else {"name": name, "job": job}
    told = spoken([f"{key} {item}" for key, item in outer.items()]).replace(" and ", ", ")
    inside = spoken([f"{key} {item}" for key, item in inner.items()])
    prompt = rng.phrase(
        [
            f"Write nested JSON for a person with {told} and {part} with {inside}.",
            f"Write JSON: {told}, {part} ({inside}). The {part} is an object of its own.",
            f"A person has {told}. The {part} has {inside}. Write it as nested JSON.",
            f"Nest the {part} inside the JSON of this person: {told}; {part}: {inside}.",
        ]
    )
    return prompt, json.dumps(outer | {part: inner})


def question_on_table(rng: Draw) -> Pair:
    """A question about a table → one value in a sentence of its own."""
    names = rng.sample(NAMES, rng.randint(3, 4))
    rows = {name: {"city": rng.choice(CITIES), "job": rng.choice(JOBS), "hobby": rng.choice(HOBBIES)} for name in names}
    field, who = rng.choice(["city", "job", "hobby"]), rng.choice(names)
    given = "name,city,job,hobby\n" + "\n".join(",".join([name, *row.values()]) for name, row in rows.items())
    prompt = rng.phrase(
        [
            f"What is the {field} of {who}?\n{given}",
            f"Look up the {field} of {who} in this CSV:\n{given}",
            f"{given}\n\nWhat is {who}'s {field}?",
            f"Read the table and tell me the {field} of {who}:\n{given}",
        ]
    )
    return prompt, f"The {field} of {who} is {rows[who][field]}."


def align_fields(rng: Draw) -> Pair:
    """ "name: value" lines with all values in one column."""
    noun, fields = schema(rng, 3, 5)
    cells = {name: plain(cell) for name, cell in record(fields, rng).items()}
    given = "\n".join(f"{name}: {cell}" for name, cell in cells.items())
    mark = rng.choice([":", " ="])
    how = f'"{mark.strip()}" in one column'
    width = max(map(len, cells))
    prompt = rng.phrase(
        [
            f"Align these fields with {how}:\n{given}",
            f"Write these lines with {how}:\n{given}",
            f"{given}\n\nAlign the lines above with {how}.",
            f"Make the fields of this {noun} tidy, with {how}:\n{given}",
        ]
    )
    return prompt, "\n".join(f"{name.ljust(width)}{mark} {cell}" for name, cell in cells.items())


def date_list(rng: Draw) -> Pair:
    """The days of one month from a first to a last day, in a shown form."""
    year, month = rng.randint(2000, 2035), rng.randint(1, 12)
    first = rng.randint(1, 22)
    last = first + rng.randint(3, 6)
    form = rng.choice(["{y}-{m:02d}-{d:02d}", "{d:02d}.{m:02d}.{y}", "{m:02d}/{d:02d}/{y}", "{d} {month} {y}"])
    days = [form.format(y=year, m=month, d=day, month=MONTHS[month - 1]) for day in range(first, last + 1)]
    prompt = rng.phrase(
        [
            f"List the dates from {days[0]} to {days[-1]}, one per line.",
            f"Write every date from {days[0]} to {days[-1]}, one per line.",
            f"Which dates are there from {days[0]} until {days[-1]}? Write one per line.",
            f"Start at {days[0]} and write all days up to {days[-1]}, one per line.",
        ]
    )
    return prompt, "\n".join(days)


def date_format(rng: Draw) -> Pair:
    """Dates, each written in another form."""
    dates = [(rng.randint(1990, 2035), rng.randint(1, 12), rng.randint(1, 28)) for _ in range(rng.randint(2, 5))]
    forms = {
        "YYYY-MM-DD": "{y}-{m:02d}-{d:02d}",
        "DD.MM.YYYY": "{d:02d}.{m:02d}.{y}",
        "MM/DD/YYYY": "{m:02d}/{d:02d}/{y}",
        "YYYY/MM/DD": "{y}/{m:02d}/{d:02d}",
    }
    source, target = rng.sample(list(forms), 2)
    given, answer = ("\n".join(forms[form].format(y=y, m=m, d=d) for y, m, d in dates) for form in (source, target))
    prompt = rng.phrase(
        [
            f"Write these dates as {target}:\n{given}",
            f"Convert the dates from {source} to {target}:\n{given}",
            f"{given}\n\nWrite the dates above in the form {target}.",
            f"I need {target} instead of {source}:\n{given}",
        ]
    )
    return prompt, answer


def fill_template(rng: Draw) -> Pair:
    """Placeholders of a text, replaced by given values."""
    cells = {"name": rng.choice(NAMES), "city": rng.choice(CITIES), "thing": rng.choice(THINGS)}
    cells |= {"color": rng.choice(COLORS), "number": str(rng.randint(2, 99))}
    template = rng.choice(
        [
            "Hello {name}, your {color} {thing} is ready in {city}.",
            "{name} from {city} ordered {number} boxes with one {thing} each.",
            "Ticket {number}: {name} lost the {color} {thing} in {city}.",
            "Dear {name}, the {thing} costs {number} dollars. We send it to {city}.",
            "In {city}, {name} sold the {color} {thing} for {number} dollars.",
        ]
    )
    cells = {key: cell for key, cell in cells.items() if f"{{{key}}}" in template}
    told = ", ".join(f"{key} = {cell}" for key, cell in cells.items())
    prompt = rng.phrase(
        [
            f"Fill in this template with {told}: {template}",
            f"Replace the placeholders. {told}\n{template}",
            f"{template}\n\nFill in the text above: {told}",
            f"Write the text with {told} in the right places: {template}",
        ]
    )
    return prompt, template.format(**cells)


def fields_from_sentence(rng: Draw) -> Pair:
    """A sentence about a person → JSON with named keys."""
    fields = {
        "name": rng.choice(NAMES),
        "age": rng.randint(18, 90),
        "job": rng.choice(JOBS),
        "city": rng.choice(CITIES),
    }
    told = rng.choice(
        [
            "{name} is {age} years old and works as {job_said} in {city}.",
            "At the age of {age}, {name} is {job_said} in {city}.",
            "{name} lives in {city}, works as {job_said} and is {age}.",
        ]
    ).format(job_said=an(str(fields["job"])), **fields)
    keys = [key for key in fields if rng.random() < 0.75] or ["name"]
    prompt = rng.phrase(
        [
            f"Extract {spoken(keys)} as JSON: {told}",
            f"Read the sentence and write JSON with {spoken(keys)}: {told}",
            f"{told}\nWrite {spoken(keys)} from the sentence above as JSON.",
            f"Which {spoken(keys)} does this sentence give? Answer in JSON: {told}",
        ]
    )
    return prompt, json.dumps({key: fields[key] for key in keys})


def rows_to_sentences(rng: Draw) -> Pair:
    """CSV → one sentence of a fixed pattern for each row."""
    noun, fields = schema(rng, 2, 3)
    rows = [{key: plain(cell) for key, cell in record(fields, rng).items()} for _ in range(rng.randint(2, 3))]
    given = "\n".join([",".join(fields), *(",".join(row.values()) for row in rows)])
    pattern = f"The {noun} has {spoken([f'{key} ...' for key in fields])}."
    prompt = rng.phrase(
        [
            f'Write a sentence like "{pattern}" for each row:\n{given}',
            f'Turn each of these {plural(noun)} into a sentence like "{pattern}":\n{given}',
            f'{given}\n\nWrite each row above as "{pattern}".',
            f'Use the pattern "{pattern}" for every line of this CSV:\n{given}',
        ]
    )
    return prompt, "\n".join(
        f"The {noun} has {spoken([f'{key} {cell}' for key, cell in row.items()])}." for row in rows
    )
