"""The source of randomness of the structured families: it also knows which phrasings are kept out of training."""

import random
from collections.abc import Sequence


class Draw(random.Random):
    """A random generator that chooses phrasings: the last of the options of `phrase` is never trained on.

    `new_phrasing` selects: False draws among the trained phrasings, True takes the held-out one.
    """

    def __init__(self, seed: str, *, new_phrasing: bool = False):
        super().__init__(seed)
        self.new_phrasing = new_phrasing

    def phrase(self, options: Sequence[str]) -> str:
        """One wording of a prompt among at least three; raises ValueError for fewer."""
        if len(options) < 3:
            raise ValueError("A prompt needs at least three phrasings: the last one is held out.")
        return options[-1] if self.new_phrasing else self.choice(options[:-1])
