"""Sight: what an engine reads pictures with; of a checkpoint whose text weights do not, loaded when the first one
comes."""

from __future__ import annotations

from collections.abc import Callable

from nemodiff.model.config import VisionConfig
from nemodiff.model.runner import Runner
from nemodiff.model.vision import PictureCache


class Sight:
    """A tower, and the model whose weights understand what it writes.

    That model is the text model itself where it was trained with its tower. Else it is a second one, made of the same
    weights and one more update, which prompts with pictures alone run in: the text model never changes.
    """

    def __init__(self, config: VisionConfig, open_model: Callable[[], Runner]) -> None:
        self.config = config
        self._open_model = open_model
        self._opened: tuple[Runner, PictureCache] | None = None

    @classmethod
    def of(cls, model: Runner) -> Sight | None:
        """The sight of a model that has its tower; None where it has none."""
        if model.vision is None or model.config.vision is None:
            return None
        sight = cls(model.config.vision, lambda: model)
        sight.open()
        return sight

    def open(self) -> tuple[Runner, PictureCache]:
        """The model for prompts with pictures, and its tower; the first call may load them. Raises CheckpointError."""
        if self._opened is None:
            model = self._open_model()
            if model.vision is None:
                raise ValueError("a model without a tower sees nothing")
            self._opened = model, PictureCache(model.vision)
        return self._opened

    @property
    def loaded(self) -> Runner | None:
        """The model for prompts with pictures, once it is there."""
        return self._opened[0] if self._opened else None
