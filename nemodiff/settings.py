"""The settings of decoding, each declared once, in `Decoding`.

A Request is checked by this table. The options of `generate`, the page's fields and links, the API's and MCP's
parameters, what is read back of a trace's request, and docs/settings.md all follow from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from nemodiff import markdown
from nemodiff.setting_kinds import Choice, Flag, Kind, Number, Texts, Whole

SAMPLERS = ("confidence", "entropy", "fixed", "trained")
ORDERS = ("best", "leftmost")
DRAFTS = ("linear", "quadratic", "tree")
ACCEPTANCES = ("match", "independent", "sampling")
MAX_BLOCK_LENGTH = 64
#: A quadratic forward has B(B + 1) rows.
MAX_QUADRATIC_LENGTH = 16
#: Rows that a tree's forwards may be fixed to.
MAX_TREE_ROWS = 64
MAX_NEW_TOKENS = 4096

#: Where a setting is offered: an option of `generate`, a field of the page (and its links), a parameter of the API.
EVERYWHERE = frozenset({"cli", "page", "api"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting, as `declare` describes it, with its name in a Request."""

    name: str
    kind: Kind
    default: Any
    help: str
    label: str
    key: str
    of: tuple[str, tuple[str, ...]] | None
    on: frozenset[str]
    place: int
    more: bool
    note: str
    explained: str

    def check(self, value: Any) -> None:
        """Raises RequestError when the value cannot be used."""
        if value is not None or self.default is not None:
            self.kind.check(self.name, value)

    def used_by(self, chosen: Any) -> bool:
        """Whether a Request, or whatever else has the other settings as attributes, uses this one."""
        return self.of is None or self.goes_with(getattr(chosen, self.of[0]))

    def goes_with(self, value: Any) -> bool:
        """Whether this one is used while the setting that it belongs to has `value`."""
        return self.of is None or value in self.of[1]


