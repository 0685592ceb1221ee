"""Tensors that belong together, stacked along their first dimension, and the file that keeps them between two runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch

from nemodiff.training.progress import not_saved, read_saved

Kind = TypeVar("Kind", bound="Stacked")


class Stacked:
    """What a dataclass with slots, whose fields are tensors of one length, can do."""

    __slots__: tuple[str, ...] = ()

    @classmethod
    def join(cls: type[Kind], parts: Iterable[Kind]) -> Kind:
        parts = list(parts)
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls.__slots__))

    def __getitem__(self: Kind, rows: slice | torch.Tensor) -> Kind:
        return type(self)(*(getattr(self, name)[rows] for name in self.__slots__))

    def __len__(self) -> int:
        return len(getattr(self, self.__slots__[0]))


def kept(file: Path | None, kind: type[Kind], collect: Callable[[], list[Kind]]) -> list[Kind]:
    """What an earlier run left in `file`; where there is none, what `collect` gives, which is left there. Raises
    RequestError where the file holds something else."""
    if file and file.exists():
        what = "file that --states wrote for this step"
        parts = read_saved(file, what)
        try:
            return [kind(**part) for part in parts]
        except TypeError as error:
            raise not_saved(file, what) from error
    parts = collect()
    if file:
        torch.save([{name: getattr(part, name) for name in part.__slots__} for part in parts], file)
    return parts
