"""What ZeroGPU refuses with, as sentences of this page: without markup, and with what to lower where that helps.

The kinds are those of the `spaces` package, which tells them apart by a title and an English text alone.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

from ui.wire import UNEXPECTED

#: What to lower so that so many seconds of a GPU are enough (None: any fewer), or None where nothing could be.
Less = Callable[[float | None], str | None]

_TAG = re.compile(r"<[^<>]*>")
_LINK = re.compile(r"\[([^\]]*)\]\((?:https?://)?([^)\s]*)\)")
_ILLEGAL = re.compile(r"requested GPU duration \((\d+) ?s\) is larger")
_QUOTA = re.compile(r"exceeded your (.*?) ?quota \((\d+) ?s requested vs\. (-?\d+) ?s left\)")
_WAIT = re.compile(r"Try again in (?:(\d+) days?, )?(\d+):(\d\d):(\d\d)")
_WORKER, _ABORTED = "ZeroGPU worker error", "GPU task aborted"
#: A part of ZeroGPU's text → our sentence, for refusals that name no figures.
_KNOWN = {
    "has reached its GPU limit": "This Space has used up its share of ZeroGPU: log in to Hugging Face for a quota of "
    "your own, or try again later.",
    "No GPU was available": "ZeroGPU has no GPU free: try again in a minute.",
    "Expired ZeroGPU proxy token": "What ZeroGPU knows you by has expired: reload the page and try again.",
    "Internal Gradio error": "ZeroGPU could not tell who asks: reload the page and try again.",
    "exceeded your ZeroGPU runs limit": "You have used up your runs on ZeroGPU for now: try again later.",
}
#: The scheduler, which lends the GPUs, did not do what the package expects of it.
AWAY = "ZeroGPU could not be asked for a GPU: try again in a minute."


def sentence(title: str, message: str, less: Less, seconds: float) -> str:
    """One sentence for a refusal. seconds: of a GPU that were asked for; ZeroGPU may count more for some GPUs."""
    text = plain(message)
    if found := _ILLEGAL.search(text):
        what = less(None) or "duplicate this Space on hardware of its own"
        return f"ZeroGPU lends no GPU for as long as the {found[1]} s that this asks for: {what}."
    if found := _QUOTA.search(text):
        return _over_quota(found[1], int(found[2]), int(found[3]), _wait(text), less, seconds)
    if title == _WORKER:
        if _ABORTED not in text:  # the name of an error's class, whose traceback is in the log
            return UNEXPECTED
        return f"ZeroGPU took the GPU back before this had ended: {less(None) or 'try again later'}."
    if known := next((ours for theirs, ours in _KNOWN.items() if theirs in text), None):
        return known
    return f"{text if 'ZeroGPU' in text else f'ZeroGPU: {text}'}".rstrip(". ") + "."


def plain(message: str) -> str:
    """A text without its tags and entities, and with the addresses of links written out."""
    text = html.unescape(_TAG.sub("", str(message)))
    return " ".join(_LINK.sub(r"\1 (\2)", text).split())


def _over_quota(quota: str, asked: int, left: int, wait: str, less: Less, seconds: float) -> str:
    counted = max(1.0, asked / seconds)  # what a second costs of the quota
    what = less(left / counted) if left > 0 else None
    ways = " or ".join(([f"{what},"] if what else []) + [f"try again {wait}"])
    return f"This asks for {asked} s of a GPU and your {quota} quota has {max(left, 0)} s left: {ways}."


def _wait(text: str) -> str:
    found = _WAIT.search(text)
    if not found:
        return "later"
    days, hours, minutes = (int(part or 0) for part in found.groups()[:3])
    if days or hours:
        return f"in {24 * days + hours} h {minutes} min"
    return f"in {minutes + 1} min"
