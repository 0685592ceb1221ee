"""Structured families about short code that follows from its specification alone."""

from nemodiff.tasks.structured.draw import Draw
from nemodiff.tasks.structured.wording import an, plural, singular
from nemodiff.tasks.structured.words import record, schema, some_words, typed_schema

Pair = tuple[str, str]


def dataclass(rng: Draw) -> Pair:
    """Fields with types → a Python dataclass."""
    noun, fields = typed_schema(rng)
    name = noun.title()
    told = ", ".join(f"{field}: {kind}" for field, kind in fields.items())
    plain = ", ".join(f"{field} ({kind})" for field, kind in fields.items())
    prompt = rng.phrase(
        [
            f"Write a Python dataclass {name} with fields {told}",
            f"Create a Python dataclass named {name} with these fields: {told}",
            f"Write a dataclass {name} in Python. Fields: {plain}.",
            f"Define a Python dataclass called {name} with {plain}.",
            f"I need a Python dataclass for {an(noun)} with fields {told}.",
        ]
    )
    body = "\n".join(f"    {field}: {kind}" for field, kind in fields.items())
    return prompt, f"```python\nfrom dataclasses import dataclass\n\n\n@dataclass\nclass {name}:\n{body}\n```"


def python_class(rng: Draw) -> Pair:
    """Field names → a class with an __init__ that stores them."""
    noun, fields = typed_schema(rng, 2, 4)
    name = noun.title()
    told = ", ".join(fields)
    prompt = rng.phrase(
        [
            f"Write a Python class {name} with attributes {told}.",
            f"Create a Python class named {name} whose constructor takes {told}.",
            f"Define a class {name} in Python with an __init__ that stores {told}.",
            f"Write a simple Python class for {an(noun)} with {told}.",
        ]
    )
    body = "\n".join(f"        self.{field} = {field}" for field in fields)
    return prompt, f"```python\nclass {name}:\n    def __init__(self, {told}):\n{body}\n```"


def python_dict(rng: Draw) -> Pair:
    """EngineInterface fields → a Python dictionary."""
    noun, fields = schema(rng, 3, 6)
    row = record(fields, rng)
    told = ", ".join(f"{field} {item}" for field, item in row.items())
    prompt = rng.phrase(
        [
            f"Write a Python dictionary for {an(noun)} with {told}.",
            f"Create a Python dict named {noun} with these entries: {told}",
            f"Store this {noun} in a Python dictionary: {told}",
            f"Turn this {noun} into a Python dict: {told}",
        ]
    )
    body = "\n".join(
        f'    "{field}": {chr(34) + item + chr(34) if isinstance(item, str) else item},'
        for field, item in fields.items()
    )
    return prompt, f"```python\n{noun} = {{\n{body}\n}}\n```"


def python_list(rng: Draw) -> Pair:
    """Words → an assignment of a Python list."""
    name, words = some_words(rng, 4, 12)
    listed = ", ".join(words)
    prompt = rng.phrase(
        [
            f"Write a Python list named {name} with {listed}.",
            f"Create a Python list called {name} containing {listed}.",
            f"Put these {name} into a Python list: {listed}",
            f"Turn this into a Python list named {name}: {listed}",
        ]
    )
    return prompt, f"```python\n{name} = [{', '.join(chr(34) + word + chr(34) for word in words)}]\n```"


def argparse_options(rng: Draw) -> Pair:
    """Options with types → an argparse parser."""
    noun, fields = typed_schema(rng, 2, 4)
    fields = {field: "str" if kind == "bool" else kind for field, kind in fields.items()}
    told = ", ".join(f"--{field} ({kind})" for field, kind in fields.items())
    prompt = rng.phrase(
        [
            f"Write a Python argparse parser with the options {told}.",
            f"Create an argparse parser for {an(noun)} program with {told}.",
            f"Use Python's argparse to read these options: {told}",
            f"Write Python code with argparse for {told}.",
        ]
    )
    body = "\n".join(f'parser.add_argument("--{field}", type={kind})' for field, kind in fields.items())
    return (
        prompt,
        f"```python\nimport argparse\n\nparser = argparse.ArgumentParser()\n{body}\nargs = parser.parse_args()\n```",
    )


