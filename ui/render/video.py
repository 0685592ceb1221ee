"""A run as a video, WebM (VP9) or MP4 (H.264): the GIF's pictures. Needs PyAV; without it neither is offered."""

from __future__ import annotations

from fractions import Fraction
from os import PathLike
from typing import Any

from nemodiff.trace.events import Trace
from ui.render.frames import Frames

try:
    import av
except ImportError:
    HERE = False
else:
    HERE = True

#: ending → (encoder, its options). Text has to stay sharp, so the quality is high; pictures that stand cost nothing.
#: No B-frames: the muxer would give the held last frame another's short time.
CODECS = {
    "webm": ("libvpx-vp9", {"crf": "24", "b:v": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"}),
    "mp4": ("libx264", {"crf": "18", "preset": "veryfast", "bf": "0"}),
}
MEDIA = {"webm": "video/webm", "mp4": "video/mp4"}


def endings() -> list[str]:
    """The kinds of video that this machine can write."""
    return [ending for ending, (codec, _) in CODECS.items() if HERE and codec in av.codecs_available]


def video(trace: Trace, path: str | PathLike[str], **options: Any) -> tuple[int, int, int]:
    """Write the run as a video, its kind by the path's ending; returns (frames, width, height) in pixels.

    Frames keep the GIF's times. The last one is written twice, since a player shows a final frame for no time at all.
    Width and height are cut to even numbers, as 4:2:0 needs. Options and errors: see Frames.
    """
    ending = str(path).rpartition(".")[2]
    if ending not in endings():
        raise ValueError(f"no encoder for {ending!r} here; there is {', '.join(endings()) or 'none'}")
    codec, settings = CODECS[ending]
    frames = Frames(trace, **options)
    with av.open(str(path), "w", options={"movflags": "+faststart"} if ending == "mp4" else {}) as container:
        stream = container.add_stream(codec, rate=25, options=settings)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = frames.width // 2 * 2, frames.height // 2 * 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        stream.codec_context.thread_count = 2
        at, count = 0, 0

        def write(image: Any) -> None:
            frame = av.VideoFrame.from_image(image.crop((0, 0, stream.width, stream.height)))
            frame.pts, frame.time_base = at, Fraction(1, 1000)
            container.mux(stream.encode(frame))

        for image, pause in zip(frames.draw(), frames.durations, strict=True):
            write(image)
            at, count = at + pause, count + 1
        write(image)
        container.mux(stream.encode())
    return count + 1, stream.width, stream.height
