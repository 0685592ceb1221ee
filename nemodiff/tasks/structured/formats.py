"""Structured families about data formats: JSON, CSV, markdown, SQL, YAML, HTML and bullets, in both directions where
it makes sense."""

import json
import random
from typing import Any

from nemodiff.tasks.structured.draw import Draw
from nemodiff.tasks.structured.wording import an, plain, plural, spoken
from nemodiff.tasks.structured.words import record, schema, some_words, value

Pair = tuple[str, str]


def _csv(rows: list[dict]) -> str:
    lines = [",".join(rows[0])] + [",".join(map(plain, row.values())) for row in rows]
    return "\n".join(lines)


def _rows(
    rng: random.Random, columns: tuple[int, int] = (2, 4), count: tuple[int, int] = (2, 4)
) -> tuple[str, list[dict]]:
    noun, fields = schema(rng, *columns)
    return noun, [record(fields, rng) for _ in range(rng.randint(*count))]


def _described(fields: dict) -> str:
    """ "name Maria, age 34 and city Lisbon": fields with their values, as a person would write them."""
    return spoken([f"{name} {plain(item)}" for name, item in fields.items()])


def json_array(rng: Draw) -> Pair:
    """Words → a JSON array of strings."""
    name, words = some_words(rng, 4, 14)
    listed = ", ".join(words)
    prompt = rng.phrase(
        [
            f"List these {name} as a JSON array: {listed}",
            f"Turn this list into a JSON array: {listed}",
            f"Write a JSON array of the {name} {spoken(words)}.",
            f"Convert to JSON: {listed}",
            f"{listed}\nFormat the {name} above as a JSON array of strings.",
            "Make a JSON array from these lines:\n" + "\n".join(words),
        ]
    )
    return prompt, json.dumps(words)


def json_object(rng: Draw) -> Pair:
    """EngineInterface fields → a JSON object, sometimes with a list among its values."""
    noun, kinds = schema(rng, 2, 5)
    fields: dict[str, Any] = dict(record(kinds, rng))
    described = _described(fields)
    if rng.random() < 0.4:
        stock, words = some_words(rng, 2, 4)
        described = f"{_described(fields).replace(' and ', ', ')} and {stock} {', '.join(words)}"
        fields[stock] = words
    prompt = rng.phrase(
        [
            f"Write a JSON object for {an(noun)} with {described}.",
            f"Create a JSON object that describes {an(noun)} with {described}.",
            f"Convert this {noun} to JSON: {described}",
            f"Give me JSON for {an(noun)}: {described}.",
            f"{an(noun).capitalize()} has {described}. Write it as a JSON object.",
            f"Represent {an(noun)} with {described} as JSON.",
        ]
    )
    return prompt, json.dumps(fields)


def json_indented(rng: Draw) -> Pair:
    """EngineInterface fields → a JSON object with one field a line."""
    noun, kinds = schema(rng, 3, 5)
    fields = record(kinds, rng)
    prompt = rng.phrase(
        [
            f"Write a JSON object with indentation for {an(noun)} with {_described(fields)}.",
            f"Pretty-print this JSON: {json.dumps(fields)}",
            f"Create pretty-printed JSON for {an(noun)} with {_described(fields)}.",
            f"Format this {noun} as indented JSON: {_described(fields)}",
        ]
    )
    return prompt, json.dumps(fields, indent=2)


def markdown_table(rng: Draw) -> Pair:
    """CSV → a markdown table."""
    noun, rows = _rows(rng, (2, 4), (2, 4))
    text = _csv(rows)
    prompt = rng.phrase(
        [
            f"Turn this CSV into a markdown table:\n{text}",
            f"Turn this CSV into a markdown table: {text}",
            f"Convert this CSV to a markdown table:\n{text}",
            f"Make a markdown table from this data:\n{text}",
            f"{text}\n\nFormat the CSV above as a markdown table.",
            f"Write the following {plural(noun)} as a table in markdown:\n{text}",
        ]
    )
    lines = [f"| {' | '.join(rows[0])} |", f"| {' | '.join('---' for _ in rows[0])} |"]
    lines += [f"| {' | '.join(map(plain, row.values()))} |" for row in rows]
    return prompt, "\n".join(lines)