def getters(rng: Draw) -> Pair:
    """Field names → a getter function each."""
    noun, fields = typed_schema(rng, 2, 4)
    told = ", ".join(fields)
    prompt = rng.phrase(
        [
            f"Write a Python getter function for each of these fields of {an(noun)}: {told}",
            f"Write Python functions that return the {told} of {an(noun)}.",
            f"For each field of {an(noun)} ({told}) write a Python function that returns it.",
        ]
    )
    body = "\n\n\n".join(f"def get_{field}({noun}):\n    return {noun}.{field}" for field in fields)
    return prompt, f"```python\n{body}\n```"


def enum_class(rng: Draw) -> Pair:
    """Words → a Python enum with consecutive values, or constants."""
    stock, words = some_words(rng, 3, 7)
    words = [word for word in words if word.isalpha()]
    name = singular(stock).title()
    listed = ", ".join(words)
    if rng.random() < 0.5:
        prompt = rng.phrase(
            [
                f"Write a Python enum {name} with the members {listed}.",
                f"Create a Python Enum called {name} for {listed}.",
                f"Define an enum {name} in Python: {listed}",
            ]
        )
        body = "\n".join(f"    {word.upper()} = {i}" for i, word in enumerate(words, 1))
        return prompt, f"```python\nfrom enum import Enum\n\n\nclass {name}(Enum):\n{body}\n```"
    prompt = rng.phrase(
        [
            f"Write Python constants for {listed}, numbered from 1.",
            f"Define numbered constants in Python for these {stock}: {listed}",
            f"Write one Python constant per line for {listed}. Start at 1.",
        ]
    )
    return prompt, "```python\n" + "\n".join(f"{word.upper()} = {i}" for i, word in enumerate(words, 1)) + "\n```"


def typescript_interface(rng: Draw) -> Pair:
    """Fields with types → a TypeScript interface."""
    noun, fields = typed_schema(rng, 3, 6)
    kinds = {"str": "string", "int": "number", "float": "number", "bool": "boolean"}
    fields = {field: kinds[kind] for field, kind in fields.items()}
    told = ", ".join(f"{field} ({kind})" for field, kind in fields.items())
    prompt = rng.phrase(
        [
            f"Write a TypeScript interface {noun.title()} with {told}.",
            f"Define a TypeScript interface for {an(noun)} with fields {told}.",
            f"Create an interface {noun.title()} in TypeScript: {told}",
        ]
    )
    body = "\n".join(f"  {field}: {kind};" for field, kind in fields.items())
    return prompt, f"```typescript\ninterface {noun.title()} {{\n{body}\n}}\n```"


def print_lines(rng: Draw) -> Pair:
    """Words → a print statement each."""
    stock, words = some_words(rng, 3, 8)
    listed = ", ".join(words)
    prompt = rng.phrase(
        [
            f"Write a Python print statement for each of these {stock}: {listed}",
            f"Write Python code that prints {listed}, each with its own print.",
            f"Print each of these words on its own line in Python, one print per word: {listed}",
        ]
    )
    return prompt, "```python\n" + "\n".join(f'print("{word}")' for word in words) + "\n```"


def sql_select(rng: Draw) -> Pair:
    """A question in fixed words → a SELECT statement."""
    noun, fields = schema(rng, 3, 5)
    row = record(fields, rng)
    names = list(row)
    listed, order, table = ", ".join(names[: max(1, len(names) - 2)]), names[-1], plural(noun)
    field, item = rng.choice(list(row.items()))
    literal = f"'{item}'" if isinstance(item, str) else str(item).upper() if isinstance(item, bool) else str(item)
    prompt = rng.phrase(
        [
            f"Write a SQL query that selects {listed} from {table} where {field} is {item}, ordered by {order}.",
            f"Write SQL: {listed} of all {table} with {field} equal to {item}, sorted by {order}.",
            f"Select {listed} from the table {table} where {field} is {item} and order by {order}. Use SQL.",
        ]
    )
    return prompt, f"SELECT {listed}\nFROM {table}\nWHERE {field} = {literal}\nORDER BY {order};"
