"""More kinds of open prompts: dialogues, advice, summaries, rewriting, opinions, trivia and others, composed from our
own templates."""

from itertools import product


def topics(text: str) -> list[str]:
    """Topics between bars; line ends are only for the reader."""
    return "".join(line.strip() for line in text.splitlines()).split("|")


SITUATIONS = topics(
    """
    I moved to a new city and know nobody|my best friend forgot my birthday|I have too much work this week|
    I want to change my job|my neighbor plays loud music|I cannot save any money|I am afraid of flying|
    my child does not like vegetables|I have to speak in front of a crowd|I lost my keys again|
    I feel tired every afternoon|my team does not talk to each other|I want to read more books|
    my plants keep dying|I spend too much time on my phone|I failed an exam|my boss never says thank you|
    I want to learn to cook|my roommate does not clean|I have an interview tomorrow|I want to run a marathon|
    I argue with my sister often|I do not know what to study|my computer is very slow|I want to get up earlier|
    my cat scratches the sofa|I have nothing to wear for a wedding|I forget people's names|
    I want to start a small company|I have guests in one hour and no food
    """
)
OPINIONS = topics(
    """
    working from home|school uniforms|electric cars|homework|e-books|tourism|zoos|video games|social media|
    a four-day week|space travel|fast food|robots in hospitals|free public transport|learning Latin|online dating|
    paper money|early mornings|big cities|open offices|celebrity news|self-driving cars|organic food|winter holidays|
    team sports at school|living alone|long novels|city bikes|short meetings|keeping a diary
    """
)
EVERYDAY = topics(
    """
    a pencil|a door|a bridge|an umbrella|a mirror|a candle|a kitchen|a train station|a rainy street|a library|
    an old tree|a harbor|a market|a snowy field|a lighthouse|a bakery in the morning|a busy airport|a desert at night|
    a mountain lake|a child's room|a workshop|a garden in spring|a crowded bus|an empty theatre|a thunderstorm|
    a farm|a small island|a ship|a castle|a classroom
    """
)
CONCEPTS = topics(
    """
    irony|a metaphor|a renewable resource|a mammal|a chemical reaction|a simple machine|teamwork at school|
    a good habit|a compound word|a proverb|a primary color|a polite request|a hypothesis|a fair rule|a web browser|
    a folk tale|a balanced meal|an open question|a healthy argument|a natural disaster|a programming language|
    a public service|an idiom|recycling at home|a strong opening sentence|a good apology|a data type|
    a prime number|a right angle|a historical source
    """
)
WORDS = topics(
    """
    brave|gentle|curious|honest|bright|ancient|silent|clever|hungry|proud|rapid|fragile|cheerful|famous|careful|
    strange|tiny|enormous|lazy|polite|angry|calm|bitter|fresh|hollow|lucky|modern|narrow|ordinary|patient|rare|
    sharp|smooth|stubborn|sudden|tired|useful|vivid|warm|wise
    """
)
ROLES = topics(
    """
    a tour guide in a museum|a ship's captain|a chef in a small restaurant|a weather reporter|a librarian|
    a robot from the future|a football coach|a medieval knight|a wise grandmother|a detective|a science teacher|
    a friendly shopkeeper|a space pilot|a gardener|a storyteller at a campfire
    """
)
LINES = topics(
    """
    Welcome me.|Tell me about your day.|Give me a piece of advice.|Tell me what you see right now.|
    Explain what you like about your work.|Warn me about something.|Tell me a short joke.|Say goodbye.
    """
)
COUPLES = topics(
    """
    a customer and a waiter|a doctor and a patient|a teacher and a student|two old friends|a mother and her son|
    a tourist and a local|a boss and a new employee|a cat and a dog|a clock and a calendar|two neighbors|
    a buyer and a seller|a child and a grandfather|a driver and a police officer|two scientists|a painter and a model
    """
)
ABOUT = topics(
    """
    the weather|a lost bag|a birthday present|lunch|a late train|a broken window|a new idea|the price of apples|
    holiday plans|a strange noise|a book they both like|a small mistake
    """
)
SENTENCES = topics(
    """
    The meeting was moved to Monday because the room was not free.|I can't come today, I have too much to do.|
    The soup was good but the bread was old.|We need the report as soon as possible.|
    The dog ran across the street and the man shouted.|Your order is late and we are sorry.|
    He did not want to go, but he went anyway.|The new phone is fast, light and expensive.|
    She opened the letter and began to laugh.|Please stop parking in front of my door.|
    The film was long and I fell asleep.|Our shop is closed on Sunday and opens at nine on Monday.|
    The children built a boat out of paper.|It is cold outside, so take a coat.|
    The team lost the game but played very well.|I forgot to send you the pictures.|
    The bus was full, so we walked home in the rain.|
    We cannot accept your offer because the price is too high.|My phone has no battery, call me later.|
    The lesson was boring and the teacher knew it.|You must clean the kitchen before you leave.|
    The cat slept while the mice danced.|I have not heard from you for a long time.|
    This recipe needs two eggs and some milk.|
    The old man told us about the war and his garden.|My computer stopped working in the middle of the call.
    """
)
STYLES = topics(
    """
    more politely|in a formal style|in simpler words|as a question|in the future tense|in the past tense|
    as a newspaper headline|in a funny way|as a text message to a friend|with more detail
    """
)
SUBJECTS = topics(
    """
    The town of Miller's Creek opened a new library last week.|A group of students built a solar oven.|
    The old bridge over the river will be closed for repairs.|A farmer found a large fossil in his field.|
    The school garden has grown a lot this year.|A small bakery has won a national prize.|
    The museum shows drawings by unknown artists.|A lost dog walked forty kilometers back home.|
    Scientists counted the birds on the northern coast.|The city council wants to plant two thousand trees.
    """
)
DETAILS = topics(
    """
    It took more than three years to prepare, and many volunteers helped.|
    At first nobody believed it, but the local newspaper wrote about it.|
    The cost was paid by a foundation, and a part came from small donations.|
    Experts say that it is the first case of this kind in the region.
    """
)
ENDINGS = topics(
    """
    Visitors can see for themselves every Saturday morning.|The mayor called it a good day for everyone.|
    The next step is planned for spring.|Some people are still worried about the noise and the traffic.
    """
)
READERS = topics(
    """
    a ten-year-old|someone who likes history|a busy parent|a beginner in cooking|a retired teacher|a music lover|
    someone on a tight budget|a person who hates crowds|a rainy Sunday|a long train journey|two friends|a shy teenager
    """
)
RECOMMENDED = topics(
    """
    a book|a board game|a hobby|a present|a weekend trip|a film genre|a simple meal|a sport|a podcast topic|
    a small project|a pet|an evening course
    """
)
PLANS = topics(
    """
    a week of simple dinners|a surprise party|a study week before exams|a day without a phone|a spring cleaning|
    a school science fair|a picnic for ten people|a first vegetable garden|a move to another flat|
    a walking tour of a small town|a month of daily exercise|a family photo album|a book club meeting|
    a training day for new colleagues|a charity concert|a camping weekend|a garage sale|a quiet holiday at home|
    a class trip to a farm|a neighborhood breakfast
    """
)
PYTHON = topics(
    """
    len()|range()|a for loop|a while loop|an if statement|a list comprehension|a lambda|try and except|the import line|
    a class|a dictionary|a tuple|a set|print()|input()|open()|enumerate()|zip()|sorted()|a decorator|a generator|
    a default argument|an f-string|slicing|None|a module|a virtual environment|pip|assert|the return statement
    """
)
GIT = topics(
    """
    undo the last commit in git|create a branch in git|merge two branches|see the history in git|rename a branch|
    copy a file on Linux|find a file by its name|count the lines of a file|list running programs|unpack a zip file|
    join two tables in SQL|count rows in SQL|sort results in SQL|center text in CSS|add a link in HTML|
    add an image in HTML|read JSON in Python|write a CSV file in Python|sort a list in JavaScript|
    make a request in JavaScript|stop an endless loop|round a number in Python|split a text into words|
    compare two strings in Java|measure how long a program runs
    """
)
COUNTRIES = topics(
    """
    France|Spain|Italy|Norway|Brazil|Japan|Kenya|Canada|Mexico|Peru|Egypt|India|Poland|Greece|Portugal|Austria|
    Ireland|Chile|Ghana|Finland|Turkey|Vietnam|Morocco|Denmark|Argentina|Australia|Belgium|Germany|Hungary|Iceland|
    Sweden|Thailand|Indonesia|Nepal|Cuba
    """
)
INVENTIONS = topics(
    """
    the telephone|the light bulb|the steam engine|the camera|the zipper|the microwave oven|the compass|paper|
    the piano|the ballpoint pen|the elevator|the thermometer|the typewriter|the parachute|the sewing machine|
    the television|the calculator|the wheel|the umbrella|the toothbrush|chewing gum|the helicopter|the barometer|
    the printing press|the telescope
    """
)
OPENINGS = topics(
    """
    The door was open, although Ella was sure she had closed it.|On the last day of summer the circus left town.|
    The letter had no stamp and no name.|Nobody had used the well for a hundred years.|
    The robot woke up and the house was empty.|When the lights went out, somebody laughed.|
    My grandfather owned a map that was wrong on purpose.|The train stopped where there was no station.|
    It had snowed all night, and there were footprints on the roof.|The parrot knew one secret too many.|
    Every morning the baker put aside one loaf.|The ship returned without its captain.|
    There were thirteen chairs and twelve guests.|The clock struck thirteen, and Tom put down his spoon.|
    She found the key in the pocket of a coat that was not hers.|The river had moved in the night.
    """
)
LETTERS = topics(
    """
    my aunt|a former teacher|my neighbors|a friend abroad|my landlady|the city council|a pen pal|my grandparents|
    a colleague who retires|the editor of a newspaper
    """
)
REASONS = topics(
    """
    a book they gave me|help with moving house|a wonderful dinner|the noise at night|a new playground|
    the summer we spent together|good advice|a package that got lost|my first week at work|a garden full of roses
    """
)
TALK = topics(
    """
    I just got home from work.|It is raining again.|I like Mondays.|My favorite season is autumn.|
    I had pancakes for breakfast.|I got a new bicycle today.|I am learning to play the guitar.|I cannot sleep.|
    Tomorrow is my birthday.|I am waiting for the bus.|I have a new job!|I miss my dog.|We won the match!|
    I watched an old film yesterday.|I burned the rice.|My garden is full of flowers.|I am going on holiday.|
    I want a cup of tea.|I am a bit sad today.|Good evening!|Thank you for your help.|What a beautiful morning!|
    Do you like music?|Do you ever get bored?|Are you a robot?|How was your day?|What should I do this evening?|
    Can we talk about books?|Tell me something that makes you smile.|Good night!
    """
)
PERSONS = topics(
    """
    Marie Curie|Albert Einstein|Isaac Newton|Leonardo da Vinci|Cleopatra|Julius Caesar|William Shakespeare|
    Jane Austen|Ludwig van Beethoven|Wolfgang Amadeus Mozart|Nelson Mandela|Mahatma Gandhi|Abraham Lincoln|
    Charles Darwin|Galileo Galilei|Ada Lovelace|Alan Turing|Florence Nightingale|Frida Kahlo|Vincent van Gogh|
    Aristotle|Plato|Confucius|Marco Polo|Amelia Earhart|Rosa Parks|Louis Pasteur|Johannes Gutenberg|Mark Twain|
    Neil Armstrong
    """
)
ANIMALS = topics(
    """
    owls|penguins|elephants|foxes|dolphins|hedgehogs|bats|ants|butterflies|crocodiles|kangaroos|wolves|octopuses|
    squirrels|camels|eagles|snakes|turtles|giraffes|polar bears|horses|pigeons|sharks|mosquitoes|beavers
    """
)
FOODS = topics(
    """
    potatoes|lentils|eggs|rice|old bread|tomatoes|pumpkin|chickpeas|spinach|mushrooms|carrots|oats|cabbage|salmon|
    zucchini|beans|yogurt|walnuts|corn|beetroot
    """
)
SPORTS = topics(
    """
    tennis|volleyball|rugby|table tennis|ice hockey|handball|golf|rowing|judo|baseball|cricket|badminton|fencing|
    archery|water polo
    """
)
FRUIT = topics("apples|pears|oranges|pencils|tickets|books|cakes|cards|eggs|bottles")


