"""Open chat prompts, composed from our own templates and topics; what the base model answers becomes the chat
training data."""

import random
import re

from nemodiff.tasks.open_prompts.everyday_prompts import everyday_prompts
from nemodiff.tasks.open_prompts.more_prompts import more_prompts, topics
from nemodiff.tasks.open_prompts.technical_prompts import technical_prompts

# Open prompts that no generator below may produce: acceptance on open text is measured on them.
HELD_OUT_PROMPTS: tuple[str, ...] = (
    "Explain why the sky is blue.",
    "Write a short story about a lighthouse keeper who finds a message in a bottle.",
    "What are three good habits for a healthy life?",
    "Write a Python function that checks whether a number is prime.",
    "How does a refrigerator keep food cold?",
    "Give me some tips for learning a new language.",
    "Write a short poem about autumn leaves.",
    "What is the difference between a virus and a bacterium?",
    "Write a polite e-mail asking my landlord to repair the heating.",
    "Describe how to make a simple vegetable soup.",
    "Summarize how photosynthesis works in a few sentences.",
    "Why do people dream?",
    "Plan a weekend trip to a city by the sea.",
    "What should I consider before adopting a dog?",
    "Explain recursion to a beginner.",
    "List five ideas for a birthday party.",
    "How do vaccines protect us?",
    "Write a product description for a wooden desk lamp.",
    "What makes a good leader?",
    "Tell me about the history of the bicycle.",
    "Explain why ice floats on water.",
    "Why does bread rise in the oven?",
    "What is an opportunity cost?",
    "How does a vinyl record store music?",
    "How do noise-cancelling headphones work?",
    "What is a palindrome? Give a few of them.",
    "Compare a marathon with a triathlon.",
    "What are the differences between a cactus and a fern?",
    "Which is better for short trips, a scooter or a tram?",
    "How do I tie a bow tie?",
    "Give me step-by-step instructions for descaling a kettle.",
    "How can I remove a wine stain from a white tablecloth?",
    "Tell a story about a tailor who sews a coat for the wind.",
    "Write a fairy tale in which a goose becomes queen.",
    "Write the beginning of a mystery set in a hotel elevator.",
    "Write a limerick about a forgetful parrot.",
    "Compose a lullaby for a small hedgehog.",
    "Write an e-mail to a gym to ask for its opening hours during the holidays.",
    "Write a message to my running group: Thursday's training is cancelled because of fog.",
    "Write a JavaScript function that shuffles an array.",
    "What is the time complexity of binary search, and why?",
    "Write a SQL query that finds the three most expensive products.",
    "My brother borrowed my tent and returned it with a hole. How should I react?",
    "How do I stay calm during a long flight delay?",
    "You are a lighthouse. Tell me what you saw last night.",
    "Pretend to be a Roman merchant and sell me a lamp.",
    "Summarize: Honey never spoils because it holds very little water and is slightly acidic. "
    "Archaeologists found jars in old tombs whose honey could still be eaten.",
    "Rewrite in a friendly tone: Your application is incomplete and cannot be processed.",
    "How many bones does an adult human have?",
    "Which is the longest river in Africa?",
    "Recommend three card games for a family evening.",
    "Define the word nostalgia and use it in a sentence.",
    "Give examples of machines that work without electricity.",
    "Write a conversation between a pilot and the control tower about a flock of storks.",
    "Should pupils be allowed to chew gum in class? Give your opinion.",
    "Name seven things you find in a toolbox.",
    "Hi there, I just finished my first painting!",
    "What would happen if the Earth had two moons?",
    "Write a restaurant review of a place that only serves potatoes.",
    "Explain the rules of rock, paper, scissors.",
)

SCIENCE = topics(
    """
    gravity|rain|thunder|rainbows|the seasons|tides|earthquakes|volcanoes|magnets|electricity|sound waves|light|
    heat|friction|evaporation|clouds|wind|snow|fossils|the water cycle|the food chain|digestion|the human heart|
    the lungs|muscles|bones|the brain|memory|sleep|allergies|antibodies|DNA|cells|evolution|pollination|seeds|trees|
    coral reefs|bees|migration of birds|whales|spiders|the moon|the sun|planets|comets|black holes|satellites|
    rockets|telescopes|microscopes|batteries|solar panels|wind turbines|engines|airplanes|submarines|bridges|
    elevators|lasers|thermometers|clocks|mirrors|lenses|soap|glass|steel|concrete|plastic|paper|bread dough|yeast|
    cheese|salt|sugar|caffeine|vitamins
    """
)

