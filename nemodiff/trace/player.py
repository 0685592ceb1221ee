"""The stage: HTML, CSS and JavaScript of the player, independent of the page around it."""

from __future__ import annotations

from nemodiff import files

FOLDER = files.folder("ui/player")
STYLE = FOLDER / "stage.css"
SCRIPTS = (
    "dom.js",
    "text.js",
    "log.js",
    "answer.js",
    "caption.js",
    "summary.js",
    "history.js",
    "fold.js",
    "lanes.js",
    "strip.js",
    "tree.js",
    "tooltip.js",
    "inspector.js",
    "attention.js",
    "transport.js",
    "solo.js",
    "race.js",
    "light.js",
    "pictures.js",
    "menu.js",
    "copy.js",
    "ask_on.js",
    "markdown.js",
    "stage.js",
)
#: What the page has besides, for its server's sake: a replay file needs none.
PAGE = ("connection.js", "asking.js", "link.js", "gradio.js")


def template() -> str:
    """The stage's constant markup. No text of a model or a person is ever put into it."""
    return (FOLDER / "stage.html").read_text(encoding="utf-8")


def script(*more: str) -> str:
    """The player's code as one scope, `mount(root, hooks)` its entry; `more` names files that follow it."""
    return "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in (*SCRIPTS, *more))
