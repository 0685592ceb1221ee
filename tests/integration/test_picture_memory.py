"""Opening hostile pictures in a process with little memory."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from nemodiff.pictures import MAX_PIXELS
from tests.helpers.pictures import png_bomb, webp


def in_little_memory(tmp_path, data, room):
    """Opens a file in a process that may take `room` MB more than it has after its imports. Returns what it says."""
    path = tmp_path / "file"
    path.write_bytes(data)
    code = f"""
        import resource
        from nemodiff.pictures import open_picture
        taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + {room} * 2**20,) * 2)
        try:
            print(open_picture({str(path)!r}).image.size)
        except Exception as error:
            print(type(error).__name__, error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat(tmp_path):
    large_canvas = webp(b"VP8L", b"\x2f" + ((15_999) | 15_999 << 14).to_bytes(4, "little") + bytes(64))
    for data, says in ((png_bomb(), "13,000 × 13,000"), (large_canvas, "16,000 × 16,000")):
        assert says in in_little_memory(tmp_path, data, 24)
    side = int(MAX_PIXELS**0.5)
    assert in_little_memory(tmp_path, png_bomb(side, side), 200) == "(1540, 1540)"
    assert "more memory than there is" in in_little_memory(tmp_path, png_bomb(side, side), 24)
