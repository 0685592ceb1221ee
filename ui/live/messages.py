"""What asking for the model comes to, one message after the other; the page, the API and Compare match on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ui.live.run import Run


@dataclass(frozen=True, slots=True)
class Waiting:
    """The turn has not come. ahead: how many runs come first; sentence: the same and for about how long."""

    sentence: str
    ahead: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing is run; the sentence says why."""

    sentence: str


@dataclass(frozen=True, slots=True)
class Batch:
    """A run's events start + 1 to stop; none, with start == stop, where only time has passed."""

    run: Run
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Finished:
    """It is over. run: None where Stop came before the turn did. sent: events that the batches before brought."""

    run: Run | None
    sent: int = 0


#: Of any use of the model, and of a run.
Place: TypeAlias = Waiting | Refused | Finished
Message: TypeAlias = Waiting | Refused | Batch | Finished
