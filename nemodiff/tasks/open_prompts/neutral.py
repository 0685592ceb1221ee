"""Plain prose that is no chat: openings for the base model to continue as raw text, and paragraphs that are only
measured on."""

from itertools import product

_SUBJECTS = ("river", "village", "museum", "church", "railway", "castle", "lake", "island", "bridge", "school")
_ENCYCLOPAEDIC = (
    "The {} is located in",
    "The {} was first mentioned in",
    "The history of the {} begins",
    "Today the {} is known for",
)
_NEWS = (
    "Officials said on {} that the",
    "The company announced on {} that",
    "Heavy rain on {} caused",
    "Voters went to the polls on {}",
    "A spokesman confirmed on {} that",
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_NARRATIVE = (
    "{} closed the door and",
    "When {} reached the station,",
    "{} had never seen such a",
    "It was late when {}",
    "Years later, {} still remembered",
)
_PEOPLE = ("Martha", "the old captain", "Daniel", "her brother", "the stranger", "Ines", "the boy", "Mr. Hollis")
_INSTRUCTIONS = (
    "Before you begin, check the {}",
    "To replace the {}, first",
    "Clean the {} with a",
    "Do not open the {} while",
)
_PARTS = ("filter", "battery", "cover", "pump", "lamp", "cable", "valve", "lid", "belt", "fan")
_DIALOGUE = (
    '"I never liked the {}," she',
    '"Where did you put the {}?"',
    '"Look at the {}," he said,',
)
_OBJECTS = ("house", "letter", "garden", "dog", "picture", "boat", "clock", "keys")
_SCIENCE = (
    "Recent studies of {} suggest that",
    "In most {}, the temperature",
    "The structure of {} is",
)
_FIELDS = ("mammals", "metals", "glaciers", "galaxies", "plants", "proteins", "oceans", "soils")

# Three to eight words each, as the beginning of a raw text without a chat template.
NEUTRAL_OPENINGS: tuple[str, ...] = tuple(
    opening.format(topic)[0].upper() + opening.format(topic)[1:]
    for openings, stock in (
        (_ENCYCLOPAEDIC, _SUBJECTS),
        (_NEWS, _DAYS),
        (_NARRATIVE, _PEOPLE),
        (_INSTRUCTIONS, _PARTS),
        (_DIALOGUE, _OBJECTS),
        (_SCIENCE, _FIELDS),
    )
    for opening, topic in product(openings, stock)
)

# 80 to 120 words each, written for this project and never trained on: the perplexity of the tuned model against its
# base is measured on them.
NEUTRAL_TEXTS: tuple[str, ...] = tuple(
    " ".join(text.split())
    for text in (
        """The Ardel is a river in a hilly part of the north. It rises from three springs below a limestone ridge and
        flows south for about ninety kilometers before it joins a larger stream near the town of Brenn. Its upper
        valley is narrow and wooded, while the lower part crosses flat fields that are flooded almost every spring.
        Mills stood along the river from the thirteenth century on, and two of them still produce a little
        electricity. Trout and grayling are common in the cold upper water. Since a treatment plant was built, otters
        have returned as well.""",
        """A glacier is a body of ice that moves under its own weight. It forms where more snow falls in winter than
        melts in summer, so that the old snow is pressed into dense ice over many years. Most glaciers advance only a
        few centimeters a day, but some slide much faster when water collects beneath them. As the ice moves, it
        carries stones and sand, scratches the rock below and slowly deepens its valley. At the lower end the ice
        melts and leaves behind ridges of rubble, which show how far the glacier once reached.""",
        """The pear is a fruit tree of the rose family that has been grown in gardens for more than two thousand
        years. It prefers deep soil and a sheltered place, because its early blossom suffers from late frost. Most
        varieties cannot pollinate themselves and need another tree nearby. The fruit is usually picked before it is
        fully ripe and kept in a cool room, where it becomes soft and sweet within a few weeks. Besides being eaten
        fresh, pears are dried, baked, boiled into syrup or pressed for a light drink. The hard wood is used for
        rulers and instruments.""",
        """Residents of the lower town were allowed to return to their houses on Tuesday, two days after the river
        broke through a dam near the old sawmill. Fire crews had pumped water from more than a hundred cellars, and
        the main road is open again for cars. The mayor thanked the volunteers who filled sandbags through the night
        and promised that the dam would be rebuilt before winter. Nobody was hurt, but several shops lost their stock.
        An expert from the regional office said that the damage would probably reach four million, most of it on
        public buildings.""",
        """The last ferry of the season left the island on Sunday evening with only eleven passengers on board. For
        the company it was the end of a difficult summer: a broken engine in June, strong winds in July and, as the
        manager put it, far too many empty seats. Islanders fear that the winter service may be cut to two trips a
        week. A decision is expected next month, when the council meets the owners. In the meantime a petition with
        nine hundred signatures asks for a boat that can also carry small trucks.""",
        """Prices for bread and milk rose more slowly last month than in the months before, the statistics office
        reported on Thursday. Compared with a year ago, food cost three percent more, while heating became slightly
        cheaper. Economists had expected a larger increase. Some of them warned, however, that rents are still
        climbing in the larger cities and that the effect of the poor harvest will be felt only in autumn. The central
        bank left its rate unchanged and said that it would look at new figures in November before taking any further
        step.""",
        """Before you install the pump, switch off the power and close the main valve. Place the pump on a level
        surface and leave a hand's width of space on every side, so that air can reach the motor. Push the hose over
        the inlet until it meets the ring, then tighten the clamp with a screwdriver. Fill the housing with clean
        water through the upper opening and replace the cap. Open the valve slowly and check all joints for leaks.
        Only then connect the cable. If the pump is noisy during the first minute, air is still leaving the pipe.""",
        """To change the ribbon of the printer, lift the front cover and wait until the carriage has stopped in the
        middle. Press the two gray levers outward and pull the old cartridge straight up. Remove the yellow strip from
        the new cartridge without touching the ribbon itself. Insert the cartridge with the arrow facing the roller
        and push it down until both levers click. Turn the small wheel on the left to tighten the ribbon. Close the
        cover and print a test page. Faint lines at the edge disappear after three or four pages.""",
        """The tent should be dry before it is packed away. Shake off sand and needles, pull out the pegs and fold the
        two halves of the floor on top of each other. Lay the poles along the short side and roll the cloth around
        them firmly, pressing the air toward the open door. Do not fold along the same lines every time, since the
        coating breaks there first. At home, hang the tent up for a night in an airy room. Small holes are closed with
        the patches from the repair bag, which must be pressed on for at least an hour.""",
        """The old woman had put the kettle on before he knocked. She knew his step, though it had been eleven years,
        and she knew that he would stand there for a while and look at the roses. When he came in, he was thinner than
        she remembered, and he carried no bag. They did not speak about the letter. He sat down on the bench by the
        stove, as he had always done, and she gave him the blue cup with the crack. Outside the light went slowly out
        of the orchard, and somewhere a dog began to bark.""",
        """Nobody in the company believed that the boy could read the map. He was fourteen, he had come aboard with a
        basket of onions, and he slept under the stairs. But on the third night of fog, when the captain had been
        wrong twice, the boy put a dirty finger on the paper and said that the noise they heard was not surf but a
        mill. They laughed at him until the wheel came out of the gray, black and dripping, and turned above their
        heads. After that the captain let him sit at the table.""",
        """In the mornings my uncle spoke only to his bees. He would walk along the row of hives with his hands behind
        his back, bending a little to each of them, and tell them what was planned for the day: a visit to the
        dentist, a letter from the bank, a wedding in the village. He said that bees hate to be surprised. When he
        died in March, my mother put on his hat and went out to tell them. She stayed for a long time. That summer we
        had more honey than we could give away.""",
        """Light behaves in some experiments like a wave and in others like a stream of particles. When it passes
        through two narrow slits, it forms a pattern of bright and dark bands on a screen, just as water waves
        strengthen or cancel each other. When it falls on a metal plate, however, it knocks out electrons one at a
        time, and the energy of each electron depends on the color of the light rather than on its brightness. Neither
        picture alone is enough. Physicists today describe both results with a single theory that predicts only
        probabilities.""",
        """Mosses have no real roots and no vessels that could carry water upward. They take up rain and dew through
        their leaves, which are usually only one layer of cells thick, and therefore they stay small. During dry weeks
        they curl up and stop nearly all activity, yet a few minutes after the first rain they turn green again.
        Because they hold many times their own weight in water, cushions of moss protect the forest floor from drying
        out. In the mountains they are often the first plants to settle on bare rock, where they prepare the ground
        for others.""",
        """A good measurement begins with the question of how wrong it may be. A carpenter who cuts a shelf is content
        with a millimeter, whereas the maker of a lens must know its curve to a small part of a hair's width. Every
        instrument adds its own error, and repeating the measurement helps only against those errors that change from
        one time to the next. A scale that always shows ten grams too much will do so after a thousand trials as well.
        Such faults are found only by comparison with a second, independent instrument.""",
        """In the year 1348 the town had about nine thousand inhabitants and was proud of its new wall. Two years
        later fewer than half of them were alive. The chronicle of the monastery, which usually reports harvests and
        lawsuits, has nine empty pages for this time. Afterward wages rose, because there were not enough hands, and
        the council tried in vain to limit them. Houses stood empty in the western quarter until settlers arrived from
        the hills. They brought their own saint with them, and the street in which they lived bears his name to this
        day.""",
        """The canal was begun in 1791 by a group of merchants who were tired of bad roads. They had expected to
        finish in four years, but the tunnel under the ridge alone took nine. Workers dug by candlelight from both
        ends and from three shafts, and when the galleries finally met, they were less than a hand apart. For two
        generations the canal carried coal, timber and pottery. Then the railway was built along the same valley, and
        the boats lost their freight within ten years. Today the towpath is used by walkers and cyclists.""",
        """Early maps of the coast were made for sailors and show little of the land behind it. Harbors, rocks and
        church towers are drawn with care, since they were needed to find the way, while whole mountain ranges are
        missing. Names stand at right angles to the shore, so that the sheet had to be turned in the hand. The oldest
        example in the archive dates from about 1420 and was drawn on the skin of a single sheep. Its maker is
        unknown, but spots of wax prove that it was really used on board at night.""",
        """Wash the beans and leave them in cold water overnight. The next day, cook them gently with a bay leaf for
        about an hour, until they are soft but still whole. Meanwhile cut two onions, a carrot and a piece of celery
        into small cubes and fry them in oil over low heat. Add a spoonful of tomato paste, let it darken a little and
        pour in some of the cooking water. Mix in the beans and season with salt, pepper and thyme. The stew is better
        on the second day and goes well with dark bread.""",
        """For a simple dough, dissolve the yeast in lukewarm water and wait until it begins to foam. Put the flour
        into a large bowl, add salt and two spoons of oil, and stir in the liquid with a wooden spoon. When the dough
        no longer sticks to the bowl, knead it on the table for ten minutes. It should feel smooth and spring back
        when pressed. Cover it with a cloth and let it rest in a warm place until it has doubled. Then shape it, leave
        it for another quarter of an hour and bake it in a hot oven.""",
        """The home side started nervously and could have been two goals behind after a quarter of an hour. Their
        young goalkeeper kept them in the match with a save from close range, and after that the visitors seemed to
        lose their patience. Just before the break a long throw was cleared only as far as the edge of the area, where
        the captain hit the ball low into the corner. In the second half there was little to see. The coach praised
        the defense afterward and said that his team had won the kind of game that it used to lose.""",
        """The tenant shall keep the rooms clean and shall report any damage to the landlord without delay. Small
        repairs up to the amount named in section four are paid by the tenant; all others are paid by the landlord,
        unless the tenant has caused the damage. Changes to walls, floors or pipes require written consent. Either
        party may end this contract at the close of a month, provided that notice is given at least three months
        before. At the end of the term the rooms shall be returned in the condition in which they were received, apart
        from normal wear.""",
        """Dear Helena, your parcel arrived yesterday, a little wet but complete. The children have already divided
        the chocolate among themselves, and I am writing to you in the scarf, although it is far too warm for it. You
        asked about the house. The roof is finished at last and the plumber has promised to come in May, so we dare to
        hope for a bath by summer. Peter sends his love; he has a cold and bears it badly. When will you visit us? The
        small room is yours whenever you like, and the plum tree will be in bloom in two weeks. Yours, Marianne""",
        """Dear Sir or Madam, on the third of this month I traveled from Halden to Brenn on the morning train, which
        arrived two hours late. The connecting bus had left, and I had to take a taxi for the rest of the journey. The
        staff at the station were helpful but could not tell me whether the cost would be refunded. I enclose copies
        of my ticket and of the receipt and would be grateful if you could let me know how the matter will be handled.
        You can reach me at the address above at any time. Yours faithfully, R. Aldous""",
    )
)
