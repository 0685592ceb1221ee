"""Structured families that copy a list, a table or an object with one change."""

import json

from nemodiff.tasks.structured.draw import Draw
from nemodiff.tasks.structured.wording import an, plain, plural, spoken
from nemodiff.tasks.structured.words import STOCKS, record, schema, some_words, value

Pair = tuple[str, str]


def _table(rng: Draw, columns: tuple[int, int] = (2, 4)) -> tuple[str, list[list[str]]]:
    """A noun and a table of texts, its header first."""
    noun, fields = schema(rng, *columns)
    rows = [[plain(cell) for cell in record(fields, rng).values()] for _ in range(rng.randint(2, 4))]
    return noun, [list(fields), *rows]


def _csv(lines: list[list[str]]) -> str:
    return "\n".join(",".join(line) for line in lines)


def _object(rng: Draw) -> tuple[str, dict]:
    noun, fields = schema(rng, 3, 5)
    return noun, record(fields, rng)


def column_values(rng: Draw) -> Pair:
    """One column of a CSV, a line each."""
    noun, (header, *rows) = _table(rng)
    at = rng.randrange(len(header))
    given, field = _csv([header, *rows]), header[at]
    prompt = rng.phrase(
        [
            f"List the {field} of each {noun}, one per line:\n{given}",
            f"Extract the column {field} from this CSV, one value per line:\n{given}",
            f"{given}\n\nWrite only the {field} of every {noun} above, one per line.",
            f"Which values does {field} have in this CSV? Write one per line:\n{given}",
        ]
    )
    return prompt, "\n".join(row[at] for row in rows)


def drop_column(rng: Draw) -> Pair:
    """A CSV without one of its columns."""
    noun, lines = _table(rng, (3, 4))
    at = rng.randrange(len(lines[0]))
    given, field = _csv(lines), lines[0][at]
    prompt = rng.phrase(
        [
            f"Remove the column {field} from this CSV:\n{given}",
            f"Delete the {field} column:\n{given}",
            f"{given}\n\nWrite the CSV above without the column {field}.",
            f"These {plural(noun)} do not need the column {field}. Leave it out:\n{given}",
        ]
    )
    return prompt, _csv([line[:at] + line[at + 1 :] for line in lines])


def swap_columns(rng: Draw) -> Pair:
    """A CSV with two columns exchanged."""
    _, lines = _table(rng)
    a, b = sorted(rng.sample(range(len(lines[0])), 2))
    given, first, second = _csv(lines), lines[0][a], lines[0][b]
    prompt = rng.phrase(
        [
            f"Swap the columns {first} and {second} in this CSV:\n{given}",
            f"Exchange the columns {first} and {second}:\n{given}",
            f"{given}\n\nWrite the CSV above with {first} and {second} swapped.",
            f"Let {first} and {second} change places in this CSV:\n{given}",
        ]
    )
    return prompt, _csv([[*line[:a], line[b], *line[a + 1 : b], line[a], *line[b + 1 :]] for line in lines])


def select_rows(rng: Draw) -> Pair:
    """The rows of a CSV that have a value, with the header."""
    noun, (header, *rows) = _table(rng)
    at = rng.randrange(len(header))
    wanted = rng.choice(rows)[at]
    if len(rows) > 2 and rng.random() < 0.4:
        rows[-1][at] = wanted
    given, field = _csv([header, *rows]), header[at]
    prompt = rng.phrase(
        [
            f"Keep only the rows where {field} is {wanted}:\n{given}",
            f"Filter this CSV by {field} = {wanted}:\n{given}",
            f"{given}\n\nWrite the header and the rows of the CSV above with {field} {wanted}.",
            f"Which {plural(noun)} have {field} {wanted}? Answer as CSV:\n{given}",
        ]
    )
    return prompt, _csv([header, *(row for row in rows if row[at] == wanted)])


