"""Structured families of short code and markup: output lines, CSS, JavaScript, tests, headings, glossaries, logs."""

import json

from nemodiff.tasks.structured.draw import Draw
from nemodiff.tasks.structured.wording import an, plural, singular
from nemodiff.tasks.structured.words import (
    ADJECTIVES,
    CITIES,
    COLORS,
    HOBBIES,
    NAMES,
    SUBJECTS,
    THINGS,
    record,
    schema,
    some_words,
    typed_schema,
)

Pair = tuple[str, str]


def _fenced(language: str, code: str) -> str:
    return f"```{language}\n{code}\n```"


def output_lines(rng: Draw) -> Pair:
    """Words → an output statement each, in JavaScript, Ruby, a shell or C."""
    stock, words = some_words(rng, 3, 7)
    language, fence, call, form = rng.choice(
        [
            ("JavaScript", "javascript", "console.log", 'console.log("{}");'),
            ("shell", "bash", "echo", 'echo "{}"'),
            ("Ruby", "ruby", "puts", 'puts "{}"'),
            ("C", "c", "puts", 'puts("{}");'),
        ]
    )
    listed = ", ".join(words)
    prompt = rng.phrase(
        [
            f"Write {an(call)} line in {language} for each of these {stock}: {listed}",
            f"Write {language} code that outputs {listed}, each with its own {call}.",
            f"Output each of these words with {call} in {language}: {listed}",
            f"Use one {call} per word in {language}: {listed}",
        ]
    )
    return prompt, _fenced(fence, "\n".join(form.format(word) for word in words))


def print_numbers(rng: Draw) -> Pair:
    """Numbers → a Python print call each."""
    numbers = [str(number) for number in rng.sample(range(1, 500), rng.randint(3, 7))]
    listed = ", ".join(numbers)
    prompt = rng.phrase(
        [
            f"Write Python code that prints the numbers {listed}, each with its own print.",
            f"Print each of these numbers in Python, one print per number: {listed}",
            f"Write one Python print for every number: {listed}",
            f"These numbers need a Python print each: {listed}",
        ]
    )
    return prompt, _fenced("python", "\n".join(f"print({number})" for number in numbers))


def css_rule(rng: Draw) -> Pair:
    """EngineInterface properties → a CSS rule."""
    stock = {
        "color": rng.choice(COLORS),
        "background": rng.choice(COLORS),
        "font-size": f"{rng.randint(8, 40)}px",
        "margin": f"{rng.randint(1, 40)}px",
        "padding": f"{rng.randint(1, 40)}px",
        "width": f"{rng.randint(2, 20) * 5}%",
        "text-align": rng.choice(["left", "right", "center"]),
        "border-radius": f"{rng.randint(1, 20)}px",
    }
    fields = {name: stock[name] for name in rng.sample(list(stock), rng.randint(2, 5))}
    selector = rng.choice([".", "#", ""]) + rng.choice(
        ["card", "button", "title", "header", "footer", "menu", "box", "note"]
    )
    told = ", ".join(f"{name} {cell}" for name, cell in fields.items())
    prompt = rng.phrase(
        [
            f"Write a CSS rule for {selector} with {told}.",
            f"Style {selector} with CSS: {told}",
            f"Create CSS for the selector {selector}: {told}",
            f"The selector {selector} should have {told}. Write the CSS.",
        ]
    )
    body = "\n".join(f"  {name}: {cell};" for name, cell in fields.items())
    return prompt, _fenced("css", f"{selector} {{\n{body}\n}}")


def js_object(rng: Draw) -> Pair:
    """EngineInterface fields → a JavaScript object."""
    noun, fields = schema(rng, 2, 5)
    cells = {name: json.dumps(cell) for name, cell in record(fields, rng).items()}
    told = ", ".join(f"{name} {cell.strip(chr(34))}" for name, cell in cells.items())
    prompt = rng.phrase(
        [
            f"Write a JavaScript object for {an(noun)} with {told}.",
            f"Create a JavaScript constant {noun}: {told}",
            f"Store this {noun} in a JavaScript object: {told}",
            f"{an(noun).capitalize()} has {told}. Write it as a JavaScript object.",
        ]
    )
    body = "\n".join(f"  {name}: {cell}," for name, cell in cells.items())
    return prompt, _fenced("javascript", f"const {noun} = {{\n{body}\n}};")


