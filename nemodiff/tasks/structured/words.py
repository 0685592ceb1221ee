"""Word stock of the structured tasks: names, places, things, and records of fields with plausible values."""

import random
from collections.abc import Callable


def _words(text: str) -> list[str]:
    return text.split()


NAMES = _words(
    """
    Anna Ben Clara David Elena Felix Grace Hugo Irene Jonas Kate Leo Maria Noah Olga Paul Quinn Rosa Sam Tara
    Uma Victor Wendy Yusuf Zoe Amir Bianca Carlos Diana Emil Fatima George Hana Ivan Julia Kenji Laura Marco
    Nina Oscar Petra Rafael Sofia Tom Vera Walter Ximena Yara Alice Bruno Chloe Daniel Emma Frank Gina Henry
    Isabel Jack Karen Louis Mila Nora Omar Priya Ravi Sara Theo Lena Max Ruth Simon Iris Lucas Alma Peter Joan
    Mateo Ingrid Tariq Selma
    Ada Aisha Anton Arthur Astrid Aurora Boris Camila Cyrus Dalia Dmitri Edith Elias Esther Fiona Gabriel Greta
    Hassan Helen Igor Jasmin Joel Judith Karim Leila Leon Liam Lydia Magnus Malik Marta Mei Miriam Naomi Nadia
    Niko Otto Pablo Paula Ramon Rita Ruben Samir Silvia Sonia Stefan Tobias Ursula Valeria Viktor Yuki Zara
    """
)
SURNAMES = _words(
    """
    Miller Novak Silva Rossi Tanaka Khan Berg Costa Weber Laurent Petrov Garcia Jensen Kowalski Murphy Okafor
    Sato Lindgren Moreau Haddad Fischer Romero Nagy Larsen Dubois Marino Walsh Ortiz Keller Brandt
    Abe Baker Carter Cohen Diaz Duarte Ferrari Greco Hughes Ito Klein Lopez Mendes Mori Olsen Park Quinn Reyes
    Schmidt Singh Torres Vega Wagner Young Zimmer
    """
)
CITIES = _words(
    """
    Lisbon Paris Berlin Rome Madrid Vienna Prague Oslo Dublin Athens Warsaw Zurich Milan Porto Seville Krakow
    Geneva Lyon Turin Bergen Boston Denver Austin Seattle Chicago Toronto Lima Quito Bogota Tokyo Osaka Kyoto
    Seoul Delhi Cairo Tunis Nairobi Accra Sydney Perth Helsinki Budapest Valencia Ghent Munich Hamburg
    Amsterdam Antwerp Atlanta Bangkok Basel Bilbao Bristol Calgary Cologne Dallas Dresden Florence Glasgow Granada
    Hanoi Houston Jakarta Leeds Lagos Leipzig Malaga Manila Miami Montreal Mumbai Naples Nice Ottawa Palermo Riga
    Rotterdam Santiago Singapore Sofia Stockholm Tallinn Utrecht Venice Vilnius York
    """
)
COUNTRIES = _words(
    """
    France Spain Italy Norway Brazil Japan Kenya Canada Mexico Peru Egypt India Poland Greece Portugal Austria
    Ireland Chile Ghana Finland Turkey Vietnam Morocco Denmark
    Argentina Australia Belgium Bolivia Croatia Cuba Estonia Germany Hungary Iceland Indonesia Latvia Malta Nepal
    Nigeria Panama Romania Senegal Sweden Tunisia Uganda Ukraine Uruguay Zambia
    """
)
FRUITS = _words(
    """
    apple banana cherry grape lemon mango orange peach pear plum kiwi fig melon papaya lime apricot date coconut
    strawberry blueberry
    """
)
ANIMALS = _words(
    """
    cat dog horse rabbit fox wolf bear tiger lion eagle owl duck goose sheep goat cow frog turtle dolphin whale
    shark mouse deer camel zebra
    badger beaver crow falcon giraffe hamster hedgehog koala lizard monkey otter panda parrot penguin pony
    raven seal snail spider squirrel swan wasp
    """
)
THINGS = _words(
    """
    chair table lamp clock mirror book pencil notebook bottle basket blanket pillow candle hammer ladder bucket
    kettle spoon plate bowl cup knife umbrella backpack wallet camera radio guitar violin piano drum bicycle
    helmet scarf jacket shirt sweater hat glove sock shoe boot ring bracelet
    anchor balloon barrel bell belt bench blender broom brush button cabinet calendar carpet coin compass cushion
    drawer engine fan fork frame funnel hook iron jar key kite lantern magnet mug napkin needle oven pan
    pillar pipe pump puzzle ribbon rope ruler saw shelf shovel sofa stamp statue tent ticket towel tray vase wagon
    wheel whistle window
    """
)
FOODS = _words(
    """
    rice bread pasta cheese butter milk eggs sugar salt flour honey olives tomatoes potatoes carrots onions
    garlic spinach beans lentils chicken fish tofu soup salad yogurt coffee tea juice water
    bacon barley beef broccoli cabbage celery cocoa corn cream cucumber ginger ham jam lettuce mushrooms mustard
    noodles nuts oats parsley peas pepper pumpkin radish raisins vanilla vinegar walnuts
    """
)
COLORS = _words(
    """
    red blue green yellow orange purple pink brown black white gray gold silver violet turquoise
    beige bronze coral crimson cyan indigo ivory lavender magenta maroon navy olive scarlet teal
    """
)
HOBBIES = _words(
    """
    reading hiking cooking painting swimming cycling chess gardening dancing running singing photography fishing
    knitting yoga surfing climbing sailing skating writing drawing baking camping tennis football archery
    """
)
JOBS = _words(
    """
    teacher nurse engineer baker doctor lawyer painter farmer pilot writer designer chef gardener carpenter
    plumber dentist editor actor singer librarian
    architect barber butcher cashier clerk coach driver electrician firefighter florist geologist guide janitor
    judge mechanic musician optician pharmacist photographer porter sailor sculptor tailor translator waiter
    """
)
SUBJECTS = _words(
    """
    math physics history music biology chemistry geography art literature economics
    """
)
ADJECTIVES = _words(
    """
    small large old new bright dark quiet fast slow heavy light soft warm cold clean sharp round tall short
    ancient broken calm cheap clever curious deep dusty empty fancy gentle giant hidden hollow loud narrow noisy
    pale plain polite proud rare rough rusty shiny silent simple smooth square strange strong thick thin tiny
    wide wild young
    happy
    """
)
MONTHS = _words(
    """
    January February March April May June July August September October November December
    """
)
DAYS = _words(
    """
    Monday Tuesday Wednesday Thursday Friday Saturday Sunday
    """
)
PLANETS = _words(
    """
    Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune
    """
)
EVENTS = [
    "birthday party",
    "wedding",
    "picnic",
    "concert",
    "book club",
    "barbecue",
    "movie night",
    "housewarming",
    "garden party",
    "dinner",
    "graduation party",
    "chess tournament",
    "board game night",
    "reunion",
    "art exhibition",
    "charity run",
]
MEETINGS = [
    "the budget",
    "the new website",
    "the sales report",
    "the summer campaign",
    "the office move",
    "the hiring plan",
    "the product launch",
    "the test results",
    "the training schedule",
    "the customer survey",
]
STREETS = [
    f"{name} {kind}"
    for name in _words("Oak Maple Mill Church River Station Garden Market Park Bridge Harbor School Hill Lake")
    for kind in ("Street", "Road", "Lane")
]
PLACES = [
    "the park",
    "the library",
    "the town hall",
    "our garden",
    "the beach",
    "the office",
    "the museum",
    "the school",
    "the community center",
    "the old mill",
    "the station cafe",
    "my apartment",
]