COMPUTING = topics(
    """
    the internet|Wi-Fi|search engines|computer memory|a processor|an operating system|a database|encryption|
    passwords|cookies on websites|machine learning|neural networks|a compiler|version control|a programming loop|
    a variable|a function|an array|a hash table|a linked list|sorting|binary numbers|an API|cloud storage|
    a firewall|computer viruses|open source software|a spreadsheet|unit tests|debugging|bar codes|QR codes|GPS|
    touch screens|e-mail|video compression|data backups|web browsers|HTML|a queue
    """
)

SOCIETY = topics(
    """
    inflation|taxes|insurance|interest rates|a budget|supply and demand|democracy|elections|human rights|
    public libraries|museums|recycling|public transport|renewable energy|climate change|city parks|volunteering|
    teamwork|patience|honesty|curiosity|friendship|good manners|creativity|critical thinking|time management|
    small businesses|advertising|online shopping|remote work|education|reading|music|theatre|painting|photography|
    architecture|fashion|chess|football|the Olympic Games|the printing press|the steam engine|the Silk Road|
    ancient Egypt|the Roman Empire|the Renaissance|the Industrial Revolution|the telephone|the radio|maps|calendars|
    money|farming|fishing|tea|coffee|chocolate|spices
    """
)

TASKS = topics(
    """
    boil an egg|bake bread|cook rice|make pancakes|brew coffee|plant tomatoes|water house plants|clean a window|
    wash a wool sweater|iron a shirt|sew on a button|paint a room|hang a picture|fix a flat bicycle tire|
    change a light bulb|unclog a sink|pack a suitcase|read a map|build a campfire|set up a tent|swim better|
    start running|stretch before exercise|fall asleep faster|wake up early|stay focused|take good notes|
    study for an exam|write an essay|give a speech|prepare for a job interview|write a resume|ask for a raise|
    save money|plan a budget|organize a desk|back up files|choose a strong password|learn to type fast|
    learn the guitar|draw a face|take better photos|write a song|start a blog|make new friends|apologize sincerely|
    listen better|deal with stress|resolve an argument|welcome a new neighbor|train a puppy|care for a cat|
    feed wild birds|start a compost heap|save water at home|save electricity|reduce plastic waste|plan a picnic|
    host a dinner|wrap a gift|choose a book|learn to juggle|play chess|solve a puzzle|remember names|read faster|
    fold a paper plane|grow herbs|make lemonade|cook pasta|make a salad|bake cookies
    """
)

PAIRS = topics(
    """
    cats and dogs|tea and coffee|trains and planes|cities and villages|summer and winter|books and films|
    bicycles and cars|apples and oranges|lakes and rivers|stars and planets|plants and animals|frogs and toads|
    butterflies and moths|weather and climate|mass and weight|speed and velocity|solids and liquids|acids and bases|
    viruses and worms on a computer|RAM and disk storage|lists and tuples in Python|HTTP and HTTPS|
    hardware and software|a laptop and a desktop|a phone and a tablet|e-mail and letters|poetry and prose|
    a novel and a short story|jazz and classical music|piano and guitar|oil paint and watercolor|
    running and walking|yoga and stretching|football and basketball|renting and buying a home|saving and investing|
    credit cards and debit cards|a leader and a manager|a hobby and a job|rice and pasta|butter and olive oil|
    bread and cake|fruit and vegetables|gas and electric stoves|wood and metal|cotton and wool|gold and silver|
    mountains and hills|a sea and an ocean|rabbits and hares
    """
)

HEROES = topics(
    """
    a shy robot|a brave mouse|an old sailor|a young baker|a curious cat|a lonely dragon|a clockmaker|
    a girl who talks to birds|a boy with a kite|a lost astronaut|a gardener|a librarian|a violin player|
    a clumsy wizard|a fisherman|a painter|a snail|a fox|a postman|a teacher|a train driver|a tiny elephant|
    a forgotten toy|a night watchman|a beekeeper|a mountain guide|a younger sister|a retired detective|a snowman|
    a talking tree
    """
)