def js_array(rng: Draw) -> Pair:
    """Words → a JavaScript array."""
    stock, words = some_words(rng, 3, 9)
    listed = ", ".join(words)
    prompt = rng.phrase(
        [
            f"Write a JavaScript array {stock} with {listed}.",
            f"Create a JavaScript constant {stock} that holds {listed}.",
            f"Put these {stock} into a JavaScript array: {listed}",
            f"The array {stock} should contain {listed}. Write it in JavaScript.",
        ]
    )
    return prompt, _fenced("javascript", f"const {stock} = {json.dumps(words)};")


def typescript_enum(rng: Draw) -> Pair:
    """Words → a TypeScript enum with text values."""
    stock, words = some_words(rng, 3, 6)
    name, listed = singular(stock).title(), ", ".join(words)
    prompt = rng.phrase(
        [
            f"Write a TypeScript enum {name} with {listed}.",
            f"Create an enum {name} in TypeScript for {listed}.",
            f"Define a TypeScript enum {name}: {listed}",
            f"These {stock} should be a TypeScript enum {name}: {listed}",
        ]
    )
    body = "\n".join(f'  {word.title()} = "{word}",' for word in words)
    return prompt, _fenced("typescript", f"enum {name} {{\n{body}\n}}")


def function_calls(rng: Draw) -> Pair:
    """CSV → a Python function call for each row."""
    noun, fields = schema(rng, 2, 3)
    fields = {name: kind for name, kind in fields.items() if name != "class"} or {"name": "name"}
    rows = [record(fields, rng) for _ in range(rng.randint(2, 3))]
    name = rng.choice(["add", "create", "save", "send", "print"]) + f"_{noun}"
    given = "\n".join([",".join(fields), *(",".join(map(str, row.values())) for row in rows)])
    prompt = rng.phrase(
        [
            f"Write a call of the Python function {name} with keyword arguments for each row:\n{given}",
            f"Call {name} in Python with keyword arguments for each of these {plural(noun)}:\n{given}",
            f"{given}\n\nCall the Python function {name} with keyword arguments for each row above.",
            f"For every line of this CSV write a Python call of {name} with keyword arguments:\n{given}",
        ]
    )

    def arguments(row: dict) -> str:
        return ", ".join(f"{key}={json.dumps(cell) if isinstance(cell, str) else cell}" for key, cell in row.items())

    return prompt, _fenced("python", "\n".join(f"{name}({arguments(row)})" for row in rows))


def assert_lines(rng: Draw) -> Pair:
    """Inputs with expected results → a Python test function."""
    name, result = rng.choice(
        [
            ("double", lambda n: 2 * n),
            ("add_one", lambda n: n + 1),
            ("add_ten", lambda n: n + 10),
            ("times_ten", lambda n: 10 * n),
            ("is_even", lambda n: n % 2 == 0),
            ("is_large", lambda n: n > 50),
        ]
    )
    cases = [(n, result(n)) for n in rng.sample(range(1, 100), rng.randint(2, 4))]
    told = ", ".join(f"{n} gives {wanted}" for n, wanted in cases)
    prompt = rng.phrase(
        [
            f"Write a Python test for {name}: {told}.",
            f"Write a test function with asserts for the Python function {name}: {told}",
            f"Test {name} in Python with one assert per case: {told}",
            f"The function {name} is right if {told}. Write a Python test.",
        ]
    )
    body = "\n".join(f"    assert {name}({n}) == {wanted}" for n, wanted in cases)
    return prompt, _fenced("python", f"def test_{name}():\n{body}")