def _filled(templates: list[str], stock: list[str]) -> list[str]:
    return [template.format(topic) for template in templates for topic in stock]


#: Of each kind the sentences, and what each is filled with.
FILLED: dict[str, list[tuple[list[str], list[str]]]] = {
    "advice": [
        (
            ["What should I do? {}.", "Give me some advice: {}.", "{}. Can you help me?", "{}. Give me three ideas."],
            [situation[0].upper() + situation[1:] for situation in SITUATIONS],
        )
    ],
    "opinion": [
        (
            [
                "What do you think about {}?",
                "List pros and cons of {}.",
                "Give an argument for {} and one against.",
                "Write a short opinion piece about {}.",
            ],
            OPINIONS,
        )
    ],
    "describe": [
        (
            ["Describe {} in a few sentences.", "Describe {} using all five senses.", "Write a riddle about {}."],
            EVERYDAY,
        )
    ],
    "example": [
        (
            ["Give me an example of {}.", "Give two examples of {} and explain them.", "How would you define {}?"],
            CONCEPTS,
        )
    ],
    "words": [
        (
            [
                'Use the word "{}" in three sentences.',
                'Give me five synonyms of "{}".',
                'What does the word "{}" mean?',
                'What is the opposite of "{}"?',
            ],
            WORDS,
        )
    ],
    "plan": [(["Help me to plan {}.", "What do I need for {}?", "Write a checklist for {}."], PLANS)],
    "code question": [
        (["What does {} do in Python?", "Show a short example of {} in Python.", "Explain {} in Python."], PYTHON),
        (["How do I {}?", "Show me how to {}."], GIT),
    ],
    "trivia": [
        (
            [
                "What is the capital of {}?",
                "What food is typical of {}?",
                "Which countries border {}?",
                "Name three things that {} is known for.",
            ],
            COUNTRIES,
        ),
        (["Who invented {}?", "How did {} change daily life?"], INVENTIONS),
    ],
    "continue": [
        (["Continue this story: {}", "{} What happens next?", "Write a story that begins like this: {}"], OPENINGS)
    ],
    "person": [(["Who was {}?", "Why is {} famous?", "Tell me one thing about {} that few people know."], PERSONS)],
    "animal": [
        (["What do {} eat?", "Where do {} live?", "Tell a child about {}.", "Write a fable about {}."], ANIMALS)
    ],
    "food": [
        (
            [
                "What can I cook with {}?",
                "How do I store {}?",
                "Give me a simple recipe with {}.",
                "What is healthy about {}?",
            ],
            FOODS,
        )
    ],
    "sport": [
        (["Explain the basic rules of {}.", "How can I get better at {}?", "What equipment does {} need?"], SPORTS)
    ],
}


