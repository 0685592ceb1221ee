"""Open prompts about code in several languages and about mathematics told in words."""

from collections.abc import Iterator
from itertools import product

from nemodiff.tasks.open_prompts.more_prompts import topics

LANGUAGES = topics("Java|C|Rust|Go|TypeScript|Ruby|Kotlin|C#|PHP|Bash|Swift|Lua")
PROGRAMS = topics(
    """
    reverses a list|finds the smallest number|counts the words of a line|adds up an array|checks a password's length|
    prints a multiplication table|turns minutes into hours and minutes|draws a triangle of stars|
    splits a line at commas|counts down from ten|finds the longest word|rounds a price to two places|
    tells whether a number is even|keeps a list of tasks|guesses a number from 1 to 100|reads lines until an empty one|
    turns text into capital letters|sorts points by their distance|makes change for an amount|replaces spaces by dashes
    """
)
TABLES = topics(
    """
    customers and their orders|books and authors|students and grades|flights and airports|employees and departments|
    songs and albums|invoices and payments|recipes and ingredients|rooms and bookings|matches and teams
    """
)
QUERIES = topics(
    """
    Write a SQL query that joins {}.|Write the CREATE TABLE statements for {}.|Write a SQL query that counts {}.|
    Explain how to store {} in a database.
    """
)
WIDGETS = topics(
    """
    a login form|a navigation bar|a table of prices|a photo gallery|a contact form|a list of links|a blue button|
    a footer with an address|a card with a picture|a search field|a progress bar|a page title with a subtitle
    """
)
PAGES = topics(
    """
    Write HTML for {}.|Write HTML and CSS for {}.|How do I center {} with CSS?|Explain the HTML that {} needs.
    """
)
BUGS = topics(
    """
    for i in range(len(a)): print(a[i + 1])|if x = 3: print("three")|def f(x): x + 1|while True: print("hello")|
    print("Total: " + 5)|numbers = [1, 2, 3]; numbers[3] = 4|def area(r): return 3.14 * r ** r|
    total = 0; for n in [1, 2]: total = n|names = {"a": 1}; print(names["b"])|s = "abc"; s[0] = "x"|
    def greet(name): print("Hello nme")|import maths|def half(n): return n / 0
    """
)
ABOUT_BUGS = topics(
    """
    What is wrong with this Python code? `{}`|Explain what this Python code does: `{}`|Correct this Python code: `{}`|
    What does Python say about this line? `{}`
    """
)
IDEAS = topics(
    """
    a stack|a queue|a linked list|a hash table|a binary tree|a pointer|garbage collection|a compiler|an interpreter|
    a unit test|version control|an API|a regular expression|object-oriented programming|inheritance|a closure|
    an exception|a thread|a deadlock|bubble sort|quicksort|a graph search|dynamic programming|big-O notation|
    a loop invariant|a package manager|a cache|a race condition|a JSON file|an environment variable
    """
)
ABOUT_IDEAS = topics(
    """
    Explain {} with an everyday example.|What is {} good for?|When would a programmer use {}?|
    Explain {} in three sentences.|Write a quiz question about {}.
    """
)
MATHEMATICS = topics(
    """
    the Pythagorean theorem|prime numbers|fractions|percentages|negative numbers|the number pi|square roots|
    logarithms|the mean and the median|probability|a linear equation|a quadratic equation|a derivative|an integral|
    a vector|a matrix|a proof by contradiction|mathematical induction|the binomial theorem|compound interest|
    the area of a triangle|the volume of a cylinder|angles in a polygon|a coordinate system|a function's graph|
    sets and subsets|permutations|the least common multiple|the greatest common divisor|rounding|powers of two|
    the golden ratio|Roman numerals|binary numbers|symmetry
    """
)
ABOUT_MATHEMATICS = topics(
    """
    Explain {} to a pupil.|Give an example of {} and explain each step.|Why is {} useful?|
    Write a short exercise about {} with its solution.|What mistakes do people make with {}?|Who first studied {}?
    """
)
GOODS = topics("notebooks|lemons|tickets|candles|sandwiches|flowers|marbles|towels|chairs|postcards|cups|batteries")
NAMES = topics("Nora|Emil|Priya|Tomas|Aisha|Felix|Mei|Oscar|Lucia|Ben")


def _problems() -> Iterator[str]:
    """Word problems: every pair of a name and goods with numbers of its own, by one of several stories."""
    for i, (name, goods) in enumerate(product(NAMES, GOODS)):
        a, b, c = 3 + i % 17, 2 + i % 7, 12 + 5 * (i % 11)
        yield (
            f"{name} buys {a} {goods} for {b} euros each. How much does {name} pay?",
            f"{name} has {c} {goods} and shares them among {b} friends. How many does each friend get?",
            f"{name} sells {a} {goods} on Monday and {c} on Tuesday. How many are that in all? Explain your answer.",
            f"A box holds {b} {goods}. How many boxes does {name} need for {c} {goods}? Show the steps.",
            f"{name} had {c + a} {goods} and lost {a}. What share is left? Think step by step.",
        )[i % 5]


def _journeys() -> Iterator[str]:
    for i, vehicle in enumerate(("train", "bus", "cyclist", "ship", "runner", "truck", "tram", "balloon")):
        for hours in (2, 3, 4):
            speed = (90, 60, 18, 30, 11, 70, 25, 20)[i]
            yield f"A {vehicle} moves at {speed} kilometers an hour. How far does it get in {hours} hours?"
            yield f"A {vehicle} covers {speed * hours} kilometers in {hours} hours. How fast is it? Show your work."


def _filled(templates: list[str], stock: list[str]) -> list[str]:
    return [template.format(topic) for template in templates for topic in stock]


def technical_prompts() -> list[tuple[str, str]]:
    """(kind, prompt) of every kind in this module, in a fixed order."""
    kinds = {
        "code in a language": [
            prompt
            for language, what in product(LANGUAGES, PROGRAMS)
            for prompt in (f"Write a {language} program that {what}.", f"How would you write {language} that {what}?")
        ],
        "databases": _filled(QUERIES, TABLES),
        "web pages": _filled(PAGES, WIDGETS),
        "bugs": _filled(ABOUT_BUGS, BUGS),
        "programming ideas": _filled(ABOUT_IDEAS, IDEAS),
        "languages compared": [
            f"Compare {one} with {other} for a beginner."
            for i, one in enumerate(LANGUAGES)
            for other in ("Python", *LANGUAGES[i + 1 :])
        ],
        "mathematics": _filled(ABOUT_MATHEMATICS, MATHEMATICS),
        "word problems": [*_problems(), *_journeys()],
    }
    return [(kind, prompt) for kind, prompts in kinds.items() for prompt in prompts]
