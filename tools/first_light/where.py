"""Where a run takes place: on a GPU, or on a CPU as its rehearsal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from nemodiff.engine.loading import load
from nemodiff.engine.local import Engine
from nemodiff.model.cuda.graph_runner import GraphRunner
from nemodiff.model.transformer import Transformer


@dataclass(frozen=True)
class Where:
    """device: cuda, or cpu in a rehearsal. scratch: a folder for what is made on the way. out: for what comes back.

    deadline: of `time.monotonic()`, when all must be over.
    """

    device: str
    scratch: Path
    out: Path
    deadline: float

    @property
    def rehearsal(self) -> bool:
        return self.device == "cpu"

    def open(
        self, folder: Path | str, dtype: str | None, graphs: bool, report: Callable[[str], None] = lambda line: None
    ) -> Engine:
        """An engine on the device. graphs: forwards of fixed shapes, on a GPU captured, or an error."""
        if not self.rehearsal:
            return load(str(folder), device=self.device, dtype=dtype, graphs="on" if graphs else "off", report=report)
        engine = load(str(folder), device="cpu", dtype=dtype, report=report)
        if not graphs or not isinstance(engine.model, Transformer):
            return engine
        return Engine(
            engine.checkpoint,
            GraphRunner(engine.model),
            engine.tokenizer,
            engine.defaults,
            engine.sampler,
            draft_head=engine.draft_head,
        )

    def free(self) -> None:
        """Give back what the allocator holds."""
        if not self.rehearsal:
            torch.cuda.empty_cache()
