"""The form: a field for the prompt, the modes and every setting of the table, and the Request that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from nemodiff.errors import RequestError, SettingError
from nemodiff.examples import EXAMPLES
from nemodiff.pictures import Picture
from nemodiff.request import Request
from nemodiff.setting_kinds import Choice, Flag, Number, Texts, Whole
from nemodiff.settings import Setting, offered
from nemodiff.trace.events import MODES
from nemodiff.trace.values import MAX_WHOLE
from ui.live.models import Checkpoints
from ui.page import conversation, permalink
from ui.settings import Settings
from ui.values import check_length, exact_whole, given, listed, new_tokens, whole

MODE_NAMES = (("Autoregressive", "ar"), ("Diffusion", "diffusion"), ("Self-speculation", "self-speculation"))
#: The page's settings in the order of the table, in which events, links and the browser know them.
OFFERED = offered("page")


class Form:
    """The fields and what they mean. The methods that make components are called where they are to stand."""

    def __init__(self, checkpoints: Checkpoints, settings: Settings) -> None:
        self._checkpoints, self._settings = checkpoints, settings
        self._of: dict[str, Component] = {}

    @property
    def fields(self) -> list[Any]:
        """The components of prompt, modes, what comes before the prompt and settings, in the order of
        `permalink.FIELDS`."""
        return [self.prompt, self.modes, self.system, self.history, *(self._of[setting.name] for setting in OFFERED)]

    @property
    def by_checkpoint(self) -> dict[str, Any]:
        """The fields whose defaults the loaded checkpoint decides, by their keys in a link."""
        return {one.key: self._of[one.name] for one in OFFERED if one.key in self._checkpoints.defaults}

    @property
    def of_checkpoint(self) -> list[Any]:
        """The fields that change with the loaded checkpoint: its defaults, and which samplers there are."""
        return [*self.by_checkpoint.values(), self._of["sampler"]]

    def shown(self, held: Sequence[Any] | None = None) -> list[Any]:
        """What `of_checkpoint` show now. held: what they hold; then what a visitor has changed stays as it is."""
        own = list(self._checkpoints.defaults.items())
        kept = [held is not None and held[k] != self.by_checkpoint[key].value for k, (key, _) in enumerate(own)]
        values = [gr.skip() if keep else value for keep, (_, value) in zip(kept, own, strict=True)]
        return [*values, self.samplers()]

    def caught_up(self, sent: Sequence[Any]) -> list[Any]:
        """Values sent before the first model was there, with its defaults in place of those that nobody had changed."""
        pairs = zip(sent, self.fields, self.defaults(), strict=True)
        return [own if value == field.value else value for value, field, own in pairs]

    def samplers(self, **value: Any) -> Any:
        """What the choice of a sampler shows. value: `value`, where one is to be chosen."""
        return gr.update(choices=self._checkpoints.samplers, **value)

    def updates(self, values: Mapping[str, Any]) -> list[Any]:
        """What all fields show of values by their names in a link: of what belongs to a choice, what is chosen."""
        updates = {name: values.get(name, gr.skip()) for name in permalink.FIELDS}
        for setting in OFFERED:
            own = {"value": values[setting.key]} if setting.key in values else {}
            if setting.name == "sampler":
                updates[setting.key] = self.samplers(**own)
            elif setting.of and (owner := _named(setting.of[0]).key) in values:
                updates[setting.key] = gr.update(visible=setting.goes_with(values[owner]), **own)
        return list(updates.values())

    def defaults(self) -> list[Any]:
        """What the fields hold where nobody changed them, with the checkpoint that is loaded now."""
        own = {id(self.by_checkpoint[key]): value for key, value in self._checkpoints.defaults.items()}
        return [own.get(id(field), field.value) for field in self.fields]

    def ask(self) -> None:
        """The prompt's field."""
        self.prompt = gr.Textbox(
            value=next(one.prompt for one in EXAMPLES if one.label == "JSON person"),
            placeholder="Ask the model something",
            show_label=False,
            label="Prompt",
            lines=1,
            max_lines=6,
            container=False,
            autofocus=False,
            elem_id="prompt",
        )

    def options(self) -> gr.Accordion:
        """The row of modes and settings, and the accordion "More", which is returned."""
        shown = sorted(OFFERED, key=lambda setting: setting.place)
        with gr.Row(elem_id="options"):
            self.modes = gr.CheckboxGroup(
                MODE_NAMES, value=list(MODES), show_label=False, label="Modes", elem_id="modes"
            )
            self._add(setting for setting in shown if not setting.more)
        with gr.Accordion("More", open=False, elem_id="more") as more, gr.Row(elem_id="extras"):
            self.system = gr.Textbox(
                "", label="system prompt", placeholder="none", lines=2, max_lines=6, elem_id="system", min_width=240
            )
            self._add(setting for setting in shown if setting.more)
        self.history = conversation.field()
        return more

    def wire(self, quiet: dict[str, Any]) -> None:
        """Show the fields of what is chosen alone. quiet: options of events that nobody has to see."""
        for owner in OFFERED:
            owned = [one for one in OFFERED if one.of and one.of[0] == owner.name]
            if not owned:
                continue

            def show(chosen: Any, owned: list[Setting] = owned) -> Any:
                updates = [gr.update(visible=one.goes_with(chosen)) for one in owned]
                return updates if len(updates) > 1 else updates[0]

            fields = [self._of[one.name] for one in owned]
            self._of[owner.name].change(show, self._of[owner.name], fields, queue=False, **quiet)  # type: ignore[attr-defined]
        # By hand only: a link that names a sampler names its threshold, too.
        sampler: Any = self._of["sampler"]
        sampler.input(self._checkpoints.threshold_of, sampler, self._of["threshold"], queue=False, **quiet)

    def request(self, sent: Sequence[Any], images: tuple[Picture, ...]) -> Request:
        """The Request of the fields' values as they were sent. Raises RequestError."""
        prompt, modes, system, history, *values = sent
        check_length(prompt, self._settings.max_prompt)
        chosen = dict(zip((setting.name for setting in OFFERED), values, strict=True))
        settings = {}
        for setting in OFFERED:
            if setting.of is None or setting.goes_with(chosen[setting.of[0]]):  # what does not show sets nothing
                settings[setting.name] = self._read(setting, chosen[setting.name])
        return Request(
            prompt=prompt,
            system=system or "",
            history=conversation.read(history)[0],
            images=images,
            modes=_modes(modes),
            time_limit=self._settings.time_limit,
            **settings,
        )

    def _read(self, setting: Setting, sent: Any) -> Any:
        """A field's value, as far as a Request does not check it. Raises RequestError."""
        match setting.kind:
            case Flag():
                return bool(sent)
            case Texts():
                return _texts(setting, sent)
            case Whole() if setting.name == "max_new_tokens":
                return new_tokens(sent, self._settings.max_new_tokens)
            case Whole(high=high) if high > MAX_WHOLE:
                return exact_whole(setting.label, sent)
            case Whole():
                value = whole(setting.label, sent)
                if self._default(setting) is None:
                    return value or None  # a field that holds nothing is a 0 as soon as Gradio shows it
                return value if setting.default is None else given(setting.label, value)
            case Number():
                return sent if setting.default is None else given(setting.label, sent)
        return sent

    def _add(self, settings: Any) -> None:
        for setting in settings:
            self._of[setting.name] = self._field(setting)

    def _field(self, setting: Setting) -> Component:
        name = setting.name.replace("_", "-")
        visible = setting.of is None or setting.goes_with(self._default(_named(setting.of[0])))
        value = self._default(setting)
        match setting.kind:
            case Flag():
                return gr.Checkbox(value, label=setting.label + setting.note, elem_id=name, min_width=60)
            case Texts():
                # Not its name: Stop's button has that id. Of one line Enter would make none more.
                label, place = setting.label + setting.note, setting.label.replace(" ", "-")
                none = r"none; \n is a line break"
                return gr.Textbox(
                    value, label=label, placeholder=none, lines=2, max_lines=4, elem_id=place, min_width=240
                )
            case Choice(names=names, labels=labels):
                offered = self._checkpoints.samplers if setting.name == "sampler" else names
                choices = list(zip(labels, names, strict=True)) if labels else list(offered)
                return gr.Dropdown(
                    choices,
                    value=value,
                    label=setting.label,
                    visible=visible,
                    filterable=False,
                    elem_id=name,
                    elem_classes="choice",
                    min_width=60,
                )
        # No minimum or maximum: the request says in a sentence what is wrong, Gradio would only show a toast.
        # What may stay empty is a 0 as soon as Gradio shows it, and says what it then is.
        return gr.Number(
            value,
            label=setting.label if value is not None else f"{setting.label} (0: auto)",
            step=setting.kind.step if isinstance(setting.kind, Number) else 1,
            visible=visible,
            elem_id=name,
            min_width=60,
            placeholder="auto" if value is None else None,
        )

    def _default(self, setting: Setting) -> Any:
        """What a field holds at first: what the checkpoint fills in where the table leaves it to that."""
        if setting.name == "max_new_tokens":
            return min(setting.default, self._settings.max_new_tokens)
        if isinstance(setting.kind, Texts):
            return setting.kind.write(setting.default)
        if setting.default is None:
            return getattr(self._checkpoints.filled, setting.name)
        return self._checkpoints.defaults.get(setting.key, setting.default)


def _named(name: str) -> Setting:
    return next(setting for setting in OFFERED if setting.name == name)


def _texts(setting: Setting, sent: Any) -> tuple[str, ...]:
    """The lines of a field, bounded before they are parted. Raises RequestError."""
    if not setting.kind.is_like(sent or ""):
        raise SettingError(setting.name, f"takes {setting.kind.words}.")
    return setting.kind.parse(sent or "")


def _modes(sent: Any) -> tuple[str, ...]:
    chosen = tuple(mode for mode in MODES if mode in listed("modes", sent))
    if not chosen:
        raise RequestError("Choose at least one mode: Autoregressive, Diffusion or Self-speculation.")
    return chosen