PLOTS = topics(
    """
    finds a hidden door|learns to share|gets lost in a forest|saves a village|discovers an old map|
    makes an unlikely friend|waits for the first snow|builds a boat|keeps a secret|wins a strange contest|
    visits the moon|repairs a broken clock|hears a mysterious song|opens a small shop|crosses a desert|
    plants a magic seed|misses the last train|faces a great storm
    """
)

POEM_TOPICS = topics(
    """
    the sea|a quiet morning|the first day of school|an old bridge|winter light|a summer storm|the night sky|
    a small garden|coffee|friendship|a busy street|the wind|a river|home|hope|a train journey|spring rain|
    a sleeping cat|mountains|the moon|an empty house|a candle|time|a long road|music|the color green|a grandmother|
    snow|a market|silence
    """
)

MAIL = topics(
    """
    asking a colleague for help with a report|thanking a teacher|inviting a friend to dinner|declining a meeting|
    asking for a day off|reporting a broken printer|welcoming a new team member|asking a hotel about parking|
    ordering office supplies|apologizing for a late reply|confirming an appointment|asking for a refund|
    congratulating a friend on a new job|reminding the team of a deadline|asking a professor for advice|
    requesting a quote from a painter|cancelling a subscription|announcing a bake sale|
    asking neighbors to keep quiet at night|suggesting a book club|sharing meeting notes|
    asking about a lost umbrella|proposing a new project|thanking a customer|asking for feedback on a draft
    """
)

LISTS = topics(
    """
    healthy breakfasts|indoor hobbies|gifts for a gardener|names for a cat|rainy day activities|ways to save energy|
    uses for an old jar|things to pack for the beach|questions for a job interview|topics for a school essay|
    simple science experiments|fruits rich in vitamin C|common kitchen tools|animals that live in the desert|
    famous rivers|team games for children|icebreaker questions|small acts of kindness|
    house plants that need little light|ways to relax after work|book genres|healthy snacks|warm-up exercises|
    ideas for a blog|cheap weekend activities|safety rules for cycling|parts of a computer|musical instruments|
    jobs that involve travel|ways to learn vocabulary|ideas for a family dinner|habits of good students|
    things to check before a road trip|features of a good website|slogans for a bakery|names for a coffee shop|
    ways to thank a friend|spring cleaning tasks|desserts with apples|words that describe the sea
    """
)

CODE = topics(
    """
    reverses a string|returns the largest number in a list|counts the vowels in a text|adds two numbers|
    returns the factorial of a number|checks whether a word is a palindrome|removes duplicates from a list|
    returns the average of a list|converts Celsius to Fahrenheit|counts the words in a sentence|
    finds the shortest word in a list|returns the first n even numbers|merges two lists|sums the digits of a number|
    checks whether a year is a leap year|swaps two variables|capitalizes every word|
    returns the last element of a list|generates the first n Fibonacci numbers|computes the area of a circle|
    sorts a list of names|finds the index of an item|filters positive numbers|multiplies all numbers in a list|
    checks whether a list is empty|counts how often a letter occurs|returns the square of each number|
    joins a list of words with commas|reads a text file|prints the numbers from 1 to n
    """
)

PRODUCTS = topics(
    """
    a water bottle|a wool scarf|a garden chair|a notebook|a kitchen knife|a backpack|a table lamp|a bicycle helmet|
    a tea pot|a yoga mat|an umbrella|a wooden toy train|a pair of running shoes|a rain jacket|a coffee grinder|
    a bird house|a travel pillow|a fountain pen|a picnic basket|a wall clock
    """
)

PLACES = topics(
    """
    Rome|Tokyo|Lisbon|Cairo|Prague|Vienna|Kyoto|Istanbul|Athens|Barcelona|Copenhagen|Mexico City|Montreal|Edinburgh|
    Helsinki|Seoul|Nairobi|Lima|Marrakesh|Sydney
    """
)

PEOPLE = topics(
    """
    a nurse|a firefighter|an architect|a software engineer|a chef|a farmer|a pilot|a journalist|a judge|
    a marine biologist|an electrician|a translator|a carpenter|a librarian|a veterinarian|an astronomer
    """
)

SMALL_TALK = (
    "Hello! How are you?",
    "Who are you?",
    "What can you do?",
    "Tell me a fun fact.",
    "Tell me a joke.",
    "Good morning!",
    "I feel bored. Any ideas?",
    "I feel nervous about tomorrow.",
    "Can you help me with my homework?",
    "What is your favorite color?",
    "Say something nice.",
    "I had a bad day.",
    "I cannot decide what to cook tonight.",
    "Give me a riddle.",
    "Teach me something new.",
    "What is a good question to ask a friend?",
    "How can I be happier?",
    "Motivate me to exercise.",
    "I want to learn something useful this week.",
    "What is the meaning of life?",
)