STOCKS: dict[str, list[str]] = {
    "names": NAMES,
    "cities": CITIES,
    "countries": COUNTRIES,
    "fruits": FRUITS,
    "animals": ANIMALS,
    "items": THINGS,
    "foods": FOODS,
    "colors": COLORS,
    "hobbies": HOBBIES,
    "jobs": JOBS,
    "subjects": SUBJECTS,
    "words": ADJECTIVES,
}

# What a record can be about: field name → how a value is drawn. Values are str, int, float or bool, never quoted or
# escaped.
RECORDS: dict[str, dict[str, str]] = {
    "person": {
        "name": "name",
        "age": "age",
        "city": "city",
        "job": "job",
        "email": "email",
        "country": "country",
        "height": "height",
    },
    "book": {
        "title": "title",
        "author": "fullname",
        "year": "year",
        "pages": "pages",
        "price": "price",
        "genre": "genre",
    },
    "product": {
        "name": "thing",
        "price": "price",
        "color": "color",
        "stock": "count",
        "weight": "weight",
        "category": "category",
    },
    "city": {"name": "city", "country": "country", "population": "population", "area": "area", "mayor": "fullname"},
    "student": {"name": "name", "grade": "grade", "subject": "subject", "score": "score", "class": "classroom"},
    "employee": {
        "name": "fullname",
        "role": "job",
        "salary": "salary",
        "office": "city",
        "years": "grade",
        "remote": "bool",
    },
    "car": {
        "brand": "brand",
        "color": "color",
        "year": "year",
        "price": "salary",
        "doors": "doors",
        "electric": "bool",
    },
    "recipe": {
        "dish": "dish",
        "minutes": "minutes",
        "servings": "grade",
        "difficulty": "difficulty",
        "vegetarian": "bool",
    },
    "order": {"id": "id", "customer": "name", "item": "thing", "quantity": "grade", "total": "price", "paid": "bool"},
    "flight": {
        "number": "flight",
        "origin": "city",
        "target": "city",
        "gate": "gate",
        "seats": "count",
        "delayed": "bool",
    },
    "animal": {"species": "animal", "name": "name", "age": "grade", "weight": "count", "color": "color"},
    "event": {"title": "event", "date": "date", "city": "city", "guests": "count", "host": "name", "time": "time"},
    "server": {"host": "host", "port": "port", "region": "region", "memory": "memory", "active": "bool"},
    "hotel": {"name": "title", "city": "city", "rooms": "count", "stars": "doors", "price": "price", "pool": "bool"},
    "course": {"subject": "subject", "teacher": "fullname", "room": "gate", "hours": "grade", "start": "date"},
    "player": {"name": "name", "team": "city", "number": "age", "goals": "grade", "captain": "bool"},
    "invoice": {"id": "id", "customer": "fullname", "date": "date", "total": "price", "paid": "bool"},
    "task": {"title": "task", "owner": "name", "due": "date", "hours": "grade", "done": "bool"},
    "plant": {"name": "plant", "color": "color", "height": "height", "month": "month", "price": "price"},
    "train": {"number": "flight", "start": "city", "stop": "city", "time": "time", "platform": "grade"},
    "device": {"name": "host", "brand": "brand", "battery": "score", "memory": "memory", "online": "bool"},
    "song": {"title": "title", "artist": "fullname", "seconds": "count", "year": "year", "genre": "music"},
}