def append_row(rng: Draw) -> Pair:
    """A CSV or a markdown table with one more row at its end."""
    noun, lines = _table(rng, (2, 3))
    kind = rng.choice(["CSV", "markdown table"])
    if kind == "CSV":
        answer = _csv(lines)
    else:
        rows = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
        answer = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    given = answer.rpartition("\n")[0]
    added = spoken([f"{name} {cell}" for name, cell in zip(lines[0], lines[-1], strict=True)])
    prompt = rng.phrase(
        [
            f"Add a row with {added} to this {kind}:\n{given}",
            f"Append {an(noun)} with {added}:\n{given}",
            f"{given}\n\nAdd a line with {added} to the {kind} above.",
            f"Put one more {noun} at the end of this {kind} ({added}):\n{given}",
        ]
    )
    return prompt, answer


def keep_fields(rng: Draw) -> Pair:
    """A JSON object with only some of its fields."""
    noun, fields = _object(rng)
    kept = [name for name in fields if rng.random() < 0.5] or [next(iter(fields))]
    given, told = json.dumps(fields), spoken(kept)
    prompt = rng.phrase(
        [
            f"Keep only {told} in this JSON: {given}",
            f"Remove every field except {told}:\n{given}",
            f"{given}\nWrite the JSON above with only {told}.",
            f"Reduce this {noun} to {told}: {given}",
        ]
    )
    return prompt, json.dumps({name: fields[name] for name in kept})


def remove_field(rng: Draw) -> Pair:
    """A JSON object without one of its fields."""
    noun, fields = _object(rng)
    name = rng.choice(list(fields))
    given = json.dumps(fields)
    prompt = rng.phrase(
        [
            f"Remove {name} from this JSON: {given}",
            f"Delete the key {name}:\n{given}",
            f"{given}\nWrite the JSON above without {name}.",
            f"This {noun} should have no {name}: {given}",
        ]
    )
    return prompt, json.dumps({key: cell for key, cell in fields.items() if key != name})


def rename_key(rng: Draw) -> Pair:
    """A JSON object with one key renamed."""
    noun, fields = _object(rng)
    old, new = rng.choice(list(fields)), rng.choice(["label", "key", "info", "field", "entry", "tag", "data", "kind"])
    given = json.dumps(fields)
    prompt = rng.phrase(
        [
            f"Rename the key {old} to {new} in this JSON: {given}",
            f"Change the key {old} to {new}:\n{given}",
            f"{given}\nRename {old} to {new} in the JSON above.",
            f"In this {noun}, {old} should be called {new}: {given}",
        ]
    )
    return prompt, json.dumps({new if key == old else key: cell for key, cell in fields.items()})


def add_field(rng: Draw) -> Pair:
    """A JSON object with one more field at its end."""
    noun, fields = _object(rng)
    name, cell = list(fields.items())[-1]
    given = json.dumps({key: fields[key] for key in list(fields)[:-1]})
    told = plain(cell)
    prompt = rng.phrase(
        [
            f"Add {name} {told} to this JSON: {given}",
            f"Add the key {name} with the value {told} at the end:\n{given}",
            f"{given}\nAdd {name} {told} to the JSON above.",
            f"This {noun} also has {name} {told}. Extend the JSON: {given}",
        ]
    )
    return prompt, json.dumps(fields)


def change_field(rng: Draw) -> Pair:
    """A JSON object with another value for one of its fields."""
    noun, fields = schema(rng, 3, 5)
    before = record(fields, rng)
    name = rng.choice([name for name in fields if not isinstance(before[name], bool)] or list(fields)[:1])
    after = before | {name: value(fields[name], rng)}
    given, told = json.dumps(before), plain(after[name])
    prompt = rng.phrase(
        [
            f"Set {name} to {told} in this JSON: {given}",
            f"Change {name} to {told}:\n{given}",
            f"{given}\nUpdate the JSON above: {name} is {told}.",
            f"The {name} of this {noun} is now {told}: {given}",
        ]
    )
    return prompt, json.dumps(after)


def remove_item(rng: Draw) -> Pair:
    """A list without one of its words."""
    name, words = some_words(rng, 4, 10)
    gone = rng.choice(words)
    given = ", ".join(words)
    prompt = rng.phrase(
        [
            f"Remove {gone} from this list: {given}",
            f"Delete {gone} from these {name}: {given}",
            f"{given}\nWrite the list above without {gone}.",
            f"Everything but {gone}: {given}",
        ]
    )
    return prompt, ", ".join(word for word in words if word != gone)