# kind → (templates, topics): "{}" takes a topic.
FAMILIES: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "explain": (
        (
            "Explain {} in simple terms.",
            "What is important to know about {}?",
            "Explain {} to a child.",
            "Tell me about {}.",
            "Give me three facts about {}.",
            "Write a short paragraph about {}.",
            "Describe {} in two sentences.",
        ),
        SCIENCE + COMPUTING + SOCIETY,
    ),
    "how-to": (
        (
            "How do I {}?",
            "Give me step-by-step instructions to {}.",
            "What is the best way to {}?",
            "Give me three tips to {}.",
            "What mistakes should I avoid when I {}?",
        ),
        TASKS,
    ),
    "compare": (
        (
            "Compare {}.",
            "What is the difference between {}?",
            "What do {} have in common?",
            "Make a small table that compares {}.",
        ),
        PAIRS,
    ),
    "poem": (
        (
            "Write a short poem about {}.",
            "Write a haiku about {}.",
            "Write four rhyming lines about {}.",
            "Write a song chorus about {}.",
            "Write a poem without rhymes about {}.",
        ),
        POEM_TOPICS,
    ),
    "e-mail": (
        (
            "Write a short e-mail {}.",
            "Write a polite message {}.",
            "Draft a formal e-mail {}.",
            "Write two friendly lines {}.",
        ),
        MAIL,
    ),
    "list": (("List five {}.", "Give me a list of {}.", "Name some {} and say why."), LISTS),
    "code": (
        (
            "Write a Python function that {}.",
            "Show me a short program that {}.",
            "Write a JavaScript function that {}.",
        ),
        CODE,
    ),
    "advertise": (
        (
            "Write a product description for {}.",
            "Write a short advertisement for {}.",
            "What should I look for when buying {}?",
        ),
        PRODUCTS,
    ),
    "travel": (
        (
            "What can I see in {} in one day?",
            "Give me travel tips for {}.",
            "Why is {} worth a visit?",
            "Describe {} to someone who has never been there.",
        ),
        PLACES,
    ),
    "jobs": (
        ("What does {} do?", "Describe a typical day of {}.", "How do I become {}?", "Which skills does {} need?"),
        PEOPLE,
    ),
}


def _words(prompt: str) -> set[str]:
    return set(re.findall(r"\w+", prompt.lower()))


_HELD_OUT_WORDS = [_words(prompt) for prompt in HELD_OUT_PROMPTS]


def near_held_out(prompt: str, share: float = 0.7) -> bool:
    """True if a held-out prompt shares at least `share` of all words that occur in either of the two."""
    words = _words(prompt)
    return any(len(words & held_out) >= share * len(words | held_out) for held_out in _HELD_OUT_WORDS)


def open_prompts(seed: int = 0) -> list[tuple[str, str]]:
    """Every open prompt once, in an order drawn from `seed`, as (kind, prompt); none is near one of HELD_OUT_PROMPTS.

    The kinds take turns in proportion to the root of their size, so that the first thousand are not mostly of the
    two largest kinds.
    """
    prompts = [
        (kind, template.format(topic))
        for kind, (templates, stock) in FAMILIES.items()
        for template in templates
        for topic in stock
    ]
    prompts += [("story", f"Write a short story about {hero} who {plot}.") for hero in HEROES for plot in PLOTS]
    prompts += [("small-talk", prompt) for prompt in SMALL_TALK]
    prompts += [*more_prompts(SCIENCE, PLACES, HEROES, PLOTS), *technical_prompts(), *everyday_prompts()]
    kinds: dict[str, list[str]] = {}
    for prompt, kind in {prompt: kind for kind, prompt in prompts if not near_held_out(prompt)}.items():
        kinds.setdefault(kind, []).append(prompt)
    rng = random.Random(seed)
    placed = []
    for kind, members in kinds.items():
        rng.shuffle(members)
        placed += [((i + rng.random()) / len(members) ** 0.5, kind, prompt) for i, prompt in enumerate(members)]
    return [(kind, prompt) for _, kind, prompt in sorted(placed)]