def python_signature(rng: Draw) -> Pair:
    """Arguments with types → an empty typed function."""
    noun, fields = typed_schema(rng, 2, 4)
    name = rng.choice(["load", "save", "show", "check", "update", "make"]) + f"_{noun}"
    told = ", ".join(f"{field} ({kind})" for field, kind in fields.items())
    arguments = ", ".join(f"{field}: {kind}" for field, kind in fields.items())
    prompt = rng.phrase(
        [
            f"Write an empty Python function {name} with the arguments {told}.",
            f"Define a typed Python function {name} that does nothing yet. Arguments: {told}",
            f"Write the signature of {name} in Python, with pass as its body: {told}",
            f"{name} takes {told}. Write the Python function with pass as its body.",
        ]
    )
    return prompt, _fenced("python", f"def {name}({arguments}):\n    pass")


def sql_update(rng: Draw) -> Pair:
    """A described change → an UPDATE or DELETE statement."""
    noun, fields = schema(rng, 2, 3)
    row = record(fields, rng)
    (key, wanted), *changes = row.items()

    def literal(cell: object) -> str:
        return f"'{cell}'" if isinstance(cell, str) else str(cell).upper() if isinstance(cell, bool) else str(cell)

    table, condition = plural(noun), f"{key} = {literal(wanted)}"
    if rng.random() < 0.4:
        what = f"deletes all {table} where {key} is {wanted}"
        answer = f"DELETE FROM {table}\nWHERE {condition};"
    else:
        what = f"sets {' and '.join(f'{k} to {c}' for k, c in changes)} in {table} where {key} is {wanted}"
        answer = f"UPDATE {table}\nSET {', '.join(f'{k} = {literal(c)}' for k, c in changes)}\nWHERE {condition};"
    prompt = rng.phrase(
        [
            f"Write a SQL statement that {what}.",
            f"Write SQL that {what}.",
            f"Give me SQL which {what}.",
            f"I need one SQL statement. It {what}.",
        ]
    )
    return prompt, answer


def html_options(rng: Draw) -> Pair:
    """Words → a select element with options, or links."""
    stock, words = some_words(rng, 3, 6)
    listed = ", ".join(words)
    links = rng.random() < 0.4
    what = "HTML links to pages of the same name" if links else f"an HTML select named {stock}"
    prompt = rng.phrase(
        [
            f"Write {what} for {listed}.",
            f"Turn these {stock} into {what}: {listed}",
            f"{listed}\nWrite {what} from the words above.",
            f"I need {what} with {listed}.",
        ]
    )
    if links:
        return prompt, "\n".join(f'<a href="/{word.lower()}">{word}</a>' for word in words)
    options = "\n".join(f'  <option value="{word.lower()}">{word}</option>' for word in words)
    return prompt, f'<select name="{stock}">\n{options}\n</select>'


def headings(rng: Draw) -> Pair:
    """A title and its parts → markdown headings."""
    title = f"{rng.choice(['Guide to', 'Notes on', 'All about', 'History of'])} {rng.choice(HOBBIES + SUBJECTS)}"
    _, words = some_words(rng, 3, 7)
    listed, level = ", ".join(words), rng.choice(["##", "##", "###"])
    prompt = rng.phrase(
        [
            f'Write a markdown outline with the title "{title}" (#) and the headings ({level}) {listed}.',
            f'Make markdown headings. Title (#): "{title}". Headings ({level}): {listed}',
            f'Outline "{title}" in markdown, # for the title and {level} for each part: {listed}',
            f'The text "{title}" has the parts {listed}. Write # and {level} headings in markdown.',
        ]
    )
    return prompt, "\n".join([f"# {title}", *(f"{level} {word}" for word in words)])


def glossary(rng: Draw) -> Pair:
    """Terms with their meanings → a sorted glossary."""
    pairs = [
        (word, f"{an(rng.choice(COLORS))} {thing}")
        for word, thing in zip(rng.sample(SUBJECTS + HOBBIES, 5), rng.sample(THINGS, 5), strict=True)
    ][: rng.randint(3, 5)]
    told = "; ".join(f"{word} means {meaning}" for word, meaning in pairs)
    prompt = rng.phrase(
        [
            f"Write a glossary with bold terms in alphabetical order: {told}",
            f"In our secret language {told}. Write a glossary in alphabetical order with bold terms.",
            f"Turn this into an alphabetical glossary with bold terms: {told}",
            f"{told}\nSort these terms from A to Z into a glossary. The terms are bold.",
        ]
    )
    return prompt, "\n".join(f"**{word}**: {meaning}" for word, meaning in sorted(pairs))