def csv_to_json(rng: Draw) -> Pair:
    """CSV → a JSON array of objects, one per line."""
    _, rows = _rows(rng, (2, 3), (2, 4))
    text = _csv(rows)
    prompt = rng.phrase(
        [
            f"Convert this CSV to JSON:\n{text}",
            f"Turn this CSV into a JSON array of objects:\n{text}",
            f"{text}\n\nWrite the CSV above as JSON.",
            f"Make JSON from this CSV data:\n{text}",
        ]
    )
    return prompt, "[\n" + ",\n".join("  " + json.dumps(row) for row in rows) + "\n]"


def json_to_csv(rng: Draw) -> Pair:
    """A JSON array of objects → CSV."""
    noun, rows = _rows(rng, (2, 4), (2, 4))
    text = json.dumps(rows)
    answer = ",".join(rows[0]) + "\n"
    answer += "\n".join(",".join(plain(cell) for cell in row.values()) for row in rows)
    prompt = rng.phrase(
        [
            f"Convert this JSON to CSV: {text}",
            f"Turn this JSON array into CSV:\n{text}",
            f"Write these {plural(noun)} as CSV with a header line: {text}",
            f"{text}\nFormat the JSON above as CSV.",
        ]
    )
    return prompt, answer


def sql_insert(rng: Draw) -> Pair:
    """Rows → INSERT statements."""
    noun, rows = _rows(rng, (2, 4), (2, 3))
    table = plural(noun)
    columns = ", ".join(rows[0])

    def literal(item: object) -> str:
        return f"'{item}'" if isinstance(item, str) else str(item).upper() if isinstance(item, bool) else str(item)

    statements = [
        f"INSERT INTO {table} ({columns}) VALUES ({', '.join(literal(cell) for cell in row.values())});" for row in rows
    ]
    told = "; ".join(", ".join(map(plain, row.values())) for row in rows)
    prompt = rng.phrase(
        [
            f"Write SQL INSERT statements for the table {table} ({columns}): {told}",
            f"Write SQL INSERT statements for these {table}:\n{_csv(rows)}",
            f"Turn this CSV into SQL INSERT statements for a table named {table}:\n{_csv(rows)}",
            f"Insert these rows into the table {table} with columns {columns}. Use SQL.\n"
            + "\n".join(told.split("; ")),
            f"Generate SQL that inserts the following {table} ({columns}): {told}",
        ]
    )
    return prompt, "\n".join(statements)


def sql_create(rng: Draw) -> Pair:
    """Columns with types → a CREATE TABLE statement."""
    noun, fields = schema(rng, 3, 6)
    kinds = {str: "TEXT", int: "INTEGER", float: "REAL", bool: "BOOLEAN"}
    columns = {name: kinds[type(value(kind, rng))] for name, kind in fields.items()}
    told = ", ".join(f"{name} {kind.lower()}" for name, kind in columns.items())
    prompt = rng.phrase(
        [
            f"Write a SQL CREATE TABLE statement for {plural(noun)} with columns {told}.",
            f"Create a SQL table {plural(noun)} with these columns: {told}",
            f"Write SQL that creates a table named {plural(noun)} ({told}).",
            f"I need a SQL table for {plural(noun)}. Columns: {told}.",
        ]
    )
    body = ",\n".join(f"  {name} {kind}" for name, kind in columns.items())
    return prompt, f"CREATE TABLE {plural(noun)} (\n{body}\n);"


def yaml_fields(rng: Draw) -> Pair:
    """EngineInterface fields → YAML, sometimes with a list."""
    noun, kinds = schema(rng, 3, 5)
    fields = record(kinds, rng)
    told = _described(fields)
    lines = [f"{name}: {plain(item)}" for name, item in fields.items()]
    if rng.random() < 0.5:
        stock, words = some_words(rng, 2, 5)
        told = f"{told.replace(' and ', ', ')} and {stock} {', '.join(words)}"
        lines += [f"{stock}:"] + [f"  - {word}" for word in words]
    prompt = rng.phrase(
        [
            f"Write YAML for {an(noun)} with {told}.",
            f"Describe {an(noun)} in YAML: {told}",
            f"Convert this {noun} to YAML: {told}",
            f"Write a YAML file for {an(noun)} with {told}.",
            f"Format as YAML: {told}",
        ]
    )
    return prompt, "\n".join(lines)


