"""Small pieces of English grammar for prompts and answers made of the word stock."""

_IRREGULAR = {
    "deer": "deer",
    "goose": "geese",
    "knife": "knives",
    "mouse": "mice",
    "person": "people",
    "scarf": "scarves",
    "sheep": "sheep",
    "shelf": "shelves",
    "wolf": "wolves",
}


def an(words: str) -> str:
    """ "a car", "an old car": `words` after the article that fits them."""
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"


def plural(noun: str) -> str:
    """The plural of a countable noun, also used as a table's name."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("ch", "sh", "s", "x", "mango")) else "s")


def singular(stock: str) -> str:
    """The singular of the name of a word stock: "cities" → "city"."""
    return stock[:-3] + "y" if stock.endswith("ies") else stock.removesuffix("s")


def spoken(words: list[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def plain(cell: object) -> str:
    """A value as text: true and false in lower case, no quotes."""
    return str(cell).lower() if isinstance(cell, bool) else str(cell)
