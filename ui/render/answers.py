"""What a finished answer is worth beyond its speed, as the player says it, for the exports: `player/answer.js`."""

from __future__ import annotations

import json
import re

from nemodiff.trace.events import Lane, Trace
from ui.render.positions import exact_text

_FENCED = re.compile(r"```(\w*)[^\n]*\n([\s\S]*?)```")


def fault(trace: Trace, lane: Lane) -> str:
    """ "" or what is wrong with a lane's answer. Only asked of answers that ended by themselves."""
    if lane.finish != "eos":
        return ""
    own = _json(exact_text(trace, lane.tokens))
    others = {
        one.mode: _json(exact_text(trace, one.tokens)) for one in trace.lanes if one.finish == "eos" and one is not lane
    }
    if own:
        asked = re.search(r"\bjson\b", str(trace.request.get("prompt") or ""), re.IGNORECASE)
        return "its JSON does not parse" if own == "broken" and (asked or "whole" in others.values()) else ""
    return "it is no JSON, as AR's is" if others.get("ar") == "whole" else ""


def _json(answer: str) -> str:
    """whole, broken, or "" for a text that does not mean to be JSON."""
    text = answer.rpartition("</think>")[2].strip()
    fenced = _FENCED.search(text)
    body = text
    if fenced:
        body = fenced[2].strip() if re.fullmatch(r"(json\w*)?", fenced[1], re.IGNORECASE) else ""
    if not body.startswith(("{", "[")):
        return ""
    try:
        json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "broken"
    return "whole"


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