def insert_item(rng: Draw) -> Pair:
    """A list with one more word at its start, at its end or after another."""
    name, (new, *words) = some_words(rng, 4, 9)
    after = rng.randrange(len(words))
    at, where = rng.choice([(0, "at the beginning"), (len(words), "at the end"), (after + 1, f"after {words[after]}")])
    given = ", ".join(words)
    prompt = rng.phrase(
        [
            f"Add {new} {where} of this list: {given}" if at != after + 1 else f"Add {new} {where}: {given}",
            f"Insert {new} {where}: {given}",
            f"{given}\nPut {new} into the list above, {where}.",
            f"The {name} need {new} {where}: {given}",
        ]
    )
    return prompt, ", ".join([*words[:at], new, *words[at:]])


def join_lists(rng: Draw) -> Pair:
    """Two lists in one."""
    stock, words = some_words(rng, 6, 12)
    cut = rng.randint(2, len(words) - 2)
    first, second = ", ".join(words[:cut]), ", ".join(words[cut:])
    prompt = rng.phrase(
        [
            f"Join these two lists: {first} and {second}",
            f"Combine the lists into one.\nList 1: {first}\nList 2: {second}",
            f"{first}\n{second}\nWrite both lists above as one list.",
            f"Make one list of {stock} from these two:\n{first}\n{second}",
        ]
    )
    return prompt, ", ".join(words)


def wrap_lines(rng: Draw) -> Pair:
    """Each line inside a mark or a tag."""
    _, words = some_words(rng, 3, 8)
    told, form = rng.choice(
        [
            ("double quotes", '"{}"'),
            ("single quotes", "'{}'"),
            ("square brackets", "[{}]"),
            ("round brackets", "({})"),
            ("bold markdown", "**{}**"),
            ("backticks", "`{}`"),
            *((f"a <{tag}> tag", f"<{tag}>{{}}</{tag}>") for tag in ("p", "b", "em", "span", "code", "td")),
        ]
    )
    given = "\n".join(words)
    prompt = rng.phrase(
        [
            f"Put each line in {told}:\n{given}",
            f"Wrap every line in {told}:\n{given}",
            f"{given}\n\nPut each of the lines above in {told}.",
            f"Each of these lines needs {told} around it:\n{given}",
        ]
    )
    return prompt, "\n".join(form.format(word) for word in words)


def number_lines(rng: Draw) -> Pair:
    """Given lines, numbered in a shown form."""
    _, words = some_words(rng, 3, 9)
    form = rng.choice(["{}. ", "{}) ", "{}: ", "({}) ", "#{} "])
    first = rng.choice([1, 1, 1, rng.randint(2, 30)])
    given = "\n".join(words)
    shown = f'{form.format(first).strip()}"'
    prompt = rng.phrase(
        [
            f'Number these lines, starting with "{shown}:\n{given}',
            f'Put a number before each line. Begin with "{shown}:\n{given}',
            f'{given}\n\nNumber the lines above, starting with "{shown}.',
            f'These lines need numbers. The first is "{shown}:\n{given}',
        ]
    )
    return prompt, "\n".join(form.format(i) + word for i, word in enumerate(words, first))


def zip_lists(rng: Draw) -> Pair:
    """Two lists of equal length, paired as lines or as JSON."""
    keys, values = rng.sample([stock for stock in STOCKS if stock not in ("words", "items")], 2)
    count = rng.randint(3, 5)
    left, right = rng.sample(STOCKS[keys], count), rng.sample(STOCKS[values], count)
    json_wanted = rng.random() < 0.4
    form = "a JSON object" if json_wanted else 'lines like "a: b"'
    first, second = ", ".join(left), ", ".join(right)
    prompt = rng.phrase(
        [
            f"Pair these {keys} with these {values} as {form}.\n{first}\n{second}",
            f"Match the two lists in order as {form}: {first} / {second}",
            f"{first}\n{second}\nPair the two lists above, item by item, as {form}.",
            f"Give each of the {keys} one of the {values}, in order, as {form}.\n{first}\n{second}",
        ]
    )
    pairs = dict(zip(left, right, strict=True))
    return prompt, json.dumps(pairs) if json_wanted else "\n".join(f"{a}: {b}" for a, b in pairs.items())
