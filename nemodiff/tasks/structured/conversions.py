"""Structured families that read records in one format and write them in another; each trained pair is one family.

CSV → HTML table, and INI sections or environment variables from a described record, are left out: they are the
held-out families.
"""

import json
from collections.abc import Callable
from urllib.parse import urlencode

from nemodiff.tasks.structured.draw import Draw
from nemodiff.tasks.structured.wording import an, plain, plural, spoken
from nemodiff.tasks.structured.words import record, schema

Rows = list[dict]
Format = Callable[[str, Rows], str]


def _lines(rows: Rows, joint: str) -> str:
    return "\n".join([joint.join(rows[0])] + [joint.join(map(plain, row.values())) for row in rows])


def _markdown(noun: str, rows: Rows) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0])] + [[plain(cell) for cell in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _html(noun: str, rows: Rows) -> str:
    lines = ["<tr>" + "".join(f"<th>{name}</th>" for name in rows[0]) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{plain(cell)}</td>" for cell in row.values()) + "</tr>" for row in rows]
    return "<table>\n" + "\n".join("  " + line for line in lines) + "\n</table>"


def _sql(noun: str, rows: Rows) -> str:
    def literal(cell: object) -> str:
        return f"'{cell}'" if isinstance(cell, str) else str(cell).upper() if isinstance(cell, bool) else str(cell)

    head = f"INSERT INTO {plural(noun)} ({', '.join(rows[0])}) VALUES"
    return "\n".join(f"{head} ({', '.join(map(literal, row.values()))});" for row in rows)


def _yaml_list(noun: str, rows: Rows) -> str:
    return "\n".join(
        "\n".join(f"{'  ' if i else '- '}{name}: {plain(cell)}" for i, (name, cell) in enumerate(row.items()))
        for row in rows
    )


def _json_list(noun: str, rows: Rows) -> str:
    return "[\n" + ",\n".join("  " + json.dumps(row) for row in rows) + "\n]"


def _elements(row: dict) -> str:
    return "".join(f"<{name}>{plain(cell)}</{name}>" for name, cell in row.items())


def _xml_list(noun: str, rows: Rows) -> str:
    return "\n".join(f"<{noun}>{_elements(row)}</{noun}>" for row in rows)


def _csv(noun: str, rows: Rows) -> str:
    return _lines(rows, ",")


def _bullets(noun: str, rows: Rows) -> str:
    return "\n".join("- " + ", ".join(f"{name}: {plain(cell)}" for name, cell in row.items()) for row in rows)


def _each_line(form: str) -> Format:
    """A format of one record with one line per field; `form` takes name, NAME, noun, NOUN and cell."""
    return lambda noun, rows: "\n".join(
        form.format(name=name, NAME=name.upper(), noun=noun, NOUN=noun.upper(), cell=plain(cell))
        for name, cell in rows[0].items()
    )


def _headed(head: str, body: Format, end: str = "") -> Format:
    return lambda noun, rows: head.format(noun=noun) + "\n" + body(noun, rows) + end.format(noun=noun)


def _toml(noun: str, rows: Rows) -> str:
    return f"[{noun}]\n" + "\n".join(f"{name} = {json.dumps(cell)}" for name, cell in rows[0].items())


# name → (how a prompt calls it, how it is written). {noun} and {nouns} stand for what the records are about.
MANY: dict[str, tuple[str, Format]] = {
    "csv": ("CSV", _csv),
    "markdown": ("markdown table", _markdown),
    "json": ("JSON array", _json_list),
    "yaml": ("YAML list", _yaml_list),
    "html": ("HTML table", _html),
    "sql": ("SQL INSERT statements for the table {nouns}", _sql),
    "xml": ("XML with one {noun} element per line", _xml_list),
    "row_bullets": ("bullet list", _bullets),
    "semicolons": ("list with semicolons between the columns", lambda noun, rows: _lines(rows, ";")),
}
ONE: dict[str, tuple[str, Format]] = {
    "json_record": ("JSON object", lambda noun, rows: json.dumps(rows[0])),
    "yaml_record": ("YAML", _each_line("{name}: {cell}")),
    "ini": ("INI section [{noun}]", _headed("[{noun}]", _each_line("{name} = {cell}"))),
    "env": ("environment variables that start with {NOUN}_", _each_line('{NOUN}_{NAME}="{cell}"')),
    "toml": ("TOML table [{noun}]", _toml),
    "xml_record": (
        "XML element {noun}",
        _headed("<{noun}>", _each_line("  <{name}>{cell}</{name}>"), "\n</{noun}>"),
    ),
    "definitions": (
        "HTML definition list",
        _headed("<dl>", _each_line("  <dt>{name}</dt>\n  <dd>{cell}</dd>"), "\n</dl>"),
    ),
    "query": ("URL query string", lambda noun, rows: urlencode({name: plain(cell) for name, cell in rows[0].items()})),
    "settings": ("lines of the form key = value", _each_line("{name} = {cell}")),
    "bold": ("bullet list with bold names", _each_line("- **{name}**: {cell}")),
    "told": (
        "description",
        lambda noun, rows: f"{an(noun)} with " + spoken([f"{name} {plain(cell)}" for name, cell in rows[0].items()]),
    ),
}
# What a source is called may be shorter than what a target is called.
SOURCES = {
    "sql": "SQL",
    "xml": "XML",
    "ini": "INI section",
    "env": ".env file",
    "toml": "TOML",
    "xml_record": "XML",
    "settings": "list of settings",
}

PAIRS: dict[str, str] = {
    "csv": "yaml xml row_bullets semicolons",
    "json": "markdown html sql yaml xml row_bullets",
    "markdown": "csv json html sql yaml row_bullets",
    "yaml": "csv json markdown sql html",
    "sql": "csv json markdown",
    "html": "markdown json row_bullets",
    "xml": "json csv",
    "json_record": "ini env toml yaml_record xml_record definitions query settings",
    "yaml_record": "ini env json_record toml definitions bold",
    "env": "json_record yaml_record",
    "ini": "json_record env",
    "toml": "json_record",
    "xml_record": "json_record yaml_record",
    "query": "json_record",
    "settings": "json_record query env",
    "told": "xml_record definitions bold query",
}
SHORT = ("html", "xml", "sql", "yaml")  # formats that repeat their names: fewer cells


def _article(words: str) -> str:
    """ "a JSON array", "an HTML table", but "CSV" and "lines …" without an article."""
    if words.startswith(("CSV", "SQL", "XML with", "YAML", "environment", "lines")) and not words.startswith("YAML l"):
        return words
    return f"{'an' if words.startswith(('HTML', 'INI', 'XML')) else 'a'} {words}"


def _conversion(source: str, target: str) -> Callable[[Draw], tuple[str, str]]:
    many = source in MANY
    formats = MANY if many else ONE

    def family(rng: Draw) -> tuple[str, str]:
        short = source in SHORT or target in SHORT
        noun, fields = schema(rng, 2, 3 if many else 4)
        count = rng.randint(2, 2 if short and len(fields) > 2 else 3) if many else 1
        rows = [record(fields, rng) for _ in range(count)]
        words = formats[target][0].format(noun=noun, nouns=plural(noun), NOUN=noun.upper())
        goal = _article(words)
        kind = SOURCES.get(source, formats[source][0])
        given = json.dumps(rows) if source == "json" else formats[source][1](noun, rows)
        what = plural(noun) if many else noun
        prompt = rng.phrase(
            [
                f"Convert this {kind} to {goal}:\n{given}",
                f"Turn this {kind} into {goal}:\n{given}",
                f"{given}\n\nWrite the {kind} above as {goal}.",
                f"Write {'these' if many else 'this'} {what} as {goal}:\n{given}",
                f"Change the format from {kind} to {words}:\n{given}",
                f"I have this {kind}:\n{given}\nGive it to me as {goal}.",
            ]
        )
        return prompt, formats[target][1](noun, rows)

    family.__doc__ = f"Records: {formats[source][0]} → {formats[target][0]}."
    return family


CONVERSIONS: dict[str, Callable[[Draw], tuple[str, str]]] = {
    f"{source}_to_{target}": _conversion(source, target)
    for source, targets in PAIRS.items()
    for target in targets.split()
}
