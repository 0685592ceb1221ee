"""Options of several commands, declared once: where a model runs, and the settings of decoding by their table."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from nemodiff.checkpoints.catalogue import DEFAULT
from nemodiff.command import flag, refuse_unused
from nemodiff.errors import RequestError
from nemodiff.setting_kinds import Choice, Flag, Texts, Whole
from nemodiff.settings import Setting, offered


def add_model(parser: argparse.ArgumentParser) -> None:
    """--checkpoint, --dtype and --device."""
    parser.add_argument("--checkpoint", default=DEFAULT, help="a name of `checkpoints`, a folder or a hub id")
    parser.add_argument("--dtype", help="float32, bfloat16 or int8 (default: what is fastest here)")
    parser.add_argument("--device", help="cpu or cuda (default: cuda if there is one)")


def report(line: str) -> None:
    """A line of progress while a model is loaded."""
    print(line, file=sys.stderr, flush=True)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """An option for every setting of the table; None where it is not given."""
    for setting in offered("cli"):
        name, words = flag(setting.name), _help(setting)
        if isinstance(setting.kind, Texts):
            parser.add_argument(name, action="append", metavar="TEXT", help=f"{words}; may be given several times")
        elif not isinstance(setting.kind, Flag):
            parser.add_argument(name, help=words)
        elif setting.default:
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=None, help=words)
        else:
            parser.add_argument(name, action="store_true", default=None, help=words)


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, as a Request takes them. Raises RequestError for a text that is no value, and for
    an option that the chosen sampler or way of drafting does not use."""
    found = {}
    for setting in offered("cli"):
        if (given := getattr(args, setting.name)) is not None:
            found[setting.name] = _value(setting, given)
    for setting in offered("cli"):
        if setting.of is None:
            continue
        owner = next(one for one in offered("cli") if one.name == setting.of[0])
        chosen = found.get(owner.name, owner.default)
        if isinstance(owner.kind, Choice) and chosen in owner.kind.names and not setting.goes_with(chosen):
            refuse_unused(args, f"{flag(owner.name)} {chosen}", (setting.name,), "leave it out")
    return found


def _value(setting: Setting, given: Any) -> Any:
    if isinstance(given, bool):
        return given
    if isinstance(setting.kind, Texts):
        return tuple(map(setting.kind.one, given))
    if given == "auto" and setting.default is None:
        return None
    try:
        return setting.kind.parse(given)
    except ValueError as error:
        auto = " or auto" if setting.default is None and isinstance(setting.kind, Whole) else ""
        raise RequestError(f"{flag(setting.name)} takes {error}{auto}, not {given[:60]!r}.") from None


def _help(setting: Setting) -> str:
    parts = [] if isinstance(setting.kind, Flag) else [setting.kind.words]
    if setting.of:
        parts.append(f"for {flag(setting.of[0])} {' or '.join(setting.of[1])}")
    if not isinstance(setting.default, bool):
        parts.append(f"default: {_default(setting)}")
    return f"{setting.help} ({'; '.join(parts)})" if parts else setting.help


def _default(setting: Setting) -> Any:
    if isinstance(setting.kind, Texts):
        return "none"
    return "auto" if setting.default is None else setting.default
