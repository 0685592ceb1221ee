"""A lock that tells when somebody waits for it."""

from __future__ import annotations

import threading


class WatchedLock:
    """Stands in for a `threading.Lock`. wanted: set when it was asked for while it was held."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.wanted = threading.Event()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.wanted.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
