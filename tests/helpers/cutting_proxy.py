"""A TCP proxy on loopback that a test can cut: it resets or closes what is open, refuses what comes, or holds all of it
back without a word, as a phone that slept or a network that swallows packets does."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Literal

#: A close that sends a reset, and what was not read is thrown away.
RESET = struct.pack("ii", 1, 0)


class CuttingProxy:
    """Passes bytes between `port` and a server on loopback until it is told otherwise; `address` is for the browser."""

    def __init__(self, server: int) -> None:
        self.server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._stalled: set[tuple[socket.socket, socket.socket]] = set()
        self._new: Literal["pass", "refuse", "stall"] = "pass"
        self._changed = threading.Condition()
        self._ended = False
        threading.Thread(target=self._accept, name="cutting-proxy", daemon=True).start()

    def reset(self, also_new: bool = False) -> None:
        """Break every open connection with a reset, on both sides; also_new: and refuse new ones, until `heal`."""
        self._break(lambda one: one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET), also_new)

    def close(self, also_new: bool = False) -> None:
        """End every open connection in the orderly way of a server that goes down."""
        self._break(lambda one: None, also_new)

    def stall(self, also_new: bool = True) -> None:
        """Hold back what is sent either way, without closing anything; also_new: on new connections, too."""
        with self._changed:
            self._stalled = set(self._pairs)
            self._new = "stall" if also_new else "pass"

    def heal(self) -> None:
        """New connections pass. What was held back stays so: it belongs to connections that are dead."""
        with self._changed:
            self._new = "pass"
            self._changed.notify_all()

    def resume(self) -> None:
        """What was held back goes on, too."""
        with self._changed:
            self._stalled.clear()
            self._new = "pass"
            self._changed.notify_all()

    def end(self) -> None:
        self._ended = True
        self._listener.close()
        self.resume()
        self._break(lambda one: None, True)

    def _break(self, before: object, also_new: bool) -> None:
        with self._changed:
            pairs, self._pairs = self._pairs, []
            self._new = "refuse" if also_new else "pass"
            self._stalled.clear()
            for one in (one for pair in pairs for one in pair):
                with contextlib.suppress(OSError):
                    before(one)  # type: ignore[operator]
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
            self._changed.notify_all()

    def _accept(self) -> None:
        while not self._ended:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                if self._new == "refuse":
                    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    near.close()
                    continue
                try:
                    far = socket.create_connection(("127.0.0.1", self.server))
                except OSError:  # the server is down
                    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    near.close()
                    continue
                pair = near, far
                self._pairs.append(pair)
                if self._new == "stall":
                    self._stalled.add(pair)
            threading.Thread(target=self._pass, args=(pair,), daemon=True).start()

    def _pass(self, pair: tuple[socket.socket, socket.socket]) -> None:
        near, far = pair
        try:
            while True:
                ready, _, _ = select.select([near, far], [], [])
                with self._changed:
                    self._changed.wait_for(lambda: pair not in self._stalled)
                for one in ready:
                    data = one.recv(65536)
                    if not data:
                        return
                    (far if one is near else near).sendall(data)
        except (OSError, ValueError):
            pass
        finally:
            near.close()
            far.close()


@contextlib.contextmanager
def cutting_proxy(server: int) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(server)
    try:
        yield proxy
    finally:
        proxy.end()