PYTHON_TYPES = {str: "str", int: "int", float: "float", bool: "bool"}


def value(kind: str, rng: random.Random) -> str | int | float | bool:
    """One plausible value of a RECORDS kind."""
    pick = rng.choice
    draws: dict[str, Callable[[], str | int | float | bool]] = {
        "name": lambda: pick(NAMES),
        "fullname": lambda: f"{pick(NAMES)} {pick(SURNAMES)}",
        "city": lambda: pick(CITIES),
        "country": lambda: pick(COUNTRIES),
        "job": lambda: pick(JOBS),
        "thing": lambda: pick(THINGS),
        "color": lambda: pick(COLORS),
        "animal": lambda: pick(ANIMALS),
        "subject": lambda: pick(SUBJECTS),
        "email": lambda: f"{pick(NAMES).lower()}@example.com",
        "title": lambda: f"The {pick(ADJECTIVES).title()} {pick(THINGS + ANIMALS).title()}",
        "genre": lambda: pick(["novel", "poetry", "history", "mystery", "science", "travel", "biography"]),
        "music": lambda: pick(["jazz", "rock", "pop", "folk", "soul"]),
        "category": lambda: pick(["home", "garden", "office", "sports", "kitchen", "travel", "school"]),
        "brand": lambda: pick(["Volta", "Nordia", "Kestrel", "Aurora", "Lumen", "Zephyr", "Orion", "Tamar"]),
        "dish": lambda: pick(
            [
                "pancakes",
                "tomato soup",
                "lasagna",
                "curry",
                "omelette",
                "paella",
                "apple pie",
                "fried rice",
                "salad",
                "risotto",
            ]
        ),
        "task": lambda: f"{pick(['buy', 'clean', 'move', 'paint', 'repair', 'sell'])} the {pick(THINGS)}",
        "plant": lambda: pick(["rose", "tulip", "daisy", "lily", "basil", "mint", "fern", "ivy", "orchid", "sage"]),
        "month": lambda: pick(MONTHS),
        "difficulty": lambda: pick(["easy", "medium", "hard"]),
        "event": lambda: pick(EVENTS),
        "classroom": lambda: f"{rng.randint(1, 9)}{pick('ABCD')}",
        "flight": lambda: f"{pick('ABKLNT')}{pick('AFHLMP')}{rng.randint(100, 999)}",
        "gate": lambda: f"{pick('ABCDE')}{rng.randint(1, 40)}",
        "host": lambda: f"{pick(['web', 'db', 'cache', 'mail', 'api'])}-{rng.randint(1, 30)}",
        "region": lambda: pick(["north", "south", "east", "west", "central"]),
        "date": lambda: f"{rng.randint(2020, 2030)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
        "time": lambda: f"{rng.randint(8, 21)}:{pick(['00', '15', '30', '45'])}",
        "age": lambda: rng.randint(6, 90),
        "year": lambda: rng.randint(1950, 2025),
        "pages": lambda: rng.randint(80, 900),
        "count": lambda: rng.randint(2, 400),
        "grade": lambda: rng.randint(1, 12),
        "score": lambda: rng.randint(40, 100),
        "population": lambda: rng.randint(20, 900) * 1000,
        "area": lambda: rng.randint(20, 900),
        "salary": lambda: rng.randint(20, 95) * 1000,
        "doors": lambda: pick([2, 3, 4, 5]),
        "minutes": lambda: rng.randint(2, 18) * 5,
        "id": lambda: rng.randint(100, 9999),
        "port": lambda: pick([80, 443, 3000, 5432, 8000, 8080, 9000]),
        "memory": lambda: pick([2, 4, 8, 16, 32, 64]),
        "bool": lambda: rng.random() < 0.5,
        "price": lambda: rng.randint(100, 9900) / 100 if rng.random() < 0.5 else rng.randint(2, 200) + 0.5,
        "weight": lambda: rng.randint(1, 99) / 10,
        "height": lambda: rng.randint(150, 199),
    }
    return draws[kind]()


