"""Open prompts of everyday writing: dialogues, advice, rewriting, summaries, comparisons and stories, in more
combinations than one would write by hand."""

from itertools import product

from nemodiff.tasks.open_prompts.more_prompts import topics

SPEAKERS = topics(
    """
    a baker|a nurse|a pilot|a plumber|a poet|a judge|a goalkeeper|a beekeeper|a violinist|a night guard|a dentist|
    a mayor|a hairdresser|a fisherman|a tax adviser|a clown|a truck driver|an astronaut|an architect|a zookeeper
    """
)
QUARRELS = topics(
    """
    who is late more often|a missing umbrella|how to cook rice|what to do on Sunday|an unpaid bill|a barking dog|
    the best seat in the cinema|a plan that failed|a secret recipe|a borrowed ladder
    """
)
WORRIES = topics(
    """
    my oldest friend moves away|my manager gave my project to someone else|I said something unkind at a dinner|
    my daughter wants to leave school|I have two job offers|my flat is too cold in winter|I was passed over again|
    I never finish what I begin|my parents are getting forgetful|I spend every evening alone|my garden floods in spring|
    I lent money that never came back|my partner wants a dog and I do not|I am bad with deadlines|
    I promised too much to too many people|I cannot decide where to live|my neighbor wants to buy my car|
    I have to give a eulogy|my band broke up|I forgot an appointment with a customer
    """
)
ASKED = topics(
    """
    {}. What would you do?|{}. How do I talk about it?|{}. List three things that I can try.|
    {}. Write a short reply that cheers me up.|{}. What should I not do?
    """
)
NEWS = topics(
    """
    A storm closed the harbor for two days, and the ferry carried its passengers back to the mainland.|
    The village shop will be run by its customers, who have bought it together for a small sum.|
    A class of pupils measured the noise of their street and sent the results to the council.|
    After ten years of work the canal is open again, though only for boats without engines.|
    The theatre plays its most popular comedy once more because the roof is finally repaired.|
    A new bus line connects the hospital with the station and runs every twelve minutes.|
    Two sisters have restored their grandfather's cinema and show silent films on Fridays.|
    The river carried so little water in August that the mill had to stop for three weeks.|
    A clockmaker has given his whole collection to the town, under the condition that it ticks.|
    The orchard's harvest was small this year, yet the apples were sweeter than ever before.|
    A runner lost her way in the fog and won the race on a path that nobody had marked.|
    The school kitchen now cooks with vegetables from the fields behind the gym.
    """
)
ON_NEWS = topics(
    """
    Summarize in one sentence: {}|Write a headline: {}|Rewrite it for children: {}|Retell this in the first person: {}|
    What question would a reporter ask next? {}|Rewrite it as a short poem: {}|Make it sound more exciting: {}|
    List the facts in this text: {}|Translate into simple English: {}|Write the next paragraph: {}
    """
)
NOTES = topics(
    """
    Come at once.|I will not pay for this.|The food was cold and the waiter was rude.|You forgot my name again.|
    Send me the file today.|This seat is mine.|We are out of milk.|I do not like your idea.|The lift is broken again.|
    Nobody told me about the change.|You have to work on Saturday.|I need more time.|Stop calling me.|
    The heating makes a strange noise.|Your music is too loud.|We lost your parcel.
    """
)
TONES = topics(
    """
    as a polite request|as an apology|as a joke|as an announcement|as a question|in one long sentence|
    in the words of a pirate|as a line of a song|as a notice on a door|in a very formal way
    """
)
RIVALS = topics(
    """
    tea and coffee|a lake and a pond|a novel and a short story|a violin and a guitar|rent and a mortgage|
    a frog and a toad|snow and hail|a bus and a train|jam and jelly|a lawyer and a judge|a piano and an organ|
    butter and margarine|a hill and a mountain|a comet and an asteroid|a sofa and an armchair|oil and water colors|
    a king and a president|a diary and a blog|a map and a globe|chess and checkers|running and swimming|
    a cello and a double bass|a suburb and a village|breakfast and brunch|a cold and the flu|a moth and a butterfly|
    a shop and a market|speed and acceleration|weather and climate|a law and a rule
    """
)
COMPARING = topics(
    """
    What is the difference between {}?|Compare {} in a short paragraph.|What do {} have in common?|
    Explain the difference between {} to a child.|Give one argument each for {}.
    """
)
PLACES = topics(
    """
    a lighthouse|a flooded library|a railway station at night|an empty swimming pool|a market in the rain|
    a mountain hut|a submarine|a greenhouse|a roof above the city|a ferry|a museum after closing|a village without roads
    """
)
EVENTS = topics(
    """
    finds a door that was not there before|hears a song from childhood|must choose between two letters|
    misses the last train|meets someone with the same name|breaks a promise|repairs an old radio|
    follows a trail of feathers|keeps a secret too long|learns to say no
    """
)
FORMS = topics("a short story|the first paragraph of a novel|a scene for a play|a bedtime story|a diary entry")
TASKS = topics(
    """
    sharpening a knife|packing a suitcase|planting a hedge|cleaning a window|wrapping a present|changing a tire|
    learning a poem by heart|building a paper plane|repotting a plant|baking a simple cake|training for a long walk|
    setting up a tent|writing a speech|hanging a picture|sewing on a button|making a budget|keeping bees|
    reading a map|ironing a shirt|carving a pumpkin
    """
)
HOW = topics(
    """
    Explain {} step by step.|What do I need for {}?|What can go wrong when {}?|Give me a short checklist for {}.|
    Write a funny guide to {}.
    """
)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def everyday_prompts() -> list[tuple[str, str]]:
    """(kind, prompt) of every kind in this module, in a fixed order."""
    pairs = [(one, other) for i, one in enumerate(SPEAKERS) for other in SPEAKERS[i + 1 :: 4]]
    kinds = {
        "dialogue of two trades": [
            f"Write a dialogue between {one} and {other} about {QUARRELS[i % len(QUARRELS)]}."
            for i, (one, other) in enumerate(pairs)
        ],
        "worries": [template.format(_capital(worry)) for template, worry in product(ASKED, WORRIES)],
        "news": [template.format(text) for template, text in product(ON_NEWS, NEWS)],
        "notes": [f"Rewrite this note {tone}: {note}" for tone, note in product(TONES, NOTES)],
        "rivals": [template.format(pair) for template, pair in product(COMPARING, RIVALS)],
        "scenes": [
            f"Write {form} set in {place} about {SPEAKERS[(i + k) % len(SPEAKERS)]} who {event}."
            for i, (place, event) in enumerate(product(PLACES, EVENTS))
            for k, form in enumerate(FORMS[i % 2 :: 2])
        ],
        "guides": [template.format(task) for template, task in product(HOW, TASKS)],
        "a day": [f"Describe a day in the life of {who} in five sentences." for who in SPEAKERS],
        "a trade's advice": [f"You are {who}. Give me advice about {what}." for who, what in product(SPEAKERS, TASKS)],
    }
    return [(kind, prompt) for kind, prompts in kinds.items() for prompt in prompts]
