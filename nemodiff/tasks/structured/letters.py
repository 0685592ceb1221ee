"""Structured families about prose that follows from its fields: letters, invitations, notes, and copying text with a
change."""

import random

from nemodiff.tasks.structured.draw import Draw
from nemodiff.tasks.structured.wording import an, plural, spoken
from nemodiff.tasks.structured.words import (
    ADJECTIVES,
    ANIMALS,
    CITIES,
    COLORS,
    DAYS,
    EVENTS,
    FOODS,
    FRUITS,
    HOBBIES,
    JOBS,
    MEETINGS,
    NAMES,
    PLACES,
    SURNAMES,
    THINGS,
    value,
)

Pair = tuple[str, str]


def _sentence(rng: random.Random) -> str:
    """A plain sentence made from the word stock."""
    pick = rng.choice
    return pick(
        [
            f"The {pick(ADJECTIVES)} {pick(ANIMALS)} sat near the {pick(THINGS)} "
            f"and looked at the {pick(COLORS)} {pick(THINGS)}.",
            f"{pick(NAMES)} works as {an(pick(JOBS))} in {pick(CITIES)} and likes {pick(HOBBIES)} on {pick(DAYS)}.",
            f"On {pick(DAYS)} {pick(NAMES)} bought {pick(FOODS)}, {pick(FOODS)} and {an(pick(COLORS))} {pick(THINGS)}.",
            f"{pick(NAMES)} and {pick(NAMES)} went to {pick(CITIES)} to see {an(pick(ADJECTIVES))} {pick(ANIMALS)}.",
            f"Every {pick(DAYS)} the {pick(JOBS)} puts {an(pick(FRUITS))} on the {pick(ADJECTIVES)} {pick(THINGS)}.",
            f"My {pick(ADJECTIVES)} {pick(THINGS)} cost {rng.randint(5, 90)} dollars in {pick(CITIES)}.",
            f"We met {pick(NAMES)} at {rng.randint(1, 12)} o'clock "
            f"and talked about {pick(HOBBIES)} and {pick(HOBBIES)}.",
        ]
    )


def _paragraph(rng: random.Random, low: int = 2, high: int = 4) -> str:
    return " ".join(_sentence(rng) for _ in range(rng.randint(low, high)))


def copy_text(rng: Draw) -> Pair:
    """A paragraph, copied exactly."""
    text = _paragraph(rng)
    prompt = rng.phrase(
        [
            f"Copy this text exactly: {text}",
            f"Repeat the following text word for word:\n{text}",
            f"{text}\n\nRepeat the text above exactly.",
            f"Write this again without any change: {text}",
        ]
    )
    return prompt, text


def replace_word(rng: Draw) -> Pair:
    """A paragraph, copied with one word replaced by another."""
    text = _paragraph(rng)
    words = [
        word
        for word in {*ADJECTIVES, *ANIMALS, *THINGS, *COLORS, *CITIES, *NAMES, *DAYS, *HOBBIES}
        if f" {word}" in f" {text}" and word.isalpha()
    ]
    # Only a whole word may be replaced ("red" is not inside "tired").
    tokens = text.replace(".", " ").replace(",", " ").split()
    old = rng.choice(sorted(word for word in words if word in tokens))
    stock = next(stock for stock in (ADJECTIVES, ANIMALS, THINGS, COLORS, CITIES, NAMES, DAYS, HOBBIES) if old in stock)
    new = rng.choice([word for word in stock if word != old])
    changed = " ".join(new + word[len(old) :] if word.rstrip(".,") == old else word for word in text.split(" "))
    prompt = rng.phrase(
        [
            f'Replace "{old}" with "{new}" in this text: {text}',
            f"Replace the word {old} by {new}: {text}",
            f'Rewrite this text with "{new}" instead of "{old}":\n{text}',
            f"{text}\n\nWrite the text again, but change {old} to {new}.",
            f"Change every {old} to {new}: {text}",
        ]
    )
    return prompt, changed