def schema(rng: random.Random, low: int = 3, high: int = 5) -> tuple[str, dict[str, str]]:
    """A record's noun and `low` to `high` of its fields (name → value kind), mostly in their usual order."""
    noun = rng.choice(list(RECORDS))
    fields = RECORDS[noun]
    chosen = rng.sample(list(fields), min(rng.randint(low, high), len(fields)))
    if rng.random() < 0.6:
        chosen = [name for name in fields if name in chosen]
    return noun, {name: fields[name] for name in chosen}


def typed_schema(rng: random.Random, low: int = 3, high: int = 5) -> tuple[str, dict[str, str]]:
    """As `schema`, with the name of each field's Python type instead of its kind."""
    noun, fields = schema(rng, low, high)
    # A Python keyword cannot be an attribute.
    return noun, {name: PYTHON_TYPES[type(value(kind, rng))] for name, kind in fields.items() if name != "class"}


def record(fields: dict[str, str], rng: random.Random) -> dict[str, str | int | float | bool]:
    """One value for every field."""
    return {name: value(kind, rng) for name, kind in fields.items()}


def some_words(rng: random.Random, low: int, high: int) -> tuple[str, list[str]]:
    """`low` to `high` distinct words of one stock, with the stock's name; now and then mixed from several stocks."""
    count = rng.randint(low, high)
    if rng.random() < 0.2:
        return "words", rng.sample(sorted({*FRUITS, *ANIMALS, *THINGS, *FOODS, *COLORS}), count)
    name = rng.choice(list(STOCKS))
    return name, rng.sample(STOCKS[name], min(count, len(STOCKS[name])))