def declare(
    default: Any,
    kind: Kind,
    help: str,
    *,
    label: str = "",
    key: str = "",
    of: tuple[str, tuple[str, ...]] | None = None,
    on: Iterable[str] = EVERYWHERE,
    place: int = 50,
    more: bool = False,
    note: str = "",
    explained: str = "",
) -> Any:
    """A field of `Decoding`.

    default: None where the checkpoint or the engine decides. help: what it does, on one line. label, key: its name on
    the page and in a link, its own by default. of: the setting that it belongs to and the values of that one which use
    it, e.g. ("sampler", ("fixed",)). on: where it is offered. place: its place among the page's fields, smallest
    first. more: the field is under "More". note: what its field says behind the label. explained: what the page
    says of it to somebody who meets the word for the first time, `help` by default.
    """
    declared = {"kind": kind, "help": help, "label": label, "key": key, "of": of, "on": frozenset(on)}
    shown = {"place": place, "more": more, "note": note, "explained": explained or f"{help[0].upper()}{help[1:]}."}
    return field(default=default, metadata=declared | shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How to decode. What is left None the checkpoint decides. A new setting goes last: links and programs know these
    by their places."""

    block_length: int | None = declare(
        None,
        Whole(2, MAX_BLOCK_LENGTH),
        "positions of a block",
        label="block",
        key="block",
        place=10,
        explained="How many positions the model guesses at once. A larger block may give more tokens per forward, and "
        "more guesses that are thrown away.",
    )
    sampler: str = declare(
        "confidence",
        Choice(SAMPLERS),
        "which masked positions diffusion commits with a forward",
        place=11,
        explained="The rule by which diffusion chooses, after every forward, which of its guesses to commit for good.",
    )
    threshold: float | None = declare(
        None,
        Number(0, 1),
        "the confidence at which a masked position is committed",
        of=("sampler", ("confidence", "trained")),
        place=12,
        explained="Diffusion commits a guess once the model is at least so sure of it. Lower is faster, and goes wrong "
        "more often.",
    )
    entropy_bound: float = declare(
        0.3,
        Number(0, 100),
        "the entropy that a forward may commit in all, in nats",
        label="entropy bound",
        key="entropy",
        of=("sampler", ("entropy",)),
        place=14,
        explained="A forward commits its surest guesses until their uncertainties sum to this.",
    )
    steps: int | None = declare(
        None,
        Whole(1, MAX_BLOCK_LENGTH),
        "denoising forwards for a block (by default half its length)",
        label="steps per block",
        of=("sampler", ("fixed",)),
        place=15,
    )
    temperature: float = declare(
        0.0,
        Number(0, 10, step=0.1),
        "0 takes the most probable token",
        place=30,
        explained="0 always takes the most probable token. Above it, tokens are drawn by chance, the more freely the "
        "higher it is.",
    )
    seed: int = declare(0, Whole(0, 2**63 - 1), "the seed of the noise at a temperature", more=True)
    max_new_tokens: int = declare(
        128,
        Whole(1, MAX_NEW_TOKENS),
        "the most tokens of an answer",
        label="new tokens",
        key="tokens",
        place=31,
        explained="An answer that does not end by itself is cut after so many tokens.",
    )
    ignore_eos: bool = declare(
        False, Flag(), "go on after the end of the answer", label="go on after EOS", key="go_on", more=True
    )
    raw: bool = declare(
        False,
        Flag(),
        "take the prompt as it is, without the chat template; control tokens written out in it take effect",
        label="raw prompt",
        note=": no chat template, control tokens take effect",
        more=True,
    )
    draft: str = declare(
        "linear",
        Choice(DRAFTS),
        "how self-speculation drafts: linear (draft, then verify), quadratic (both in one forward) or tree (both in "
        "one forward, over a tree of drafts)",
        label="drafts",
        place=20,
        explained="How self-speculation makes the drafts that AR verifies. linear: one forward drafts, the next "
        "verifies. quadratic, tree: one forward does both, and a tree tries several candidates for each place.",
    )
    acceptance: str = declare(
        "match",
        Choice(ACCEPTANCES, ("equal AR's token, same noise", "equal AR's token, as released", "speculative sampling")),
        "when a draft is accepted at a temperature: when it equals AR's token under the same noise (match), under "
        "noise of its own (independent, as released), or by speculative sampling (sampling)",
        label="drafts at a temperature",
        more=True,
    )
    ar_weight: float = declare(
        1.0,
        Number(0, 1, step=0.1),
        "AR's share in the verifier of quadratic drafts; 1 gives AR's text",
        label="AR's weight in the verifier",
        of=("draft", ("quadratic",)),
        more=True,
        explained="Drafts are held against a mix of AR's prediction and diffusion's. At 1 it is AR's alone, and the "
        "text is AR's; lower accepts more drafts and writes another text.",
    )
    order: str | None = declare(
        None,
        Choice(ORDERS),
        "where diffusion commits first: what is surest (best, as released) or what is leftmost",
        place=13,
    )
    rows: int | None = declare(
        None,
        Whole(2, MAX_TREE_ROWS),
        "rows of a forward at most, for trees of drafts; by default as their cost on this machine decides",
        of=("draft", ("tree",)),
        place=21,
        explained="How many tokens a forward over a tree may take in, candidates and masks together. More rows accept "
        "longer drafts, and each forward takes longer.",
    )
    adapter: bool = declare(True, Flag(), "use the draft LoRA, where there is one", on=("cli",))
    max_thinking_tokens: int | None = declare(
        None, Whole(0, MAX_NEW_TOKENS), "force </think> after so many tokens without it", on=("cli",)
    )
    stop: tuple[str, ...] = declare(
        (),
        Texts(),
        "texts that end an answer: it is cut before the first of them, which may span tokens",
        label="stop strings",
        note=", one per line",
        more=True,
    )
    alternatives: int = declare(5, Whole(0, 20), "the most probable tokens that each position records", on=())
    time_limit: float | None = declare(None, Number(0, 86_400), "seconds of wall time for the run", on=())
    draft_head: bool = declare(
        True,
        Flag(),
        "weigh drafts by the token before them, where the checkpoint has a draft head (at a temperature: with match)",
        more=True,
        explained="A small network looks at the token before each draft and weighs the candidates by it, so that "
        "longer drafts are accepted. The text is AR's with it and without it.",
    )


def settings_of(declared: type) -> tuple[Setting, ...]:
    """The settings that a dataclass such as `Decoding` declares, in their order."""
    found = []
    for one in dataclasses.fields(declared):
        about = dict(one.metadata)
        about |= {"label": about["label"] or one.name.replace("_", " "), "key": about["key"] or one.name}
        found.append(Setting(name=one.name, default=one.default, **about))
    return tuple(found)


SETTINGS = settings_of(Decoding)


def offered(where: str) -> tuple[Setting, ...]:
    """The settings of the command line ("cli"), the page ("page") or the API ("api"), in the table's order."""
    return tuple(setting for setting in SETTINGS if where in setting.on)


def table() -> str:
    """SETTINGS as the Markdown table of docs/settings.md."""
    head = ("in a Request, the API and MCP", "option of `generate`", "on the page (in a link)")
    return markdown.table([*head, "values", "default", "what it does"], map(_cells, SETTINGS))


def _cells(setting: Setting) -> tuple[str, ...]:
    option = f"`--{setting.name.replace('_', '-')}`" if "cli" in setting.on else ""
    field_ = f"{setting.label} (`{setting.key}`)" if "page" in setting.on else ""
    return f"`{setting.name}`", option, field_, setting.kind.words, _default(setting), _help(setting)


def _default(setting: Setting) -> str:
    value = setting.default
    if value is None:
        return "auto" if "page" in setting.on else "none"
    if value == ():
        return "none"
    return ("no", "yes")[value] if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _help(setting: Setting) -> str:
    uses = f" ({setting.of[0]} {' or '.join(setting.of[1])})" if setting.of else ""
    return f"{setting.help}{uses}"


if __name__ == "__main__":
    print(table())