def change_case(rng: Draw) -> Pair:
    """A sentence or two in upper or lower case."""
    text = _paragraph(rng, 1, 2)
    upper = rng.random() < 0.4
    kind = "upper case" if upper else "lower case"
    prompt = rng.phrase(
        [
            f"Write this in {kind}: {text}",
            f"Convert to {kind}: {text}",
            f"{text}\nRewrite the text above in {kind}.",
            f"Change this text to {kind} letters: {text}",
        ]
    )
    return prompt, text.upper() if upper else text.lower()


def split_sentences(rng: Draw) -> Pair:
    """A paragraph, one sentence a line, as bullets or numbered."""
    sentences = [_sentence(rng) for _ in range(rng.randint(2, 4))]
    text = " ".join(sentences)
    kind = rng.choice(["line", "bullet", "number"])
    told = {
        "line": "Write each sentence on its own line",
        "bullet": "Turn each sentence into a bullet point",
        "number": "Number the sentences, one per line",
    }[kind]
    prompt = rng.phrase([f"{told}: {text}", f"{told}.\n{text}", f"{text}\n\n{told}."])
    mark = {"line": "", "bullet": "- ", "number": "{}. "}[kind]
    return prompt, "\n".join(mark.format(i) + sentence for i, sentence in enumerate(sentences, 1))


def quote_in_email(rng: Draw) -> Pair:
    """A given text as a quote, or inside tags."""
    text = _paragraph(rng, 1, 3)
    kind, opened, closed = rng.choice(
        [
            ("a markdown quote", "> ", ""),
            ("double quotes", '"', '"'),
            ("a <p> tag", "<p>", "</p>"),
            ("a <div> tag", "<div>", "</div>"),
            ("bold markdown", "**", "**"),
            ("round brackets", "(", ")"),
            ("a code block", "```\n", "\n```"),
        ]
    )
    prompt = rng.phrase(
        [
            f"Put this text in {kind}: {text}",
            f"Wrap the following text in {kind}:\n{text}",
            f"{text}\n\nWrite the text above in {kind}.",
        ]
    )
    return prompt, f"{opened}{text}{closed}"


def invitation(rng: Draw) -> Pair:
    """An invitation from its fields."""
    guest, host = rng.sample(NAMES, 2)
    event, place, day, time = rng.choice(EVENTS), rng.choice(PLACES), rng.choice(DAYS), value("time", rng)
    prompt = rng.phrase(
        [
            f"Write an invitation to {an(event)} for {guest} from {host}, on {day} at {time}, at {place}.",
            f"Write a short invitation. Guest: {guest}. Event: {event}. Day: {day}. Time: {time}. "
            f"Place: {place}. Host: {host}.",
            f"{host} invites {guest} to {an(event)} on {day} at {time} at {place}. Write the invitation.",
            f"Invite {guest} to my {event} at {place} on {day} at {time}. My name is {host}.",
            f"Write an invitation from {host} to {guest} for {an(event)} ({day}, {time}, {place}).",
        ]
    )
    return prompt, (
        f"Dear {guest},\n\nyou are warmly invited to {an(event)} on {day} at {time}. We will meet at {place}.\n\n"
        f"Please let me know if you can come.\n\nBest wishes,\n{host}"
    )


def meeting_email(rng: Draw) -> Pair:
    """An e-mail about a meeting from its fields."""
    to, sender = rng.sample(NAMES, 2)
    topic, day, time = rng.choice(MEETINGS), rng.choice(DAYS), value("time", rng)
    prompt = rng.phrase(
        [
            f"Write an e-mail to {to} about a meeting on {topic}, {day} at {time}, signed {sender}.",
            f"Write a meeting e-mail. To: {to}. Topic: {topic}. Day: {day}. Time: {time}. From: {sender}.",
            f"{sender} asks {to} for a meeting about {topic} on {day} at {time}. Write the e-mail.",
            f"Draft an e-mail from {sender} to {to}: meeting about {topic} on {day} at {time}.",
        ]
    )
    return prompt, (
        f"Subject: Meeting about {topic}\n\nHi {to},\n\nI would like to meet on {day} at {time} to talk about {topic}. "
        f"Please tell me if this time works for you.\n\nKind regards,\n{sender}"
    )