def _summaries() -> list[str]:
    others = ("{}\n\nWhat is this text about?", "Write a headline for this text: {}", "Shorten this text: {}")
    texts = [f"{subject} {detail} {ending}" for subject, detail, ending in product(SUBJECTS, DETAILS, ENDINGS)]
    prompts = [("Summarize this text in one sentence: {}", others[i % 3]) for i in range(len(texts))]
    return [prompt.format(text) for text, two in zip(texts, prompts, strict=True) for prompt in two]


def more_prompts(science: list[str], places: list[str], heroes: list[str], plots: list[str]) -> list[tuple[str, str]]:
    """(kind, prompt) of every kind in this module, in a fixed order; the arguments are topics of other kinds."""
    own = {kind: [one for pair in pairs for one in _filled(*pair)] for kind, pairs in FILLED.items()}
    quiz = ["Write a quiz question about {} and its answer.", "What is surprising about {}?"]
    postcard = [
        "Write a postcard from {}.",
        "Write a short diary entry from a day in {}.",
        "What should I pack for {}?",
    ]
    kinds: dict[str, list[str]] = {
        **{kind: own[kind] for kind in ("advice", "opinion", "describe", "example", "words")},
        "role": [f"You are {role}. {line}" for role, line in product(ROLES, LINES)],
        "dialogue": [
            f"Write a short dialogue between {couple} about {topic}." for couple, topic in product(COUPLES, ABOUT)
        ],
        "rewrite": [f"Rewrite this sentence {style}: {line}" for style, line in product(STYLES, SENTENCES)],
        "summary": _summaries(),
        "recommend": [f"Recommend {what} for {whom} and say why." for what, whom in product(RECOMMENDED, READERS)],
        **{kind: own[kind] for kind in ("plan", "code question", "trivia", "continue")},
        "letter": [f"Write a short letter to {whom} about {what}." for whom, what in product(LETTERS, REASONS)],
        "small-talk": TALK,
        **{kind: own[kind] for kind in ("person", "animal", "food", "sport")},
        "quiz": _filled(quiz, science),
        "postcard": _filled(postcard, places),
        "title": [
            f"Suggest a title for a story about {hero} who {plots[i % len(plots)]}." for i, hero in enumerate(heroes)
        ],
        "scene": [
            f"Write the first three sentences of a story about {hero} in {place}."
            for hero in heroes
            for place in places[:8]
        ],
        "numbers": [
            f"I have {a} {thing} and give away {b}. How many {thing} are left?"
            for i, thing in enumerate(FRUIT)
            for a, b in ((12 + i, 5), (30 - i, 8), (45 + 2 * i, 20))
        ],
    }
    return [(kind, prompt) for kind, prompts in kinds.items() for prompt in prompts]