def questions_answers(rng: Draw) -> Pair:
    """Questions with answers → lines "Q: …" and "A: …"."""
    stock = [
        ("Where is the office?", f"In {rng.choice(CITIES)}."),
        ("Who is in charge?", f"{rng.choice(NAMES)} is."),
        ("Which color is available?", f"Only {rng.choice(COLORS)}."),
        ("How long does it take?", f"About {rng.randint(2, 60)} minutes."),
        ("What does it cost?", f"{rng.randint(3, 99)} dollars."),
        ("What should I bring?", f"{an(rng.choice(ADJECTIVES)).capitalize()} {rng.choice(THINGS)}."),
        ("Can I cancel?", f"Yes, within {rng.randint(2, 30)} days."),
    ]
    pairs = rng.sample(stock, rng.randint(2, 4))
    told = " ".join(f"{question} {reply}" for question, reply in pairs)
    prompt = rng.phrase(
        [
            f"Write these questions and answers as an FAQ with Q: and A: lines. {told}",
            f"Turn this into an FAQ, Q: for questions and A: for answers:\n{told}",
            f"{told}\n\nMake an FAQ with Q: and A: from the text above.",
            f"Mark each question with Q: and each answer with A:, one per line:\n{told}",
        ]
    )
    return prompt, "\n".join(f"Q: {question}\nA: {reply}" for question, reply in pairs)


def commit_list(rng: Draw) -> Pair:
    """Changes told in a sentence → a list of commits with running numbers."""
    first = rng.randint(1, 900)
    verbs = ["fix", "add", "remove", "rename", "test", "move"]
    changes = [
        f"{rng.choice(verbs)} the {rng.choice(ADJECTIVES)} {rng.choice(THINGS)}" for _ in range(rng.randint(3, 5))
    ]
    who, told = rng.choice(NAMES), ", ".join(changes)
    prompt = rng.phrase(
        [
            f"Write a commit log by {who} that starts at number {first}: {told}",
            f"List these commits by {who}, numbered from {first}: {told}",
            f"{told}\nWrite the changes above as commits by {who}, numbered from {first}.",
            f"{who} made these changes. Number the commits from {first}: {told}",
        ]
    )
    return prompt, "\n".join(f"#{i} {change} ({who})" for i, change in enumerate(changes, first))


def dialogue_lines(rng: Draw) -> Pair:
    """Who says what, told in a sentence → a script."""
    a, b = rng.sample(NAMES, 2)
    says = [
        "Good morning!",
        f"Do you like the {rng.choice(COLORS)} {rng.choice(THINGS)}?",
        f"I am going to {rng.choice(CITIES)}.",
        f"Let us try {rng.choice(HOBBIES)}.",
        f"See you at {rng.randint(1, 12)} o'clock.",
        f"I lost my {rng.choice(THINGS)}.",
    ]
    lines = [(who, line) for who, line in zip([a, b, a, b], rng.sample(says, 4), strict=True)][: rng.randint(2, 4)]
    told = ", ".join(f'{who} says "{line}"' for who, line in lines)
    prompt = rng.phrase(
        [
            f"Write this as a script: {told}",
            f"Turn this into a dialogue with one line per speaker: {told}",
            f"{told}\nWrite the conversation above as a script.",
            f"First {told}. Write the script, a line for each speaker.",
        ]
    )
    return prompt, "\n".join(f"{who}: {line}" for who, line in lines)


def markdown_links(rng: Draw) -> Pair:
    """Titles → markdown links to files with the same name."""
    _, words = some_words(rng, 3, 7)
    listed, end = ", ".join(words), rng.choice([".md", ".html", ".txt"])
    prompt = rng.phrase(
        [
            f"Write a markdown list of links to the {end} files of {listed}.",
            f"Make a table of contents in markdown with links to {end} files: {listed}",
            f"{listed}\nLink each word above to its {end} file, as a markdown list.",
            f"Each of these has a {end} file. List the markdown links: {listed}",
        ]
    )
    return prompt, "\n".join(f"- [{word}]({word.lower()}{end})" for word in words)
