"""Debian's Firefox for Playwright: starts it, and stands between the two as a WebSocket.

Playwright 1.65 drives an unpatched Firefox by WebDriver BiDi, all but ready. It begins by setting media features, a
command that Firefox ESR 153 does not know: that refusal becomes an empty success. And its fill() types after what
stands in a field of numbers, in place of over it. Everything else passes as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
import signal
import sys
import uuid

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

SPARED = "emulation.setMediaFeaturesOverride"
APPENDS, REPLACES = "inputElement.value += text", "inputElement.value = text"


async def bridge(firefox_address: str, playwright: ServerConnection) -> None:
    spared: set[int] = set()
    address = firefox_address + (playwright.request.path if playwright.request else "/session")
    async with connect(address, max_size=None, ping_interval=None) as firefox:

        async def ask() -> None:
            async for text in playwright:
                if SPARED in str(text):
                    spared.add(json.loads(text)["id"])
                await firefox.send(str(text).replace(APPENDS, REPLACES))

        async def answer() -> None:
            async for text in firefox:
                if spared and '"unknown command"' in str(text):
                    answered = json.loads(text)["id"]
                    if answered in spared:
                        text = json.dumps({"type": "success", "id": answered, "result": {}})
                elif '"browsingContext.download' in str(text):
                    event = json.loads(text)
                    event["params"].setdefault("download", str(uuid.uuid5(uuid.NAMESPACE_URL, event["params"]["url"])))
                    text = json.dumps(event)
                await playwright.send(text)

        directions = [asyncio.create_task(ask()), asyncio.create_task(answer())]
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        for direction in directions:
            direction.cancel()


async def main(command: list[str]) -> int:
    firefox = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, limit=2**22)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, firefox.terminate)
    assert firefox.stderr
    async with contextlib.AsyncExitStack() as stack:
        async for line in firefox.stderr:
            said = line.decode(errors="replace")
            if found := re.search(r"WebDriver BiDi listening on (ws://\S+)", said):
                handle = functools.partial(bridge, found[1])
                server = await stack.enter_async_context(
                    serve(handle, "127.0.0.1", 0, max_size=None, ping_interval=None)
                )
                port = next(iter(server.sockets)).getsockname()[1]
                said = said.replace(found[1], f"ws://127.0.0.1:{port}")
            print(said, end="", file=sys.stderr, flush=True)
        return await firefox.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
