"""Several modes on one clock."""

from __future__ import annotations

from collections.abc import Generator, Mapping

from nemodiff.trace.events import Event


def race(lanes: Mapping[str, Generator[Event, None, None]]) -> Generator[Event, None, None]:
    """Interleave generators of Events, always advancing the lane whose own clock is furthest behind.

    So at any moment a viewer sees how far each mode would be if it ran alone. Closing the race closes every lane.
    """
    clocks = dict.fromkeys(lanes, 0.0)
    try:
        while clocks:
            mode = min(clocks, key=clocks.__getitem__)
            event = next(lanes[mode], None)
            if event is None:
                del clocks[mode]
            else:
                clocks[mode] = event.clock_ms
                yield event
    finally:
        for lane in lanes.values():
            lane.close()