def html_list(rng: Draw) -> Pair:
    """Words → an HTML list, ordered or not."""
    name, words = some_words(rng, 3, 9)
    ordered = rng.random() < 0.35
    tag = "ol" if ordered else "ul"
    kind = "ordered HTML list" if ordered else "HTML list"
    listed = ", ".join(words)
    prompt = rng.phrase(
        [
            f"Write an {kind} of these {name}: {listed}",
            f"Turn this list into an {kind}: {listed}",
            f"Make an {kind} with the items {spoken(words)}.",
            f"{listed}\nFormat the {name} above as an {kind}.",
            f"Convert to an {kind}:\n" + "\n".join(words),
        ]
    )
    return prompt, f"<{tag}>\n" + "\n".join(f"  <li>{word}</li>" for word in words) + f"\n</{tag}>"


def html_table(rng: Draw) -> Pair:
    """CSV → an HTML table."""
    noun, rows = _rows(rng, (2, 3), (2, 3))
    text = _csv(rows)
    prompt = rng.phrase(
        [
            f"Turn this CSV into an HTML table:\n{text}",
            f"Convert this CSV to an HTML table:\n{text}",
            f"{text}\n\nWrite the {plural(noun)} above as an HTML table.",
            f"Make an HTML table from this data:\n{text}",
        ]
    )
    lines = ["<tr>" + "".join(f"<th>{name}</th>" for name in rows[0]) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{plain(cell)}</td>" for cell in row.values()) + "</tr>" for row in rows]
    return prompt, "<table>\n" + "\n".join("  " + line for line in lines) + "\n</table>"


def json_to_bullets(rng: Draw) -> Pair:
    """A JSON object → a bullet list "- **field**: value" or "- field: value"."""
    noun, kinds = schema(rng, 3, 6)
    fields = record(kinds, rng)
    bold = rng.random() < 0.3
    text = json.dumps(fields)
    style = " with bold names" if bold else ""
    prompt = rng.phrase(
        [
            f"Turn this JSON into a bullet list{style}: {text}",
            f"Write this JSON object as bullet points{style}:\n{text}",
            f"List the fields of this {noun} as bullets{style}: {text}",
            f"{text}\nFormat the JSON above as a bullet list{style}.",
        ]
    )
    lines = [f"- {f'**{key}**' if bold else key}: {plain(item)}" for key, item in fields.items()]
    return prompt, "\n".join(lines)


def bullets(rng: Draw) -> Pair:
    """Words → a bullet list, a numbered list or a to-do list in markdown."""
    name, words = some_words(rng, 4, 12)
    kind = rng.choice(["bullet list", "numbered list", "checklist"])
    mark = {"bullet list": lambda i: "-", "numbered list": lambda i: f"{i}.", "checklist": lambda i: "- [ ]"}[kind]
    listed = ", ".join(words)
    prompt = rng.phrase(
        [
            f"Turn this list into a {kind}: {listed}",
            f"Write these {name} as a {kind}: {listed}",
            f"Make a markdown {kind} of {spoken(words)}.",
            f"{listed}\nFormat the {name} above as a {kind}.",
            f"Write a {kind} with one item per line: {listed}",
        ]
    )
    return prompt, "\n".join(f"{mark(i)} {word}" for i, word in enumerate(words, 1))


def key_values(rng: Draw) -> Pair:
    """EngineInterface fields → an INI section, environment variables or a query string."""
    noun, fields = schema(rng, 3, 5)
    fields = {name: plain(item) for name, item in record(fields, rng).items()}
    told = _described(fields)
    kind = rng.choice(["INI section", "environment variables"])
    prompt = rng.phrase(
        [
            f"Write {'an ' if kind == 'INI section' else ''}{kind} for {an(noun)} with {told}.",
            f"Convert to {'an ' if kind == 'INI section' else ''}{kind}: {noun} with {told}",
            f"Format this {noun} as {'an ' if kind == 'INI section' else ''}{kind}: {told}",
        ]
    )
    if kind == "INI section":
        return prompt, f"[{noun}]\n" + "\n".join(f"{name} = {item}" for name, item in fields.items())
    return prompt, "\n".join(f'{noun.upper()}_{name.upper()}="{item}"' for name, item in fields.items())
