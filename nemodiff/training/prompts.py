"""Open chat prompts, composed from our own templates and topics; what the base model answers becomes the chat
training data."""

import random


def _topics(text: str) -> list[str]:
    """Topics between bars; line ends are only for the reader."""
    return "".join(line.strip() for line in text.splitlines()).split("|")


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
)

SCIENCE = _topics(
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

COMPUTING = _topics(
    """
    the internet|Wi-Fi|search engines|computer memory|a processor|an operating system|a database|encryption|
    passwords|cookies on websites|machine learning|neural networks|a compiler|version control|a programming loop|
    a variable|a function|an array|a hash table|a linked list|sorting|binary numbers|an API|cloud storage|
    a firewall|computer viruses|open source software|a spreadsheet|unit tests|debugging|bar codes|QR codes|GPS|
    touch screens|e-mail|video compression|data backups|web browsers|HTML|a queue
    """
)

SOCIETY = _topics(
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

TASKS = _topics(
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

PAIRS = _topics(
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

HEROES = _topics(
    """
    a shy robot|a brave mouse|an old sailor|a young baker|a curious cat|a lonely dragon|a clockmaker|
    a girl who talks to birds|a boy with a kite|a lost astronaut|a gardener|a librarian|a violin player|
    a clumsy wizard|a fisherman|a painter|a snail|a fox|a postman|a teacher|a train driver|a tiny elephant|
    a forgotten toy|a night watchman|a beekeeper|a mountain guide|two sisters|a retired detective|a snowman|
    a talking tree
    """
)

PLOTS = _topics(
    """
    finds a hidden door|learns to share|gets lost in a forest|saves a village|discovers an old map|
    makes an unlikely friend|waits for the first snow|builds a boat|keeps a secret|wins a strange contest|
    visits the moon|repairs a broken clock|hears a mysterious song|opens a small shop|crosses a desert|
    plants a magic seed|misses the last train|faces a great storm
    """
)

POEM_TOPICS = _topics(
    """
    the sea|a quiet morning|the first day of school|an old bridge|winter light|a summer storm|the night sky|
    a small garden|coffee|friendship|a busy street|the wind|a river|home|hope|a train journey|spring rain|
    a sleeping cat|mountains|the moon|an empty house|a candle|time|a long road|music|the color green|a grandmother|
    snow|a market|silence
    """
)

MAIL = _topics(
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

LISTS = _topics(
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

CODE = _topics(
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

PRODUCTS = _topics(
    """
    a water bottle|a wool scarf|a garden chair|a notebook|a kitchen knife|a backpack|a table lamp|a bicycle helmet|
    a tea pot|a yoga mat|an umbrella|a wooden toy train|a pair of running shoes|a rain jacket|a coffee grinder|
    a bird house|a travel pillow|a fountain pen|a picnic basket|a wall clock
    """
)

PLACES = _topics(
    """
    Rome|Tokyo|Lisbon|Cairo|Prague|Vienna|Kyoto|Istanbul|Athens|Barcelona|Copenhagen|Mexico City|Montreal|Edinburgh|
    Helsinki|Seoul|Nairobi|Lima|Marrakesh|Sydney
    """
)

PEOPLE = _topics(
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
    "compare": (("Compare {}.", "What is the difference between {}?", "What do {} have in common?"), PAIRS),
    "poem": (
        ("Write a short poem about {}.", "Write a haiku about {}.", "Write four rhyming lines about {}."),
        POEM_TOPICS,
    ),
    "e-mail": (("Write a short e-mail {}.", "Write a polite message {}.", "Draft a formal e-mail {}."), MAIL),
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


def open_prompts(seed: int = 0) -> list[tuple[str, str]]:
    """Every open prompt once, in an order drawn from `seed`, as (kind, prompt); none of HELD_OUT_PROMPTS is among
    them."""
    rng = random.Random(seed)
    prompts = [
        (kind, template.format(topic))
        for kind, (templates, topics) in FAMILIES.items()
        for template in templates
        for topic in topics
    ]
    prompts += [
        ("story", f"Write a short story about {hero} who {plot}.") for hero in HEROES for plot in rng.sample(PLOTS, 6)
    ]
    prompts += [("small-talk", prompt) for prompt in SMALL_TALK]
    unique = {prompt: kind for kind, prompt in prompts if prompt not in HELD_OUT_PROMPTS}
    ordered = [(kind, prompt) for prompt, kind in sorted(unique.items())]
    # Explanations are half of all prompts: the larger key keeps them from being half of the first thousand too.
    return [
        item for _, item in sorted((rng.random() * (1.7 if item[0] == "explain" else 1.0), item) for item in ordered)
    ]
