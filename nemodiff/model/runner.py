"""Runner: what decoding knows of a model. CPU kernels, eager torch and CUDA graphs are one each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from nemodiff.model.config import ModelConfig
from nemodiff.model.layout import Layout
from nemodiff.model.output import Output

if TYPE_CHECKING:
    from nemodiff.model.transformer import Matrix
    from nemodiff.model.vision import Vision


@dataclass(frozen=True)
class ForwardShape:
    """A kind of forward that a mode runs; the fields are those of `Runner.forward`."""

    rows: int
    causal: bool = True
    adapter: bool = False
    layout: Layout | None = None


class Runner(Protocol):
    """A model that runs forwards: `CpuModel` in kernels of our own, `Transformer` in eager torch, `GraphRunner` in
    CUDA graphs.

    exact: a token's logits have the same bits alone and in a block. dtype: what activations are in.
    mask_embedding: the input embedding of the mask [hidden] where a checkpoint trained its own.
    """

    config: ModelConfig
    embed: Matrix
    mask_embedding: Tensor | None
    vision: Vision | None

    @property
    def exact(self) -> bool: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def dtype_name(self) -> str:
        """What the linears run in: float32, bfloat16 or int8."""

    @property
    def attention(self) -> str:
        """What computes block-shaped forwards, in words."""

    @property
    def nbytes(self) -> int:
        """Memory of the weights, in bytes."""

    @property
    def lora_bytes(self) -> int:
        """Memory of the draft LoRA, in bytes."""

    @property
    def exact_trees(self) -> bool:
        """`exact` for the rows of a tree, too."""

    def padded(self, layout_rows: int) -> int:
        """Rows that a forward over a layout of so many rows costs."""

    def new_cache(self, capacity: int) -> Any:
        """An empty cache for `capacity` positions, for a prompt."""

    def lane_cache(self, cache: Any, lane: str) -> Any:
        """A cache of the lane's own that keeps what a prompt's cache keeps. The lane's run before must be over."""

    def prepare(self, cache: Any, shapes: Iterable[ForwardShape]) -> None:
        """Make what forwards of these shapes over a lane's cache need, so that no clock counts it."""

    def embeddings(self, tokens: Tensor) -> Tensor:
        """Input embeddings [rows, hidden] of token ids [rows]."""

    def forward(
        self,
        inputs: Tensor,
        cache: Any,
        *,
        causal: bool = True,
        layout: Layout | None = None,
        adapter: bool = False,
        rows: slice = slice(None),
        few: int = 0,
    ) -> Output:
        """Run `inputs` after the cache's kept length and write, not keep, their keys and values.

        inputs: token ids [rows] (int64) or embeddings [rows, hidden]. causal: each row sees what is before it; else
        all see each other. layout: positions and visibility in place of it. adapter: the draft LoRA is on, but for a
        layout's first `plain` rows. rows: whose logits are wanted. few: how many of the best tokens will be asked for,
        where the runner reads them off; 0: none.
        """


class Logits:
    """A runner that can be called: for whoever wants no more than the logits of all rows [rows, vocab]."""

    def __call__(self: Runner, inputs: Tensor, cache: Any, **how: Any) -> Tensor:
        return self.forward(inputs, cache, **how).logits