def thank_you_note(rng: Draw) -> Pair:
    """A thank-you note from its fields."""
    to, sender = rng.sample(NAMES, 2)
    thing, color, event = rng.choice(THINGS), rng.choice(COLORS), rng.choice(EVENTS)
    prompt = rng.phrase(
        [
            f"Write a thank-you note to {to} for the {color} {thing} from my {event}. Sign it {sender}.",
            f"Thank {to} for the {color} {thing}, a gift at the {event}. My name is {sender}.",
            f"Write a thank-you note. To: {to}. Gift: {color} {thing}. Event: {event}. From: {sender}.",
            f"{sender} thanks {to} for {an(color)} {thing} after the {event}. Write the note.",
        ]
    )
    return (
        prompt,
        f"Dear {to},\n\nthank you very much for the {color} {thing}. It was great to see you at the {event}, "
        f"and I will think of you whenever I use it.\n\nWith love,\n{sender}",
    )


def introduction(rng: Draw) -> Pair:
    """EngineInterface people → sentences of one pattern each."""
    people = rng.sample(NAMES, rng.randint(2, 4))
    rows = [(name, rng.randint(18, 80), rng.choice(JOBS), rng.choice(CITIES), rng.choice(HOBBIES)) for name in people]
    told = "\n".join(f"{name}, {age}, {job}, {city}, {hobby}" for name, age, job, city, hobby in rows)
    prompt = rng.phrase(
        [
            f"Introduce these people in one sentence each:\n{told}",
            f"Write one sentence about each person (name, age, job, city, hobby):\n{told}",
            f"{told}\n\nIntroduce the people above, one sentence per line.",
            f"Turn this list of people into sentences:\n{told}",
        ]
    )
    lines = [
        f"{name} is {age} years old, works as {an(job)} in {city} and likes {hobby}."
        for name, age, job, city, hobby in rows
    ]
    return prompt, "\n".join(lines)


def business_card(rng: Draw) -> Pair:
    """A sentence about a person → labelled lines."""
    name, job, city = f"{rng.choice(NAMES)} {rng.choice(SURNAMES)}", rng.choice(JOBS), rng.choice(CITIES)
    phone, email = f"555-{rng.randint(1000, 9999)}", f"{name.lower().replace(' ', '.')}@example.com"
    prompt = rng.phrase(
        [
            f"Extract name, job, city, phone and email: {name} is {an(job)} from {city}. "
            f"Call {phone} or write to {email}.",
            f"{name} works as {an(job)} in {city}; phone {phone}, email {email}. "
            "List name, job, city, phone and email.",
            f"Write a contact card for {name}, {job} in {city}, phone {phone}, email {email}.",
            f"Make a contact card: {name}, {job}, {city}, {phone}, {email}",
        ]
    )
    return prompt, f"Name: {name}\nJob: {job}\nCity: {city}\nPhone: {phone}\nEmail: {email}"


def shopping_list(rng: Draw) -> Pair:
    """A sentence with things to buy → a list with amounts, or the other way round."""
    items = [(rng.randint(2, 12), plural(fruit)) for fruit in rng.sample(FRUITS, rng.randint(3, 6))]
    told = spoken([f"{count} {food}" for count, food in items])
    prompt = rng.phrase(
        [
            f"Write a shopping list: I need {told}.",
            f"Turn this sentence into a shopping list: I have to buy {told}.",
            f"We need {told}. Write the shopping list.",
            f"Make a shopping list with {told}.",
        ]
    )
    return prompt, "Shopping list:\n" + "\n".join(f"- {count} {food}" for count, food in items)


def schedule(rng: Draw) -> Pair:
    """Days with activities in a sentence → a timetable."""
    days = [day for day in DAYS if rng.random() < 0.6] or DAYS[:3]
    plan = [(day, rng.choice(HOBBIES)) for day in days]
    told = spoken([f"{hobby} on {day}" for day, hobby in plan])
    bold = rng.random() < 0.3
    prompt = rng.phrase(
        [
            f"Write a weekly schedule: {told}.",
            f"Turn this into a schedule with one day per line: {told}",
            f"Make a timetable for my week. I do {told}.",
            f"My plan is {told}. Write it as a schedule.",
        ]
    ) + (" Use bold day names." if bold else "")
    return prompt, "\n".join(f"{f'**{day}**' if bold else day}: {hobby}" for day, hobby in plan)
